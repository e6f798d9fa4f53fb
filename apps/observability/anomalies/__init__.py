"""Finds what is odd in a stream of values as it comes in. Plain Python: no Django, no set-up.

from apps.observability.anomalies import THRESHOLD, StreamDetector
"""

from apps.observability.anomalies.detector import COMPONENTS, THRESHOLD, VERSION, Explanation, StreamDetector

__all__ = ["COMPONENTS", "THRESHOLD", "VERSION", "Explanation", "StreamDetector"]
