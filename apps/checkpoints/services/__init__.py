"""Everything that writes checkpoints, by what is done."""

from apps.checkpoints.services.loading import Loaded, load, load_latest, quarantine, verify
from apps.checkpoints.services.rebuilding import rebuild
from apps.checkpoints.services.saving import RunSaver

__all__ = [
    "Loaded",
    "RunSaver",
    "load",
    "load_latest",
    "quarantine",
    "rebuild",
    "verify",
]
