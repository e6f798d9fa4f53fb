"""Where the processes of one host put what they count, so that whoever is asked can add it up."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def share(folder: str) -> None:
    """Make the folder, and name it where prometheus_client looks for it when it is imported, which is after this.

    Raises:
        ImproperlyConfigured: it cannot be made, or not be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"ESPER_METRICS_DIR: {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"ESPER_METRICS_DIR: {folder} cannot be written")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
