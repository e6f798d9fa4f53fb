"""Grades follow measurements: who is in a cohort, who gets a grade, and that nothing else is touched."""

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Invalid
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from tests.support.factories import BlueprintFactory, BlueprintVersionFactory, KernelFactory

pytestmark = pytest.mark.django_db


def measured(cost: float, size: int = 1000, *, profile: str = "a", shape: tuple[Any, ...] = ("N", 8)) -> Kernel:
    """A validated kernel of ``cost`` (relative time per MFLOP) and ``size`` bytes."""
    return KernelFactory(
        state=KernelState.VALIDATED,
        hardware={"profile": profile},
        metrics={"relative_per_mflop": cost, "bytes": size},
        compat={"operator": "residual", "input": list(shape), "output": list(shape)},
    )


def with_grade(tag: str) -> set[Any]:
    return set(Kernel.objects.filter(tags__contains={tag: True}).values_list("pk", flat=True))


def test_the_fastest_and_the_smallest_fifth_of_a_cohort_get_their_grades() -> None:
    kernels = [measured(cost=1.0 + number, size=2000 - number) for number in range(10)]

    services.grade_kernels()

    assert with_grade("high_speed") == {kernel.pk for kernel in kernels[:2]}
    assert with_grade("compact") == {kernel.pk for kernel in kernels[-2:]}


def test_a_cohort_is_one_hardware_profile_and_one_rank() -> None:
    slow = [measured(cost=100.0 + number, profile="slow") for number in range(5)]
    images = [measured(cost=200.0 + number, shape=("N", 8, "H", "W")) for number in range(5)]
    fast = [measured(cost=1.0 + number) for number in range(5)]

    services.grade_kernels()

    assert with_grade("high_speed") == {slow[0].pk, images[0].pk, fast[0].pk}


def test_a_small_cohort_is_not_graded() -> None:
    for number in range(4):
        measured(cost=1.0 + number)

    assert services.grade_kernels() == []


def test_kernels_that_no_longer_count_are_not_in_the_cohort() -> None:
    for number in range(4):
        measured(cost=1.0 + number)
    services.quarantine_kernel(kernel=measured(cost=0.5), reason="bad bytes", actor=SYSTEM)

    assert services.grade_kernels() == []


def test_equals_across_the_border_get_no_grade() -> None:
    for _ in range(10):
        measured(cost=1.0)

    services.grade_kernels()

    assert with_grade("high_speed") == set()


def test_a_grade_is_taken_when_faster_kernels_come() -> None:
    first = [measured(cost=10.0 + number) for number in range(5)]
    services.grade_kernels()
    faster = [measured(cost=1.0 + number) for number in range(5)]

    services.grade_kernels()

    assert with_grade("high_speed") == {faster[0].pk, faster[1].pk}
    first[0].refresh_from_db()
    assert "high_speed" not in first[0].tags


def test_each_change_is_one_event_and_grading_again_changes_nothing() -> None:
    kernels = [measured(cost=1.0 + number, size=1000 + number) for number in range(5)]

    changed = services.grade_kernels()

    events = AuditEvent.objects.filter(type="kernel.graded")
    assert [event.subject_id for event in events] == [str(kernels[0].pk)] == [str(kernel.pk) for kernel in changed]
    assert services.grade_kernels() == []
    assert events.count() == 1


def test_grading_goes_in_batches() -> None:
    for number in range(10):
        measured(cost=1.0 + number, size=2000 - number)

    assert [len(services.grade_kernels(limit=3)) for _ in range(3)] == [3, 1, 0]


def test_other_tags_stay() -> None:
    kernels = [measured(cost=1.0 + number) for number in range(5)]
    Kernel.objects.filter(pk=kernels[0].pk).update(tags={"task": "digits"})

    services.grade_kernels()

    kernels[0].refresh_from_db()
    assert kernels[0].tags == {"task": "digits", "high_speed": True}


@pytest.mark.parametrize("tag", ["high_speed", "compact"])
def test_nobody_gives_a_grade_by_hand(tag: str) -> None:
    with pytest.raises(Invalid) as caught:
        services.register_kernel(version=BlueprintVersionFactory(), tags={tag: True}, actor=SYSTEM)

    assert caught.value.errors[0].pointer == f"/tags/{tag}"
    assert not Kernel.objects.exists()


def test_new_tags_leave_the_grades_as_they_are() -> None:
    kernels = [measured(cost=1.0 + number) for number in range(5)]
    services.grade_kernels()

    changed = services.update_kernel(kernel=kernels[0], tags={"task": "digits"}, actor=SYSTEM)

    assert changed.tags == {"task": "digits", "high_speed": True}
    assert services.update_kernel(kernel=changed, tags=changed.tags, actor=SYSTEM).row_version == changed.row_version


@pytest.mark.parametrize("tags", [{"high_speed": False}, {"compact": True}], ids=["taken", "given"])
def test_nobody_changes_a_grade_by_hand(tags: dict[str, bool]) -> None:
    kernels = [measured(cost=1.0 + number) for number in range(5)]
    services.grade_kernels()

    with pytest.raises(Invalid) as caught:
        services.update_kernel(kernel=kernels[0], tags=tags, actor=SYSTEM)

    assert caught.value.errors[0].pointer == f"/tags/{next(iter(tags))}"


def test_a_kernel_inherits_no_grade_from_its_blueprint() -> None:
    blueprint = BlueprintFactory(tags={"task": "digits", "compact": True})

    kernel = services.register_kernel(version=BlueprintVersionFactory(blueprint=blueprint), actor=SYSTEM)

    assert kernel.tags == {"task": "digits"}


def test_a_kernel_is_graded_against_its_cohort_when_it_is_validated() -> None:
    """Its peers are so slow that no noise of the benchmark matters."""
    registered = [services.register_kernel(version=BlueprintVersionFactory(), actor=SYSTEM) for _ in range(2)]
    known = services.process_kernel(kernel=registered[0])
    slow = {"relative_per_mflop": 1e9, "bytes": 1}
    Kernel.objects.filter(pk=known.pk).update(metrics=slow)
    for _ in range(4):
        KernelFactory(state=KernelState.VALIDATED, hardware=known.hardware, metrics=slow, compat=known.compat)

    kernel = services.process_kernel(kernel=registered[1])

    assert kernel.tags == {"high_speed": True}
    events = AuditEvent.objects.filter(subject_id=str(kernel.pk)).order_by("id").values_list("type", flat=True)
    assert list(events)[-2:] == ["kernel.validated", "kernel.graded"]
    assert with_grade("high_speed") == {kernel.pk}
