"""Which kernels a run can use: what the platform compiles beforehand is all that the policy can reach."""

import dataclasses
from itertools import product

import pytest
import torch

from apps.morphogenesis.catalogue import RECIPES
from apps.morphogenesis.contracts import contracts_of, sites, start_topology, target_width, wanted_bindings
from apps.morphogenesis.hosts import build_host
from apps.morphogenesis.settings import RunSettings
from tests.unit.morphogenesis.support import kernels


@pytest.mark.parametrize(("task", "host"), RECIPES)
def test_the_pure_contracts_are_those_that_the_built_host_measures(task: str, host: str) -> None:
    settings = RunSettings.from_mapping({"task": task, "host": host})
    built = build_host(start_topology(settings), torch.Generator().manual_seed(0))
    assert built.contracts() == sites(settings)


@pytest.mark.parametrize(("task", "host"), RECIPES)
def test_a_kernel_is_compiled_for_every_site_at_every_combination_of_widths(task: str, host: str) -> None:
    settings = RunSettings.from_mapping({"task": task, "host": host})
    start = start_topology(settings)
    offered = {(offer.operator, offer.input_shape, offer.output_shape) for offer in kernels(settings).offers()}
    for widths in product(*((width, target_width(width, settings)) for width in start.widths)):
        for contract in contracts_of(dataclasses.replace(start, widths=widths)):
            assert (contract.operator, contract.input_shape, contract.output_shape) in offered


def test_no_kernel_is_wanted_when_growth_is_off() -> None:
    assert wanted_bindings(RunSettings.from_mapping({"growth": {"enabled": False}})) == ()


def test_a_widening_factor_of_one_wants_no_widening() -> None:
    bindings = wanted_bindings(RunSettings.from_mapping({"growth": {"widen_factor": 1.0}}))
    assert {binding.operator for binding in bindings} == {"residual"}


def test_bindings_are_distinct() -> None:
    bindings = wanted_bindings(RunSettings.from_mapping({"width": 10}))
    assert len(bindings) == len({(b.operator, b.layer, *sorted(b.symbols.items())) for b in bindings})
