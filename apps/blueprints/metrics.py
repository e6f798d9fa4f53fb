"""What `/metrics` tells about blueprints."""

from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.core.metrics import rows_by
from apps.core.registry import registry

registry.collectors["blueprint_versions"] = rows_by(
    BlueprintVersion, "state", name="esper_blueprint_versions", help="Blueprint versions by state.", known=VersionState
)
