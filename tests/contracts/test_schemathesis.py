"""Property tests of every operation against its OpenAPI description: generated requests, right and wrong ones.

Deterministic (derandomised) and bounded: the same requests in every run. Most generated ids are replaced by those of
real rows, so that requests get past 404.
"""

import zlib
from collections.abc import Iterator
from copy import deepcopy
from functools import cached_property
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.core.parameters import ParameterLocation

from apps.accounts.roles import Role
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.store.packs import digest_of
from apps.core.actors import SYSTEM
from apps.core.openapi import document
from apps.kernels.lifecycle import KernelState
from tests.contracts.audit_cases import ONE_NUMBER, begun_upload, cache_plan, declared_tag, retention_plan
from tests.support.checkpoints import save
from tests.support.factories import (
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    AuditEventFactory,
    BlueprintVersionFactory,
    CheckpointFactory,
    CheckpointPolicyFactory,
    DecisionFactory,
    EpochMetricFactory,
    FieldReportFactory,
    KernelFactory,
    NotificationFactory,
    RecoveryEventFactory,
    RunFactory,
    SeedFactory,
    SilenceFactory,
    TokenFactory,
    UserFactory,
)

EXAMPLES = 5
PROMISES = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.ignored_auth,
]

# Without If-Match the answer is 428 (RFC 6585), which schemathesis does not expect by itself.
MENDED = {ParameterLocation.PATH, ParameterLocation.HEADER}
"""What the test itself puts right: ids of rows that exist, and who asks."""
CONFIG = {"checks": {"missing_required_header": {"expected-statuses": [428]}}}

api = schemathesis.openapi.from_dict(document(), config=schemathesis.Config.from_dict(CONFIG))
api.app = get_wsgi_application()


class World:
    """One row of everything, and who asks."""

    def __init__(self) -> None:
        self.secret = TokenFactory(user=UserFactory(role=Role.ADMIN)).secret
        self.version = BlueprintVersionFactory(number=1)
        self.kernel = KernelFactory(state=KernelState.VALIDATED)
        self.run = RunFactory(state="RUNNING", kind="external")
        self.seed = SeedFactory(run=self.run)
        self.plan = retention_plan(SYSTEM)
        self.ids = {
            "audit": AuditEventFactory().pk,
            "operations": cache_plan(SYSTEM, applying=True).pk,
            "cache": cache_plan(SYSTEM).pk,
            "blueprints": self.version.blueprint_id,
            "checkpoint-policies": CheckpointPolicyFactory().pk,
            "alerts": AlertFactory().pk,
            "alert-rules": AlertRuleFactory(shipped="loss-spike").pk,
            "silences": SilenceFactory().pk,
            "alert-routes": AlertRouteFactory().pk,
            "notifications": NotificationFactory(state="FAILED").pk,
            "recoveries": RecoveryEventFactory().pk,
            "decisions": DecisionFactory(run=self.run).pk,
            "kernels": self.kernel.pk,
            "plans": self.plan.pk,
            "policies": self.plan.policy_id,
            "runs": self.run.pk,
            "checkpoints": CheckpointFactory(run_id=self.run.pk).pk,
            "seeds": self.seed.pk,
            "tag-keys": declared_tag(SYSTEM).pk,
            "tokens": TokenFactory(user=UserFactory()).id,
            "users": UserFactory().pk,
        }
        EpochMetricFactory(run=self.run), FieldReportFactory(kernel=self.kernel)

    @cached_property
    def upload(self) -> str:
        return str(begun_upload(self.run).id)

    @cached_property
    def saved(self) -> Checkpoint:
        return save(self.run.pk)

    def real(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """``parameters`` with the ids of rows that exist."""
        steps = path.split("/")
        row = next((key for name, key in self.ids.items() if name in steps), "")
        known: dict[str, Any] = {"id": str(row), "number": 1}
        if "uploads" in steps:
            known |= {"upload": self.upload, "digest": digest_of(ONE_NUMBER)}
        elif {"manifest", "objects", "diff"} & set(steps):
            known |= {"id": str(self.saved.pk), "digest": self.saved.references.all()[0].object.digest}
        return {name: known.get(name, value) for name, value in parameters.items()}


@pytest.fixture
def world(db: None) -> Iterator[World]:
    """Requests share the test's transaction: Django must not drop its connection after each of them."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield World()
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@api.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_keeps_its_description(case: schemathesis.Case, world: World) -> None:
    excluded = []
    if case.path_parameters and zlib.crc32(str(case.body).encode("utf-8", "replace")) % 4:
        # Of a request whose path alone was wrong, nothing wrong is left now: it may be taken.
        excluded = [checks.negative_data_rejection] if wrong_parts(case) <= MENDED else []
        case.path_parameters = world.real(case.path, case.path_parameters)

    with transaction.atomic():
        case.call_and_validate(
            headers={"Authorization": f"Bearer {world.secret}"}, checks=PROMISES, excluded_checks=excluded
        )
        transaction.set_rollback(True)


def wrong_parts(case: schemathesis.Case) -> set[ParameterLocation]:
    return {part for part, made in case.meta.components.items() if made.mode.is_negative} if case.meta else set()


def test_a_broken_promise_is_found(world: World) -> None:
    promise = deepcopy(document())
    promise["components"]["schemas"]["Catalogue"]["required"].append("planted")
    planted = schemathesis.openapi.from_dict(promise)
    planted.app = api.app

    with pytest.raises(schemathesis.errors.FailureGroup, match="planted"):
        planted["/api/v1/catalogue"]["GET"].Case().call_and_validate(
            headers={"Authorization": f"Bearer {world.secret}"}, checks=PROMISES
        )
