"""What `/metrics` tells about training."""

from apps.core.metrics import rows_by
from apps.core.registry import registry
from apps.morphogenesis.lifecycle import SeedState
from apps.training.lifecycle import RunState
from apps.training.models import Seed, TrainingRun

registry.collectors["runs"] = rows_by(
    TrainingRun, "state", name="esper_runs", help="Training runs by state.", known=RunState
)
registry.collectors["seeds"] = rows_by(Seed, "state", name="esper_seeds", help="Seeds by state.", known=SeedState)
