"""The rules that come with the platform name what there is: metrics, labels, other rules."""

import re

import pytest

from apps.observability import matchers as matching
from apps.observability.catalogue import SUMMARY, spec_of, stored_names
from apps.observability.rules import wording
from apps.observability.rules.kinds import KINDS
from apps.observability.rules.shipped import ANY_METRIC, SHIPPED, Shipped

SAID = frozenset({"metric", "value", "threshold", "percent", "reaches_in_hours"})
"""Placeholders that are filled by what was seen."""
RULES = pytest.mark.parametrize("rule", SHIPPED.values(), ids=list(SHIPPED))
OF_A_METRIC = pytest.mark.parametrize(
    "rule", [rule for rule in SHIPPED.values() if rule.metric != ANY_METRIC], ids=lambda rule: rule.key
)


def labels_of(rule: Shipped) -> set[str]:
    spec = spec_of(rule.metric)
    return {*spec.labels, *(["quantile"] if spec.kind == SUMMARY else [])}


@OF_A_METRIC
def test_its_metric_is_stored(rule: Shipped) -> None:
    assert rule.metric in set(stored_names())


@OF_A_METRIC
def test_its_matchers_name_labels_of_the_metric(rule: Shipped) -> None:
    assert {matcher.label for matcher in matching.parse(list(rule.matchers))} <= labels_of(rule)


@OF_A_METRIC
def test_its_summary_fills_in_what_there_is(rule: Shipped) -> None:
    assert wording.fault_of(rule.summary) == ""
    assert set(wording.PLACEHOLDER.findall(rule.summary)) <= labels_of(rule) | SAID


@RULES
def test_its_parameters_are_those_of_its_kind(rule: Shipped) -> None:
    assert KINDS[rule.kind].checked(dict(rule.parameters)).keys() >= rule.parameters.keys()


@RULES
def test_what_inhibits_it_is_shipped_and_has_the_labels(rule: Shipped) -> None:
    by_name = {each.name: each for each in SHIPPED.values()}
    for inhibitor in rule.inhibited_by:
        assert set(inhibitor["equal"]) <= labels_of(rule) & labels_of(by_name[inhibitor["rule"]])


@RULES
def test_it_says_what_to_do(rule: Shipped) -> None:
    assert re.match(r"[A-Z].*\.$", rule.remedy, re.DOTALL)
    assert rule.description.endswith(".")


def test_names_are_given_once() -> None:
    assert len({rule.name for rule in SHIPPED.values()}) == len(SHIPPED)
