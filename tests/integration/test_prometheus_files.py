"""What ships for Prometheus is right by its own tool: syntax, and that the alerts fire when they should."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from esper_site.embedded.home import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "prometheus"
pytestmark = pytest.mark.promtool

STEP = "15s"
FIRING = {
    "EsperQueueNotServed": (
        [{"series": 'esper_queue_served{queue="train"}', "values": "0x10"}],
        "2m",
        {"queue": "train", "severity": "critical"},
    ),
    "EsperLossNotFinite": (
        [
            {"series": 'esper_run_train_loss{run="a"}', "values": "0.5 NaN"},
            {"series": 'esper_run_train_loss{run="b"}', "values": "0.5 0.4"},
        ],
        "15s",
        {"run": "a", "severity": "critical"},
    ),
    "EsperRecoveryFailed": (
        [{"series": 'esper_recoveries{state="FAILED",cause="lease"}', "values": "0x20 1x20"}],
        "7m",
        {"state": "FAILED", "cause": "lease", "severity": "critical"},
    ),
    "EsperTasksFail": (
        [
            {"series": 'esper_tasks_total{task="t",outcome="failure"}', "values": "0+1x200"},
            {"series": 'esper_tasks_total{task="t",outcome="success"}', "values": "0+4x200"},
        ],
        "45m",
        {"task": "t", "severity": "warning"},
    ),
}


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(FOLDER / "rules.yml"))


def test_the_scrape_configuration_is_one() -> None:
    promtool("check", "config", "--syntax-only", str(FOLDER / "prometheus.yml"))


def test_what_the_dashboards_ask_for_can_be_asked(tmp_path: Path) -> None:
    asked = [
        target["expr"]
        for path in sorted(REPOSITORY.glob("deploy/grafana/*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "asked.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))

    assert f"SUCCESS: {len(asked)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.parametrize("alert", FIRING)
def test_an_alert_fires_for_the_series_that_it_is_about(alert: str, tmp_path: Path) -> None:
    series, at, labels = FIRING[alert]
    case = {
        "rule_files": [str(FOLDER / "rules.yml")],
        "evaluation_interval": STEP,
        "tests": [
            {
                "interval": STEP,
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{alert}",alertstate="firing"}}',
                        "eval_time": at,
                        "exp_samples": [
                            {
                                "labels": "ALERTS{"
                                + ",".join(
                                    f'{name}="{value}"'
                                    for name, value in {**labels, "alertname": alert, "alertstate": "firing"}.items()
                                )
                                + "}",
                                "value": 1,
                            }
                        ],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump(case))

    promtool("test", "rules", str(file))
