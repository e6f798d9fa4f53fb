"""Everything that writes checkpoints, by what is done."""

from apps.checkpoints.services.old import expire_abandoned, expire_old, load_latest, save_snapshot

__all__ = ["expire_abandoned", "expire_old", "load_latest", "save_snapshot"]
