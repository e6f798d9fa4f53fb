"""What `/metrics` tells about checkpoints."""

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.metrics import rows_by
from apps.core.registry import registry

registry.collectors["checkpoints"] = rows_by(
    Checkpoint, "state", name="esper_checkpoints", help="Checkpoints by state.", known=CheckpointState
)
