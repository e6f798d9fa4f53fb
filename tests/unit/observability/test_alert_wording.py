"""What an alert says where its rule has no words of its own."""

import pytest

from apps.observability.rules.observed import Verdict
from apps.observability.rules.wording import summary_of


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict(holds=True, value=0.93, threshold=0.9), "Rule: disk is 0.93"),
        (
            Verdict(holds=True, value=190.0, threshold=60.0, evidence={"newest_at": 5.0}),
            "Rule: no sample of disk for 190 s",
        ),
        (Verdict(holds=True, threshold=60.0, evidence={"samples": 0}), "Rule: there is no disk"),
        (Verdict(holds=True, evidence={"value": "nan"}), "Rule: disk is nan"),
    ],
)
def test_a_rule_without_a_summary_has_one_by_what_it_saw(verdict: Verdict, said: str) -> None:
    assert summary_of("", rule_name="Rule", metric="disk", labels={}, verdict=verdict) == said


def test_a_brace_in_the_name_of_a_rule_is_no_placeholder() -> None:
    verdict = Verdict(holds=True, value=1.0)

    assert (
        summary_of("", rule_name="{host}", metric="disk", labels={"host": "mill"}, verdict=verdict)
        == "(host): disk is 1"
    )
