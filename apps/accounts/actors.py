"""From a request to the actor that services record: see ``core.actors``, where the audit trail finds it too."""

from apps.core.actors import actor_of

__all__ = ["actor_of"]
