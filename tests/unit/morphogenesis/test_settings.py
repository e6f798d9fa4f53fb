"""A run's settings: every fault is named by its field, every value is checked before anything is made from it."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.morphogenesis.catalogue import HOSTS, RECIPES, TASKS
from apps.morphogenesis.settings import RunSettings, SettingsError
from tests.unit.morphogenesis.support import quick_settings

TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "host": "mlp",
    "input_shape": [1, 8, 8],
    "classes": 10,
    "widths": [12, 12],
    "branches": {},
}
RESIDUAL: dict[str, Any] = {
    "version": 1,
    "operator": "residual",
    "input": ["N", 12],
    "nodes": [
        {"id": "fc", "op": "linear", "inputs": ["input"], "params": {"out_features": 12, "init": "zeros"}},
    ],
    "output": "fc",
}


@pytest.mark.parametrize(
    ("values", "pointer"),
    [
        ({"task": "chess"}, "/task"),
        ({"host": "transformer"}, "/host"),
        ({"task": "spirals", "host": "cnn"}, "/host"),
        ({"epochs": 0}, "/epochs"),
        ({"epochs": True}, "/epochs"),
        ({"epochs": "ten"}, "/epochs"),
        ({"learning_rate": float("nan")}, "/learning_rate"),
        ({"learning_rate": float("inf")}, "/learning_rate"),
        ({"seed": -1}, "/seed"),
        ({"seed": 1.5}, "/seed"),
        ({"colour": "red"}, "/colour"),
        ({"growth": {"rent": -1}}, "/growth/rent"),
        ({"growth": {"rant": 1}}, "/growth/rant"),
        ({"growth": {"ramp_curve": "wavy"}}, "/growth/ramp_curve"),
        ({"growth": {"forced_at": 0.5, "deadline": 0.2}}, "/growth/forced_at"),
        ({"growth": 3}, "/growth"),
        ({"topology": 3}, "/topology"),
        ({"topology": {}}, "/topology/version"),
        ({"topology": {**TOPOLOGY, "version": 2}}, "/topology/version"),
        ({"topology": {**TOPOLOGY, "widths": [12, 0]}}, "/topology/widths"),
        ({"topology": {**TOPOLOGY, "widths": []}}, "/topology/widths"),
        ({"topology": {**TOPOLOGY, "depth": 2}}, "/topology/depth"),
        ({"topology": {**TOPOLOGY, "host": "cnn"}}, "/topology/host"),
        ({"topology": {**TOPOLOGY, "host": []}}, "/topology/host"),
        ({"topology": {**TOPOLOGY, "classes": 3}}, "/topology/classes"),
        ({"topology": {**TOPOLOGY, "input_shape": [64]}}, "/topology/input_shape"),
        ({"topology": {**TOPOLOGY, "branches": {"layers.9.residual": []}}}, "/topology/branches/layers.9.residual"),
        ({"topology": {**TOPOLOGY, "branches": []}}, "/topology/branches"),
        (
            {"topology": {**TOPOLOGY, "branches": {"layers.0.residual": [{**RESIDUAL, "output": "x"}]}}},
            "/topology/branches/layers.0.residual/0/output",
        ),
        (
            {"topology": {**TOPOLOGY, "widths": [14, 12], "branches": {"layers.0.residual": [RESIDUAL]}}},
            "/topology/branches/layers.0.residual/0",
        ),
    ],
)
def test_a_fault_is_named_by_its_field(values: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SettingsError) as raised:
        RunSettings.from_mapping(values)
    assert raised.value.pointer == pointer
    assert str(raised.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["task", "epochs", "growth", "topology", "width", "learning_rate"]),
)
def test_whatever_json_is_given_the_only_error_is_a_settings_error(value: Any, name: str) -> None:
    with suppress(SettingsError):
        settings = RunSettings.from_mapping({name: value})
        assert RunSettings.from_mapping(settings.to_dict()) == settings


def test_settings_survive_json() -> None:
    settings = quick_settings(topology={**TOPOLOGY, "branches": {"layers.1.residual": [RESIDUAL]}})
    assert RunSettings.from_mapping(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(("task", "host"), RECIPES)
def test_the_recipe_fills_what_the_caller_leaves_out(task: str, host: str) -> None:
    recipe = RECIPES[task, host]
    settings = RunSettings.from_mapping({"task": task, "host": host, "epochs": 3})
    assert (settings.width, settings.epochs, settings.learning_rate) == (recipe.width, 3, recipe.learning_rate)


def test_every_task_has_a_recipe_for_each_of_its_hosts() -> None:
    assert {(task.name, host) for task in TASKS.values() for host in task.hosts} == set(RECIPES)


def test_every_preference_names_operators_that_exist() -> None:
    assert all(set(host.preference) == {"widen", "residual"} for host in HOSTS.values())
