"""What writes the trail: recording events, sealing them, and keeping the store."""

from apps.audit.services.partitions import make_partitions
from apps.audit.services.recording import LEAF_COLUMNS, json_patch, record
from apps.audit.services.sealing import copy_checkpoints, rotate_key, seal

__all__ = ["LEAF_COLUMNS", "copy_checkpoints", "json_patch", "make_partitions", "record", "rotate_key", "seal"]
