"""Identity at birth: whatever operator is planted at whatever site, a trained host computes what it computed before."""

import pytest
import torch

from apps.morphogenesis.catalogue import RECIPES
from apps.morphogenesis.contracts import SiteContract, sites, start_topology
from apps.morphogenesis.datasets import epoch_order, load
from apps.morphogenesis.hosts import build_host
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.planting import contract_fault, fetch, logits_at, plant, uproot, without
from apps.morphogenesis.seeds import Seed
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trees import copied
from tests.unit.morphogenesis.support import is_same, kernels

CASES = [
    (settings, site)
    for task, host in RECIPES
    for settings in [RunSettings.from_mapping({"task": task, "host": host})]
    for site in sites(settings)
]


def trained(settings: RunSettings) -> Learner:
    host = build_host(start_topology(settings), torch.Generator().manual_seed(0))
    learner = Learner(host, load(settings.task), settings, torch.device("cpu"))
    monitors = Monitors(decay=0.9, horizon=16)
    order = epoch_order(0, 0, len(learner.data.train))
    for step in range(5):
        learner.train_step(order, step, monitors, watch=False)
    return learner


def planted(learner: Learner, settings: RunSettings, site: SiteContract) -> Seed:
    source = kernels(settings)
    offer = next(
        offer
        for offer in source.offers()
        if (offer.operator, offer.input_shape, offer.output_shape)
        == (site.operator, site.input_shape, site.output_shape)
    )
    fetched = fetch(source, offer)
    assert not isinstance(fetched, str)
    assert contract_fault(learner, site, fetched[0]) is None
    start, count = plant(learner, site, *fetched)
    return Seed(
        number=1,
        site=site.name,
        operator=site.operator,
        kernel=offer.digest,
        name=offer.name,
        parameters=offer.parameters,
        flops=0,
        loss_before=0.0,
        state=SeedState.GERMINATED,
        state_step=0,
        start=start,
        count=count,
    )


@pytest.mark.parametrize(("settings", "site"), CASES, ids=[f"{s.task}-{s.host}-{site.name}" for s, site in CASES])
def test_the_function_is_preserved_and_uprooting_gives_every_bit_back(
    settings: RunSettings, site: SiteContract
) -> None:
    learner = trained(settings)
    split = learner.data.validation
    before, state, parameters = learner.logits(split), copied(learner.state()), learner.parameters
    seed = planted(learner, settings, site)
    assert learner.parameters == parameters + seed.parameters
    assert (logits_at(learner, seed, split) - before).abs().max() <= settings.growth.identity_tolerance
    with without(learner, seed):
        assert (learner.logits(split) - before).abs().max() <= settings.growth.identity_tolerance
    uproot(learner, seed)
    assert is_same(learner.state(), state)
    assert torch.equal(learner.logits(split), before)
