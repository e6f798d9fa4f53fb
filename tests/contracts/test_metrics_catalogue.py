"""The catalogue of metrics is what `/metrics` tells, and nothing else is named: not in rules, dashboards, pages, docs.

``ESPER_UPDATE_METRICS_TABLE=1 pytest tests/contracts/test_metrics_catalogue.py`` writes the table anew.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric

import apps.observability.run_readings  # noqa: F401 - what workers that train tell besides
from apps.audit.services import verify_trail
from apps.core.actors import SYSTEM
from apps.core.health import EveryCollector
from apps.core.registry import registry
from apps.observability.catalogue import COUNTER, METRICS, RECORDED, MetricSpec, known, stored_names
from apps.observability.rules.shipped import ANY_METRIC, SHIPPED
from apps.observability.services.evaluating import evaluate
from esper_site.embedded.home import REPOSITORY
from tests.support.audit import own_home, sealed

__all__ = ["own_home"]

DOCUMENT = REPOSITORY / "docs" / "metrics-list.md"
UPDATE = "ESPER_UPDATE_METRICS_TABLE"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
NAME = re.compile(r"\besper_[a-z0-9_]+\b(?!\()")
NO_METRICS = frozenset({"esper_app", "esper_owner", "esper_site", "esper_spec", "esper_variant", "esper_token"})
"""Roles of the database, the site's module, keys in files, a prefix of tokens."""
PLACES = (
    "deploy/prometheus/*.yml",
    "deploy/grafana/*.json",
    "docs/*.md",
    "README.md",
    "apps/observability/rules/*.py",
    "apps/observability/recommendations/*.py",
    "apps/dashboards/**/*.py",
    "templates/**/*.html",
    "static/js/**/*.js",
)


def labels_of(family: Metric) -> set[str]:
    """Those that the family declares; of one of a process, those of what made it."""
    if hasattr(family, "_labelnames"):
        return set(family._labelnames)
    maker = REGISTRY._names_to_collectors.get(family.name)
    return set(getattr(maker, "_labelnames", ()))


def differences(families: list[Metric]) -> Iterator[str]:
    """What is told and not in the catalogue as it is told, and what is in the catalogue and not told."""
    specs = {spec.family: spec for spec in METRICS.values() if spec.scraped}
    told = {family.name: family for family in families if family.name.startswith("esper_")}
    yield from (f"{name} is not in apps/observability/catalogue.py" for name in told.keys() - specs.keys())
    yield from (f"{name} is in the catalogue, and nobody tells it" for name in specs.keys() - told.keys())
    for name in told.keys() & specs.keys():
        family, spec = told[name], specs[name]
        found = (family.type, labels_of(family), family.documentation)
        if found != (spec.kind, set(spec.labels), spec.help):
            yield f"{name} is told as {found}, and in the catalogue as {(spec.kind, set(spec.labels), spec.help)}"


@pytest.fixture
def lived_in(db: None, home: Path) -> None:
    """A platform that has sealed, verified and evaluated once: what that came to is told from then on."""
    sealed(1)
    verify_trail(actor=SYSTEM)
    evaluate()


def test_what_is_told_is_what_the_catalogue_says(lived_in: None) -> None:
    assert list(differences(list(EveryCollector().collect()))) == []


def test_an_unknown_family_and_a_wrong_label_are_found(lived_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted() -> Iterator[Metric]:
        yield GaugeMetricFamily("esper_planted", "Planted.")
        yield GaugeMetricFamily("esper_runs", "Training runs by state.", labels=["status"])

    monkeypatch.setitem(registry.collectors, "runs", planted)

    found = list(differences(list(EveryCollector().collect())))

    assert [line.split()[0] for line in found] == ["esper_planted", "esper_runs"]


def test_names_and_kinds_agree() -> None:
    assert [spec.name for spec in METRICS.values() if (spec.kind == COUNTER) != spec.name.endswith("_total")] == []


def test_labels_that_are_of_summaries_and_histograms_are_of_no_other() -> None:
    reserved = {"quantile", "le"}

    assert [spec.name for spec in METRICS.values() if reserved & set(spec.labels)] == [], "promtool refuses them"


def test_what_a_run_records_has_its_run_for_a_label() -> None:
    assert {METRICS[name].labels for name in RECORDED} == {("run",)}


def unknown(text: str) -> set[str]:
    """Names in the text that look like a metric's and are none."""
    return {name for name in NAME.findall(text) if not (known(name) or name in METRICS or name in NO_METRICS)} - {
        name for name in NAME.findall(text) if name.endswith("_")
    }


@pytest.mark.parametrize("place", PLACES)
def test_every_metric_that_is_named_exists(place: str) -> None:
    files = sorted(REPOSITORY.glob(place))
    wrong = {str(path.relative_to(REPOSITORY)): unknown(path.read_text()) for path in files}

    assert files
    assert {path: names for path, names in wrong.items() if names} == {}


def test_what_reads_the_store_reads_what_is_stored() -> None:
    asked = {rule.metric for rule in SHIPPED.values()} - {ANY_METRIC}
    for place in (
        "apps/dashboards/**/*.py",
        "apps/observability/recommendations/*.py",
        "apps/observability/selectors/*.py",
    ):
        for path in REPOSITORY.glob(place):
            asked |= set(re.findall(r"\"(esper_[a-z0-9_]+)\"", path.read_text()))

    assert asked - set(stored_names()) == set()


def test_shipped_rules_match_labels_that_there_are() -> None:
    wrong = {
        key: matcher["label"]
        for key, rule in SHIPPED.items()
        for matcher in rule.matchers
        if matcher["label"] not in METRICS[rule.metric].labels
    }

    assert wrong == {}


def test_a_metric_that_does_not_exist_is_found() -> None:
    assert unknown("rate(esper_runs_total[5m]) + esper_runs + esper_cache_latency_seconds_bucket") == {
        "esper_runs_total"
    }


def test_metrics_of_others_that_the_rules_name_exist(db: None, client: Client) -> None:
    files = [REPOSITORY / "deploy/prometheus/rules.yml", *REPOSITORY.glob("deploy/grafana/*.json")]
    named = {name for path in files for name in re.findall(r"\bdjango_[a-z_]+", path.read_text())}
    client.get("/healthz")

    body = client.get("/metrics").content.decode()

    assert named
    assert {name for name in named if f"\n{name}{{" not in body and f"\n{name} " not in body} == set()


def test_recorded_names_that_the_dashboards_use_are_recorded() -> None:
    recorded = set(re.findall(r"record: (esper:\S+)", (REPOSITORY / "deploy/prometheus/rules.yml").read_text()))
    used = {
        name
        for path in [REPOSITORY / "deploy/prometheus/rules.yml", *REPOSITORY.glob("deploy/grafana/*.json")]
        for name in re.findall(r"\besper:[a-z0-9_:]+", path.read_text())
    }

    assert used == recorded


def row(spec: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    return f"| `{spec.name}` | {spec.kind} | {labels} | {'yes' if spec.stored else ''} | {spec.help} |\n"


def table() -> str:
    head = "| metric | kind | labels | stored | what |\n|---|---|---|---|---|\n"
    return head + "".join(row(spec) for spec in METRICS.values())


def test_the_document_lists_every_metric() -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}{table()}{END}{after}"
    if os.environ.get(UPDATE):
        DOCUMENT.write_text(wanted)
        return

    assert text == wanted, f"{UPDATE}=1 pytest {Path(__file__).name} writes the table anew"
