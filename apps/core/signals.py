"""What lower layers tell without knowing who listens."""

from django.dispatch import Signal

access_refused = Signal()
"""A known caller was answered 403. Sent with ``request`` and ``detail``, robustly: the answer goes out in any case."""
