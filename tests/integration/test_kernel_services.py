"""Aliases, lineage and curation of kernels as services: what the HTTP tests cannot show, above all at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.lineage import LineageKind
from apps.kernels import selectors, services
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, Kernel, KernelAlias, KernelLineage
from tests.support.factories import BlueprintVersionFactory, KernelFactory, TokenFactory

WRITERS = 16


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that run at the same time, each on a connection of its own; what a call raised, too."""

    def run(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def client_of(secret: str) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def kernels_of_one_blueprint(count: int) -> list[Kernel]:
    version = BlueprintVersionFactory()
    return [
        KernelFactory(
            blueprint_version=version, bindings={"D": 8, "H": number + 1}, state=KernelState.VALIDATED, compat={"a": 1}
        )
        for number in range(count)
    ]


class TestAliases:
    def test_the_periods_of_16_setters_at_once_meet_and_never_overlap(self, committed_db: str) -> None:
        kernels = kernels_of_one_blueprint(WRITERS)

        results = at_once(
            [
                lambda kernel=kernel: services.set_alias(kernel=kernel, name="prod", actor=SYSTEM, reason="race")
                for kernel in kernels
            ]
        )

        assert [type(result) for result in results] == [KernelAlias] * WRITERS
        periods = list(AliasPeriod.objects.order_by("started_at", "id"))
        assert {period.kernel_id for period in periods} == {kernel.pk for kernel in kernels}
        assert len(periods) == WRITERS
        starts = sorted(period.started_at for period in periods)
        ends = sorted(period.ended_at for period in periods if period.ended_at is not None)
        assert ends == starts[1:]
        (last,) = [period for period in periods if period.ended_at is None]
        assert KernelAlias.objects.get().kernel_id == last.kernel_id

    def test_a_clock_that_stepped_back_does_not_turn_the_history_around(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = kernels_of_one_blueprint(2)
        services.set_alias(kernel=first, name="candidate", actor=SYSTEM)
        (period,) = AliasPeriod.objects.all()
        monkeypatch.setattr(
            "apps.kernels.services.aliases.timezone.now", lambda: period.started_at - timedelta(seconds=5)
        )

        services.set_alias(kernel=second, name="candidate", actor=SYSTEM)

        newest = AliasPeriod.objects.get(ended_at=None)
        assert (newest.kernel_id, newest.started_at) == (second.pk, period.started_at)


class TestAliasesOverHttp:
    def test_of_16_clients_who_saw_the_same_version_one_moves_or_takes_the_alias_away(self, committed_db: str) -> None:
        kernels = kernels_of_one_blueprint(WRITERS + 1)
        services.set_alias(kernel=kernels[0], name="candidate", actor=SYSTEM)
        secret = TokenFactory().secret
        path = f"/api/v1/blueprints/{kernels[0].blueprint_version.blueprint_id}/aliases/candidate"
        etag = client_of(secret).get(path)["ETag"]

        def move(kernel: Kernel) -> int:
            address = f"/api/v1/kernels/{kernel.pk}/aliases/candidate"
            return client_of(secret).put(address, {}, headers={"If-Match": etag}).status_code

        def protect() -> int:
            return client_of(secret).patch(path, {"is_protected": True}, headers={"If-Match": etag}).status_code

        def remove() -> int:
            return client_of(secret).delete(path, headers={"If-Match": etag}).status_code

        moves = [lambda kernel=kernel: move(kernel) for kernel in kernels[1 : WRITERS - 3]]
        statuses = at_once([*moves, protect, protect, remove, remove])

        assert set(statuses) <= {200, 204, 404, 412}
        assert KernelAlias.objects.get().row_version == 2
        assert AuditEvent.objects.filter(subject_type="alias").count() == 2


class TestLineage:
    def test_the_same_edge_from_16_writers_at_once_is_written_once(self, committed_db: str) -> None:
        child, parent = KernelFactory(), KernelFactory()

        results = at_once(
            [
                lambda: services.link_kernels(child=child, parent=parent, kind=LineageKind.DERIVED, actor=SYSTEM)
                for _ in range(WRITERS)
            ]
        )

        assert {result.pk for result in results} == set(KernelLineage.objects.values_list("pk", flat=True))
        assert AuditEvent.objects.filter(type="kernel.linked").count() == 1

    def test_a_lineage_of_149_kernels_is_read_in_the_queries_of_one_of_two(
        self, db: None, django_assert_num_queries: Any
    ) -> None:
        family = kernels_of_one_blueprint(149)
        KernelLineage.objects.bulk_create(
            KernelLineage(child=child, parent=parent, kind=LineageKind.DERIVED)
            for number, child in enumerate(family)
            for parent in family[max(0, number - 8) : number]
        )

        with django_assert_num_queries(4):
            found = selectors.family_of_kernel(family[-1], depth=32)

        assert len(found.members) == 149
        assert min(relative.depth for relative, _ in found.members) == -19


class TestSuccessors:
    def test_two_writers_do_not_close_a_cycle_from_both_sides(self, committed_db: str) -> None:
        first, second = kernels_of_one_blueprint(2)

        results = at_once(
            [
                lambda: services.update_kernel(kernel=first, successor=second, actor=SYSTEM),
                lambda: services.update_kernel(kernel=second, successor=first, actor=SYSTEM),
            ]
        )

        assert sorted(type(result).__name__ for result in results) == ["Invalid", "Kernel"]
        assert Kernel.objects.filter(successor__isnull=False).count() == 1


class TestContracts:
    def test_16_runs_that_need_a_new_contract_at_once_get_one_kernel(self, committed_db: str) -> None:
        version = BlueprintVersionFactory()
        wanted = {"version": version, "bindings": {"D": 8, "H": 4}, "actor": SYSTEM}

        results = at_once([lambda: services.ensure_kernel(**wanted) for _ in range(WRITERS)])

        assert results == [Kernel.objects.get()] * WRITERS


class TestUploads:
    def test_the_same_bytes_from_16_clients_at_once_are_uploaded_once(self, committed_db: str) -> None:
        kernel, other = KernelFactory(awaits_upload=True), KernelFactory(state=KernelState.VALIDATED)
        data = KernelStore().get(other.digest)

        results = at_once(
            [
                *(lambda: services.upload_binary(kernel=kernel, data=data, actor=SYSTEM) for _ in range(8)),
                *(lambda: services.attach_blob(kernel=kernel, digest=other.digest, actor=SYSTEM) for _ in range(8)),
            ]
        )

        assert {getattr(result, "digest", result) for result in results} == {other.digest}
        assert AuditEvent.objects.filter(type="kernel.uploaded").count() == 1
