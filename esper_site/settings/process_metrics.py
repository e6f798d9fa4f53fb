"""Where the processes of one host put what they count, so that whoever is asked can add it up."""

import os
import shutil
import warnings
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

LEAST_FREE = 32 << 20
"""Bytes. The files are mapped into memory: what is written where the disk has no room left kills the process."""


def share(folder: str) -> None:
    """Make the folder, and name it where prometheus_client looks for it when it is imported, which is after this.

    On a disk that is nearly full it is left alone, and this process tells its own counts only.

    Raises:
        ImproperlyConfigured: it cannot be made, or not be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"ESPER_METRICS_DIR: {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"ESPER_METRICS_DIR: {folder} cannot be written")
    if shutil.disk_usage(folder).free < LEAST_FREE:
        warnings.warn(
            f"ESPER_METRICS_DIR: the disk of {folder} is full; counts are not shared", RuntimeWarning, stacklevel=2
        )
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
