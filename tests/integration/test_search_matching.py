"""What a search finds: each condition on real rows, with values of every type side by side."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.blueprints.models import VersionLineage
from apps.core.errors import Unprocessable
from apps.core.ids import new_id
from apps.core.lineage import LineageKind
from apps.kernels import search
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage
from tests.support.factories import BlueprintFactory, BlueprintVersionFactory, KernelFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def kernels() -> dict[str, Kernel]:
    version = BlueprintVersionFactory(blueprint=BlueprintFactory(name="res"))
    tags: dict[str, dict[str, Any]] = {
        "five": {"x": 5, "arch": "conv"},
        "fifty": {"x": 50.5, "arch": "attn", "deprecated": True},
        "text": {"x": "7", "arch": "conv"},
        "flag": {"x": True, "weird key's": 1},
        "list": {"x": [9]},
        "null": {"x": None},
        "none": {},
    }
    return {
        name: KernelFactory(
            name=name, blueprint_version=version, bindings={"n": number}, tags=given, usage_count=number
        )
        for number, (name, given) in enumerate(tags.items())
    }


def found(text: str) -> set[str]:
    node = search.parse(text)
    assert search.from_json(search.to_json(node)) == node
    return set(search.matching(node).values_list("name", flat=True))


ALL = {"five", "fifty", "text", "flag", "list", "null", "none"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ALL),
        ("tags.x = 5", {"five"}),
        ("tags.x = 5.0", {"five"}),
        ("tags.x = '5'", set()),
        ("tags.x > 5", {"fifty"}),
        ("tags.x >= 5", {"five", "fifty"}),
        ("tags.x < 100", {"five", "fifty"}),
        ("tags.x > '5'", {"text"}),
        ("tags.x like '_'", {"text"}),
        ("tags.x = true", {"flag"}),
        ("tags.x != 5", ALL - {"five", "none"}),
        ("not tags.x = 5", ALL - {"five"}),
        ("not tags.x > 5", ALL - {"fifty"}),
        ("not (tags.x > 5 or tags.y = 1)", ALL - {"fifty"}),
        ("not not tags.x > 5", {"fifty"}),
        ("has(tags.x)", ALL - {"none"}),
        ("not has(tags.deprecated) and tags.arch in ('conv', 'attn')", {"five", "text"}),
        ("tags.arch = 'conv' and tags.x = 5", {"five"}),
        ("tags.x = 5 and tags.x = 6", set()),
        ("tags.arch = 'attn' or tags.x = true", {"fifty", "flag"}),
        ("tags.'weird key''s' = 1", {"flag"}),
        ("metrics.x > 1", set()),
        ("usage_count > 2 and usage_count <= 4", {"flag", "list"}),
        ("name = 'res' and kernel_name like 'f%'", {"five", "fifty", "flag"}),
        ("name != 'res'", set()),
        ("name like 're_' and version >= 1", ALL),
        ("kernel_name like '%\\'", set()),
        ("kernel_name in ('five', 'none')", {"five", "none"}),
        ("risk < 1", set()),
        ("not risk < 1", ALL),
        ("has(digest) or state = 'REGISTERED'", ALL),
        ("tier = 'warm' and storage_tier != 'cold'", ALL),
        ("created_at > now-1h and created_at < now+1h", ALL),
        ("created_at > now+999999w", set()),
        ("created_at > now-999999w", ALL),
        ("created_at < '2020-01-01T00:00:00Z'", set()),
        ("legal_hold = false and last_used_at < now", set()),
        (f"id = '{new_id()}'", set()),
    ],
)
def test_a_search_finds_exactly_what_it_says(kernels: dict[str, Kernel], text: str, names: set[str]) -> None:
    if "999999w" in text:  # a time before the calendar
        with pytest.raises(Exception, match="time"):
            search.parse(text)
        return
    assert found(text) == names


def test_times_count_from_now(kernels: dict[str, Kernel]) -> None:
    Kernel.objects.filter(name="five").update(last_used_at=timezone.now() - timedelta(days=8))
    Kernel.objects.filter(name="fifty").update(last_used_at=timezone.now() - timedelta(days=6))

    assert found("last_used_at > now - 7d") == {"fifty"}
    assert found("last_used_at < now-7d") == {"five"}


def test_a_queryset_of_a_search_goes_on_as_any_other(kernels: dict[str, Kernel]) -> None:
    rows = search.matching(search.parse("tags.arch = 'conv'")).select_related("blueprint_version__blueprint")

    assert list(rows.filter(usage_count__gt=0).exclude(name="list").values_list("name", flat=True)) == ["text"]


# --- Lineage


def edge(child: Any, parent: Any, model: Any = KernelLineage) -> None:
    model.objects.create(child=child, parent=parent, kind=LineageKind.DERIVED)


def test_descendants_of_a_kernel_are_found_to_their_depth() -> None:
    first, second, third, _ = (KernelFactory(name=name) for name in ("a", "b", "c", "d"))
    edge(second, first)
    edge(third, second)

    assert found(f"descends_from('{first.pk}')") == {"b", "c"}
    assert found(f"descends_from('{first.pk}', depth<=1)") == {"b"}
    assert found(f"not descends_from('{first.pk}')") == {"a", "d"}


def test_kernels_descend_from_their_version_its_ancestors_and_its_blueprint() -> None:
    old = BlueprintVersionFactory()
    new = BlueprintVersionFactory()
    edge(new, old, VersionLineage)
    KernelFactory(name="old", blueprint_version=old)
    compiled = KernelFactory(name="new", blueprint_version=new)
    edge(KernelFactory(name="made"), compiled)

    assert found(f"descends_from('{old.pk}')") == {"old", "new", "made"}
    assert found(f"descends_from('{old.pk}', depth<=1)") == {"old"}
    assert found(f"descends_from('{old.pk}', depth<=2)") == {"old", "new"}
    assert found(f"descends_from('{new.blueprint_id}')") == {"new", "made"}


def test_an_id_of_nothing_is_refused_rather_than_answered_with_nothing() -> None:
    with pytest.raises(Unprocessable) as caught:
        found(f"descends_from('{new_id()}')")

    assert caught.value.code == "not_found"


# --- Contracts


def test_only_validated_kernels_of_exactly_these_shapes_fit_a_contract() -> None:
    shapes = {"operator": "widen", "input": ["N", 4, 8], "output": ["N", 8]}
    KernelFactory(name="fits", state=KernelState.VALIDATED, compat=shapes)
    KernelFactory(name="turned", state=KernelState.VALIDATED, compat={**shapes, "input": ["N", 8, 4]})
    KernelFactory(name="raw", compat=shapes)

    assert found("compatible_with('widen', ('N', 4, 8), ('N', 8))") == {"fits"}


def test_a_slot_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Unprocessable):
        found(f"compatible_with('{new_id()}')")
