"""Library, checkpoints, fleet, audit and search: lists that read well, stay bounded and lead on."""

import re
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.models import User, default_workspace_id
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.blueprints.services import create_blueprint, load_starter_library, submit_version
from apps.blueprints.starter import starter_library
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.lineage import LineageKind
from apps.kernels import services as services_of_kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport, Kernel, KernelLineage, KernelVariant, StorageTier, TagKey
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.factories import AlertFactory, AlertRuleFactory, CheckpointFactory, KernelFactory, residual_spec
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.django_db

REPORT = {
    "compile": {
        "stages": [
            {
                "name": "identity",
                "passed": True,
                "duration_ms": 1.5,
                "measured": {"max_abs": 0.0},
                "thresholds": {"max_abs": 1e-5},
            }
        ]
    }
}


@pytest.fixture
def ada() -> User:
    return make_user("ada", role="admin")


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def residual_conv() -> BlueprintVersion:
    """The first version of that starter blueprint, alone."""
    starter = starter_library()["residual_conv"]
    found = BlueprintVersion.objects.filter(blueprint__name=starter.name).first()
    return found or submit_version(
        blueprint=create_blueprint(name=starter.name, title=starter.title, card=starter.card, actor=SYSTEM),
        spec=starter.spec,
        actor=SYSTEM,
    )


def make_kernel(**values: Any) -> Kernel:
    """A kernel of ``residual_conv``, made without its compiler; bindings keep contracts apart."""
    version = residual_conv()
    fields: dict[str, Any] = {
        "blueprint_version": version,
        "name": f"residual_conv-{Kernel.objects.count()}",
        "operator": version.operator,
        "parameters": version.parameters,
        "compat": {"operator": version.operator, "input": ["N", 8], "output": ["N", 8]},
        "bindings": {"C": 8, "H": 8 + Kernel.objects.count()},
    }
    return Kernel.objects.create(**fields | values)


def report_on(kernel: Kernel, run: TrainingRun, number: int, verdict: str, gain: float | None) -> None:
    FieldReport.objects.create(
        kernel=kernel, run_id=run.pk, seed_number=number, task="digits", host="mlp", site="layers.0.width",
        verdict=verdict, parameters=10, train_flops=10, loss_before=1.0, loss_after=0.9, contribution=gain, rent=0.001,
    )  # fmt: skip


def test_an_empty_library_teaches_how_it_is_filled(client: Client) -> None:
    assert "make grow" in client.get("/library").content.decode()


def test_a_kernel_is_listed_with_its_outcomes(client: Client) -> None:
    kernel, run = make_kernel(), make_run(state=RunState.QUEUED)
    report_on(kernel, run, 1, "FOSSILIZED", 0.04)
    report_on(kernel, run, 2, "CULLED", None)

    page = client.get("/library").content.decode()

    assert "1 of 2" in page
    assert "0.0400\xa0nats" in page


def test_kernels_can_be_filtered_by_state_and_operator(client: Client) -> None:
    make_kernel(name="still-registered")
    rejected = make_kernel(name="was-rejected")
    rejected.state = KernelState.REJECTED
    rejected.save()

    page = client.get("/library?state=REJECTED&operator=residual&after=x").content.decode()

    assert "was-rejected" in page
    assert "still-registered" not in page


def test_blueprints_count_their_versions_and_kernels_apart(client: Client) -> None:
    for _ in range(3):
        make_kernel()

    page = client.get("/library").content.decode()

    assert 'data-label="Versions" class="right">1</td><td role="cell" data-label="Kernels" class="right">3</td>' in page


def test_the_library_asks_the_database_equally_often_for_many_kernels(client: Client) -> None:
    make_kernel()
    client.get("/library")
    with CaptureQueriesContext(connection) as few:
        client.get("/library")
    for _ in range(5):
        make_kernel()
    with CaptureQueriesContext(connection) as many:
        client.get("/library")

    assert len(many) == len(few) <= 14  # five of them begin and end the search, with its limits


def test_the_page_of_a_kernel_shows_its_graph_its_proof_and_its_outcomes(client: Client) -> None:
    kernel, run = make_kernel(report=REPORT), make_run(name="tried-it", state=RunState.QUEUED)
    report_on(kernel, run, 1, "FOSSILIZED", 0.04)

    page = client.get(f"/library/kernels/{kernel.pk}").content.decode()

    assert "out channels 8" in page
    assert "identity" in page
    assert f'href="/runs/{run.pk}#seed-1">tried-it' in page


def test_the_page_of_a_kernel_tells_how_fast_each_variant_is(client: Client) -> None:
    kernel = make_kernel()
    KernelVariant.objects.create(
        kernel=kernel,
        memory_format="contiguous",
        dtype="bfloat16",
        digest="ab" * 32,
        size=90,
        report={"metrics": {"speedup": 1.375}},
    )

    page = client.get(f"/library/kernels/{kernel.pk}").content.decode()

    assert '<td role="cell" data-label="Speed" class="right nowrap">1.38</td>' in page


def test_a_kernel_leads_to_what_it_came_from_and_to_what_came_from_it(client: Client) -> None:
    parent, kernel, child = (
        make_kernel(name="the-parent"),
        make_kernel(name="the-kernel"),
        make_kernel(name="the-child"),
    )
    services_of_kernels.link_kernels(
        child=kernel, parent=parent, kind=LineageKind.MERGED, weight=0.25, run_id=None, actor=SYSTEM
    )
    services_of_kernels.link_kernels(
        child=child, parent=kernel, kind=LineageKind.DISTILLED, weight=1.0, run_id=None, actor=SYSTEM
    )

    page = client.get(f"/library/kernels/{kernel.pk}").content.decode()

    assert f'<a href="/library/kernels/{parent.pk}"><g class="box' in page
    assert f'<a href="/library/kernels/{child.pk}"><g class="box' in page
    assert '<span class="muted">merged 25\xa0% from</span> <a href="/library/kernels/' in page
    assert f"/library/blueprints/{kernel.blueprint_version.blueprint_id}#v" in page


def test_the_page_of_a_kernel_asks_equally_often_whatever_it_did_and_came_from(client: Client) -> None:
    kernel, run = make_kernel(), make_run(state=RunState.QUEUED)
    parents = [make_kernel() for _ in range(7)]

    def grow(numbers: range) -> int:
        for number in numbers:
            KernelLineage.objects.create(child=kernel, parent=parents[number], kind=LineageKind.DERIVED)
            report_on(kernel, run, number + 1, "FOSSILIZED", 0.04)
        with CaptureQueriesContext(connection) as captured:
            client.get(f"/library/kernels/{kernel.pk}")
        return len(captured)

    few = grow(range(1))

    assert grow(range(1, 7)) == few <= 24


def test_the_history_of_a_kernel_is_for_those_who_may_read_the_trail(client: Client) -> None:
    kernel = make_kernel()
    viewer = Client()
    viewer.force_login(make_user("vera", role="viewer"))

    assert 'id="history"' in client.get(f"/library/kernels/{kernel.pk}").content.decode()
    assert 'id="history"' not in viewer.get(f"/library/kernels/{kernel.pk}").content.decode()


@pytest.mark.parametrize(("state", "is_told"), [(KernelState.RETIRED, True), (KernelState.PURGED, False)])
def test_a_kernel_says_when_its_bytes_go_while_it_has_them(client: Client, state: KernelState, is_told: bool) -> None:
    kernel = KernelFactory(state=state, retired_at=timezone.now(), purge_after=timezone.now())

    page = client.get(f"/library/kernels/{kernel.pk}").content.decode()

    assert ("unless it is restored before" in page) is is_told


def test_the_history_of_a_kernel_says_where_its_bytes_went(client: Client) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    services_of_kernels.change_tier(kernel=kernel, tier=StorageTier.HOT, reason="read often", actor=SYSTEM)

    page = client.get(f"/library/kernels/{kernel.pk}").content.decode()

    assert "moved the bytes of" in page
    assert "to hot: read often" in page


def test_a_kernel_whose_bytes_are_there_can_be_downloaded(client: Client) -> None:
    kernel, without = KernelFactory(state=KernelState.VALIDATED), make_kernel()

    assert f'href="/api/v1/kernels/{kernel.pk}/binary"' in client.get(f"/library/kernels/{kernel.pk}").content.decode()
    assert "/binary" not in client.get(f"/library/kernels/{without.pk}").content.decode()


def test_a_kernel_that_does_not_exist_is_not_found(client: Client) -> None:
    assert client.get("/library/kernels/01a20a70-2988-776d-9050-9998b8fb74a9").status_code == 404


def test_a_search_finds_by_its_conditions(client: Client) -> None:
    make_kernel(name="small-one", parameters=10)
    make_kernel(name="large-one", parameters=10_000)

    page = client.get("/library", {"q": "parameters > 100 and operator = 'residual'"}).content.decode()

    assert "large-one" in page
    assert "small-one" not in page


def test_a_fault_in_a_search_is_shown_at_its_place_and_the_page_stays(client: Client) -> None:
    make_kernel(name="not-searched")

    response = client.get("/library", {"q": "parameters > 100 and stat = 'x'"})
    page = response.content.decode()

    assert response.status_code == 200
    assert "parameters &gt; 100 and <mark>stat = &#x27;x&#x27;</mark>" in page
    assert "position 22" in page
    assert "did you mean state?" in page
    assert 'aria-invalid="true"' in page
    assert "not-searched" not in page


def test_one_word_is_looked_for_in_names(client: Client) -> None:
    make_kernel(name="needle_one")
    make_kernel(name="something-else")

    page = client.get("/library?q=needle_o").content.decode()

    assert "needle_one" in page
    assert "something-else" not in page


def test_a_chip_adds_its_condition_to_the_search_and_takes_it_away(client: Client) -> None:
    make_kernel()

    on = client.get("/library", {"q": "parameters > 1"}).content.decode()
    off = client.get("/library", {"q": "parameters > 1 and tier = 'warm'"}).content.decode()

    assert 'href="?q=parameters+%3E+1+and+tier+%3D+%27cold%27">cold' in on
    assert 'href="?q=parameters+%3E+1" aria-current="true">warm' in off
    assert 'href="?q=parameters+%3E+1+and+tier+%3D+%27cold%27">cold' in off


def test_declared_tags_have_chips_and_completions(client: Client) -> None:
    make_kernel(name="tagged", tags={"arch": "conv"})
    TagKey.objects.create(
        name="arch", type="text", choices=["conv", "attn"], workspace_id=default_workspace_id(), description="family"
    )

    page = client.get("/library").content.decode()

    assert 'href="?q=tags.arch+%3D+%27attn%27">attn' in page
    assert '<option value="tags.arch" label="family" data-values="conv|attn">' in page


@pytest.mark.parametrize("value", [5, "ab", ["x"]])
def test_a_tag_may_be_called_as_a_method_of_python(client: Client, value: Any) -> None:
    kernel = make_kernel(tags={"items": value})
    blueprint = kernel.blueprint_version.blueprint
    Blueprint.objects.filter(pk=blueprint.pk).update(tags={"items": value})

    for path in ("/library", f"/library/kernels/{kernel.pk}", f"/library/blueprints/{blueprint.pk}"):
        assert "items" in client.get(path).content.decode()


@pytest.mark.parametrize("name", ["state", "items"])
def test_a_declared_tag_takes_no_other_chips_away(client: Client, name: str) -> None:
    TagKey.objects.create(name=name, type="text", choices=["a"], workspace_id=default_workspace_id())
    make_kernel()

    page = client.get("/library").content.decode()

    assert 'href="?q=state+%3D+%27REJECTED%27"' in page
    assert f'href="?q=tags.{name}+%3D+%27a%27"' in page


def test_counts_stand_at_the_chips_when_they_are_asked_for(client: Client) -> None:
    for _ in range(3):
        make_kernel()

    assert ">registered 3</a>" in client.get("/library?counts=1").content.decode()


def test_kernels_stand_in_the_order_that_was_chosen(client: Client) -> None:
    for name, size in (("middling", 20), ("tiny", 10), ("huge", 30)):
        make_kernel(name=name, parameters=size)

    page = client.get("/library?order=parameters").content.decode()

    assert page.index(">tiny<") < page.index(">middling<") < page.index(">huge<")


def test_a_walk_over_the_pages_meets_every_kernel_once(client: Client) -> None:
    first = make_kernel(name="k-0")
    fields = {name: getattr(first, name) for name in ("blueprint_version", "operator", "parameters", "compat")}
    fields["workspace_id"] = first.workspace_id
    Kernel.objects.bulk_create(Kernel(name=f"k-{n}", bindings={"C": 1, "H": n}, **fields) for n in range(1, 120))

    seen, path = [], "/library?q=operator+%3D+%27residual%27"
    while path:
        page = client.get(path).content.decode()
        seen += re.findall(r">(k-\d+)</a>", page)
        further = re.search(r'href="(\?[^"]*after=[^"]+)">Older kernels', page)
        path = f"/library{unescape(further[1])}" if further else ""

    assert sorted(seen) == sorted(f"k-{n}" for n in range(120))


@pytest.mark.parametrize(
    "query",
    [
        "q=%00", "q=(((", "q=state+%3D", "q=descends_from('01a20a70-2988-776d-9050-9998b8fb74a9')",
        "q=compatible_with('x')", "q=" + "x" * 5000, "q=tags.x+%3E+'5'&order=-metrics.gain_mean", "order=nonsense",
        "after=nonsense&q=risk+<+1", "q=%E2%88%9E", "q=name+like+'%25'&counts=1", "state=NONSENSE&operator=%27",
    ],
)  # fmt: skip
def test_a_silly_search_is_no_error(client: Client, query: str) -> None:
    make_kernel()

    assert client.get(f"/library?{query}").status_code == 200


def test_a_search_for_a_contract_says_that_it_is_ranked(client: Client) -> None:
    make_kernel()

    page = client.get("/library", {"q": "compatible_with('residual', ('N', 8), ('N', 8))"}).content.decode()

    assert "Ranked by what they did in other runs" in page


def test_a_search_that_finds_nothing_says_what_to_do(client: Client) -> None:
    make_kernel()

    assert "Take a condition away" in client.get("/library", {"q": "parameters < 0"}).content.decode()


def make_blueprint() -> Blueprint:
    """Two versions: the second has a gate beside the first layer, which the last layer then reads."""
    blueprint = create_blueprint(name="two", card={"summary": "a perceptron"}, actor=SYSTEM)
    first, act, last = residual_spec()["nodes"]
    gate = {"id": "gate", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}}
    both = {"id": "both", "op": "mul", "inputs": ["act", "gate"]}
    gated = {**residual_spec(), "nodes": [first, gate, act, both, {**last, "inputs": ["both"]}]}
    for spec in (residual_spec(), gated):
        submit_version(blueprint=blueprint, spec=spec, actor=SYSTEM)
    return blueprint


def test_a_blueprint_shows_its_card_its_versions_and_its_aliases(client: Client) -> None:
    blueprint = make_blueprint()
    kernel = KernelFactory(blueprint_version=blueprint.versions.get(number=2), state=KernelState.VALIDATED)
    services_of_kernels.set_alias(kernel=kernel, name="candidate", actor=SYSTEM, reason="tried")

    page = client.get(f"/library/blueprints/{blueprint.pk}").content.decode()

    assert "a perceptron" in page
    assert 'id="v1"' in page
    assert f'href="/library/blueprints/{blueprint.pk}/diff?from=1&amp;to=2"' in page
    assert f'<strong>candidate</strong> → <a href="/library/kernels/{kernel.pk}">' in page


def test_the_page_of_a_blueprint_asks_equally_often_for_many_versions_and_kernels(client: Client) -> None:
    blueprint = make_blueprint()

    def asked() -> int:
        KernelFactory(blueprint_version=blueprint.versions.first(), bindings={"D": 8, "H": Kernel.objects.count()})
        with CaptureQueriesContext(connection) as captured:
            client.get(f"/library/blueprints/{blueprint.pk}")
        return len(captured)

    few = asked()
    for hidden in range(3, 8):
        submit_version(blueprint=blueprint, spec=residual_spec(hidden=hidden), actor=SYSTEM)
        asked()

    assert asked() == few <= 14


def test_two_versions_stand_side_by_side_with_words_for_what_became_of_each_node(client: Client) -> None:
    blueprint = make_blueprint()

    page = client.get(f"/library/blueprints/{blueprint.pk}/diff?from=1&to=2").content.decode()

    assert page.count("</span> added</span>") == 2
    assert page.count("</span> rewired</span>") == 1
    assert "linear of act, out features 8, init zeros" in page
    assert '<td role="cell" data-label="v1" class="right">280</td>' in page
    assert "+144" in page


@pytest.mark.parametrize("query", ["from=1&to=9", "from=0&to=1"])
def test_a_version_that_does_not_exist_is_not_found(client: Client, query: str) -> None:
    assert client.get(f"/library/blueprints/{make_blueprint().pk}/diff?{query}").status_code == 404


@pytest.mark.parametrize("query", ["", "from=x", "from=1&to=%C2%B2", "from=99999999999&to=1", "from=1"])
def test_without_two_numbers_the_newest_two_are_compared(client: Client, query: str) -> None:
    page = client.get(f"/library/blueprints/{make_blueprint().pk}/diff?{query}").content.decode()

    assert "from v1 to v2" in page


def test_a_blueprint_that_does_not_exist_is_not_found(client: Client) -> None:
    nothing = "01a20a70-2988-776d-9050-9998b8fb74a9"

    assert client.get(f"/library/blueprints/{nothing}").status_code == 404
    assert client.get(f"/library/blueprints/{nothing}/diff").status_code == 404


def test_the_fleet_tells_which_part_is_silent_and_who_trains_what(client: Client) -> None:
    make_run(name="in-training", state=RunState.RUNNING, done=2)

    page = client.get("/fleet").content.decode()

    assert "no worker serves" in page
    assert "train@worker-1" in page
    assert page.count("no worker</span>") == 3


def test_the_audit_trail_reads_as_sentences(client: Client, ada: User) -> None:
    actor = Actor(kind=ActorKind.USER, id=ada.pk, name="ada")
    run = services.create_run(settings={"task": "digits"}, name="my-run", actor=actor)
    services.stop_run(run=run, actor=actor, reason="changed my mind")

    page = client.get(f"/audit?subject_id={run.pk}&family=run").content.decode()

    assert f'<strong>ada</strong> created the run <a href="/runs/{run.pk}">my-run</a>' in page
    assert "to CANCELLED: changed my mind" in page


def test_the_audit_trail_is_paged_and_bounded(client: Client) -> None:
    load_starter_library(actor=SYSTEM)
    for _ in range(52):
        make_run(state=RunState.QUEUED)
    actor = Actor(kind=ActorKind.SYSTEM, name="system")
    for number in range(14):
        services.create_external_run(task="t", host="h", epochs=1, name=f"run-{number}", actor=actor)

    with CaptureQueriesContext(connection) as captured:
        page = client.get("/audit").content.decode()

    assert len(captured) <= 22  # one a month of the store, the state line's, the names', and none a row
    assert page.count("<li>") >= 14


@pytest.mark.parametrize(
    "query", ["family=nonsense", "after=x", "subject_id=x", "family=run&after=%00", "subject_id=%00"]
)
def test_a_silly_audit_query_is_no_error(client: Client, query: str) -> None:
    assert client.get(f"/audit?{query}").status_code == 200


def test_the_search_finds_runs_kernels_and_blueprints_by_name(client: Client) -> None:
    make_run(name="needle-run", state=RunState.QUEUED)
    make_kernel(name="needle-kernel")

    create_blueprint(name="needle-blueprint", actor=SYSTEM)

    page = client.get("/search?q=needle").content.decode()

    assert "needle-run" in page
    assert "needle-kernel" in page
    assert "needle-blueprint" in page


def test_the_search_finds_checkpoints_alerts_and_rules(client: Client) -> None:
    checkpoint = CheckpointFactory()
    AlertFactory(rule_name="a needle of an alert")
    AlertRuleFactory(name="a needle of a rule")

    assert checkpoint.name in client.get(f"/search?q={checkpoint.name[-12:]}").content.decode()
    page = client.get("/search?q=needle").content.decode()
    assert "a needle of an alert" in page
    assert "a needle of a rule" in page


def test_a_search_for_a_run_is_not_lost_among_its_checkpoints(client: Client) -> None:
    run = make_run(epochs=3, done=3, stories=())

    assert client.get(f"/search?q={run.pk}")["Location"] == f"/runs/{run.pk}"


def test_a_whole_id_leads_straight_to_its_page(client: Client) -> None:
    run, kernel = make_run(state=RunState.QUEUED), make_kernel()
    checkpoint, alert, rule = CheckpointFactory(run_id=run.pk), AlertFactory(), AlertRuleFactory()
    assert client.get(f"/search?q={checkpoint.pk}")["Location"] == f"/checkpoints/{checkpoint.pk}"
    assert client.get(f"/search?q={alert.pk}")["Location"] == f"/alerts/{alert.pk}"
    assert client.get(f"/search?q={rule.pk}")["Location"] == f"/alerts/rules#r-{rule.pk}"
    blueprint = kernel.blueprint_version.blueprint

    assert client.get(f"/search?q={run.pk}")["Location"] == f"/runs/{run.pk}"
    assert client.get(f"/search?q={kernel.pk}")["Location"] == f"/library/kernels/{kernel.pk}"
    assert client.get(f"/search?q={blueprint.pk}")["Location"] == f"/library/blueprints/{blueprint.pk}"


@pytest.mark.parametrize("text", ["", "%00", "%25", "_", "x" * 3000, "'%20OR%201=1"])
def test_a_search_for_nothing_finds_nothing_and_is_no_error(client: Client, text: str) -> None:
    response = client.get(f"/search?q={text}")

    assert response.status_code == 200
