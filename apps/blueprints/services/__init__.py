"""Everything that writes blueprints: designs and their versions (``versions``), and versions made from others
(``breeding``)."""

from apps.blueprints.services.breeding import clone_blueprint, cross_versions, link_versions, mutate_version
from apps.blueprints.services.versions import (
    Submission,
    create_blueprint,
    find_or_submit_version,
    load_core_library,
    load_starter_library,
    move_version,
    submit_version,
    update_blueprint,
)

__all__ = [
    "Submission",
    "clone_blueprint",
    "create_blueprint",
    "cross_versions",
    "find_or_submit_version",
    "link_versions",
    "load_core_library",
    "load_starter_library",
    "move_version",
    "mutate_version",
    "submit_version",
    "update_blueprint",
]
