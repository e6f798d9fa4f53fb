"""What a controller is offered when it asks for kernels by tags."""

from typing import Any

import pytest

from apps.core.errors import Invalid
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, StorageTier
from apps.kernels.offers import KernelQuery, offers
from tests.support.factories import KernelFactory

pytestmark = pytest.mark.django_db


def kernel(state: KernelState = KernelState.VALIDATED, risk: float | None = None, **tags: Any) -> Kernel:
    confidence = None if risk is None else 0.5
    return KernelFactory(state=state, risk=risk, risk_confidence=confidence, tags=tags)


def test_required_tags_must_be_there_and_excluded_ones_must_not() -> None:
    wanted = kernel(family="conv", norm="batch")
    kernel(family="attention")
    kernel(family="conv", norm="layer")

    found = offers(KernelQuery(required={"family": "conv"}, excluded={"norm": "layer"}))

    assert list(found) == [wanted]


def test_a_kernel_without_the_excluded_tag_is_offered() -> None:
    without = kernel()

    assert list(offers(KernelQuery(excluded={"norm": "layer"}))) == [without]


def test_preferred_tags_rank_and_refuse_nobody() -> None:
    none, both, one = kernel(), kernel(norm="batch", compact=True), kernel(compact=True)

    found = offers(KernelQuery(preferred={"norm": "batch", "compact": True}))

    assert list(found) == [both, one, none]


def test_of_equals_the_one_of_lower_risk_comes_first_and_the_unknown_between() -> None:
    risky, unknown, safe = kernel(risk=0.9), kernel(), kernel(risk=0.1)

    assert list(offers(KernelQuery())) == [safe, unknown, risky]


@pytest.mark.parametrize("state", [KernelState.COMPILED, KernelState.DEPRECATED, KernelState.QUARANTINED])
def test_only_validated_kernels_are_offered(state: KernelState) -> None:
    kernel(state=state)

    assert list(offers(KernelQuery())) == []


def test_an_archived_kernel_is_not_offered() -> None:
    Kernel.objects.filter(pk=kernel().pk).update(storage_tier=StorageTier.ARCHIVE)

    assert list(offers(KernelQuery())) == []


def test_no_more_are_offered_than_asked_for() -> None:
    for _ in range(3):
        kernel()

    assert [offers(KernelQuery(limit=limit)).count() for limit in (0, 2, 20)] == [0, 2, 3]


@pytest.mark.parametrize("part", ["required", "preferred", "excluded"])
@pytest.mark.parametrize("tags", [{"a": "\0"}, {"a": [1]}, {"a": "x" * 5000}], ids=["NUL", "list", "long"])
def test_what_cannot_be_searched_for_is_refused(part: str, tags: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        list(offers(KernelQuery(**{part: tags})))


@pytest.mark.parametrize("part", ["required", "preferred", "excluded"])
def test_timings_decide_nothing(part: str) -> None:
    with pytest.raises(Invalid) as caught:
        offers(KernelQuery(**{part: {"high_speed": True}}))

    assert caught.value.errors[0].pointer == f"/{part}/high_speed"
