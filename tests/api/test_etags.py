"""ETag, If-None-Match and If-Match."""

import pytest

from apps.audit.models import AuditEvent
from apps.blueprints.models import Blueprint
from apps.training.models import TrainingRun
from tests.api.conftest import Caller
from tests.support.factories import (
    BlueprintFactory,
    BlueprintVersionFactory,
    EpochMetricFactory,
    KernelFactory,
    RunFactory,
    SeedFactory,
    SeedTransitionFactory,
)
from tests.support.problems import assert_problem


def test_what_has_not_changed_is_not_sent_again(admin: Caller) -> None:
    path = f"/api/v1/blueprints/{BlueprintFactory().pk}"
    etag = admin.get(path)["ETag"]

    response = admin.get(path, headers={"If-None-Match": f'"other", W/{etag}'})

    assert response.status_code == 304
    assert response["ETag"] == etag == '"v1"'
    assert response.content == b""


def test_a_new_epoch_changes_the_etag_of_its_run(admin: Caller) -> None:
    run = RunFactory(state="RUNNING")
    path = f"/api/v1/runs/{run.pk}"
    etag = admin.get(path)["ETag"]

    EpochMetricFactory(run=run)

    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_a_transition_changes_the_etag_of_its_seed(admin: Caller) -> None:
    seed = SeedFactory()
    path = f"/api/v1/seeds/{seed.pk}"
    etag = admin.get(path)["ETag"]

    SeedTransitionFactory(seed=seed)

    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_a_use_changes_the_etag_of_its_kernel(admin: Caller) -> None:
    kernel = KernelFactory(state="VALIDATED")
    path = f"/api/v1/kernels/{kernel.pk}"
    etag = admin.get(path)["ETag"]

    type(kernel).objects.filter(pk=kernel.pk).update(usage_count=5)

    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/blueprints", {"name": "mlp"}),
        ("/api/v1/kernels", {"blueprint": "given"}),
        ("/api/v1/runs", {"settings": {"task": "digits"}}),
    ],
)
def test_what_was_created_is_known_by_the_same_etag(admin: Caller, path: str, body: dict[str, object]) -> None:
    BlueprintVersionFactory(blueprint=BlueprintFactory(name="given"))

    created = admin.post(path, body)

    assert admin.get(created["Location"], headers={"If-None-Match": created["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["/api/v1/catalogue", "/api/v1/schema"])
def test_documents_are_revalidated_too(admin: Caller, path: str) -> None:
    etag = admin.get(path)["ETag"]

    assert admin.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_a_change_needs_the_current_version_and_gives_the_next(admin: Caller) -> None:
    blueprint = BlueprintFactory()
    path = f"/api/v1/blueprints/{blueprint.pk}"

    response = admin.patch(path, {"title": "First"}, headers={"If-Match": '"v1"'})

    assert response.status_code == 200
    assert response["ETag"] == '"v2"'
    assert response.json()["title"] == "First"


def test_of_two_that_read_the_same_version_the_second_is_refused_and_nothing_is_written(admin: Caller) -> None:
    blueprint = BlueprintFactory()
    path = f"/api/v1/blueprints/{blueprint.pk}"
    admin.patch(path, {"title": "First"}, headers={"If-Match": '"v1"'})
    events = AuditEvent.objects.count()

    response = admin.patch(path, {"title": "Second"}, headers={"If-Match": '"v1"'})

    assert_problem(response, 412, "if_match")
    assert Blueprint.objects.get(pk=blueprint.pk).title == "First"
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize("header", ['W/"v1"', "v1", '"v10"', ""])
def test_only_the_exact_strong_tag_matches(admin: Caller, header: str) -> None:
    path = f"/api/v1/blueprints/{BlueprintFactory().pk}"

    assert_problem(admin.patch(path, {"title": "x"}, headers={"If-Match": header}), 412, "if_match")


def test_a_star_matches_whatever_is_there(admin: Caller) -> None:
    path = f"/api/v1/blueprints/{BlueprintFactory().pk}"

    assert admin.patch(path, {"title": "x"}, headers={"If-Match": "*"}).status_code == 200


def test_reading_a_run_writes_nothing(admin: Caller) -> None:
    run = RunFactory()
    admin.get(f"/api/v1/runs/{run.pk}")

    assert TrainingRun.objects.get(pk=run.pk).row_version == 1
