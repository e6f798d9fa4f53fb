"""What `/metrics` tells about kernels."""

from apps.core.metrics import rows_by
from apps.core.registry import registry
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel

registry.collectors["kernels"] = rows_by(
    Kernel, "state", name="esper_kernels", help="Kernels by state.", known=KernelState
)
