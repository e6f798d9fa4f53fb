"""The settings of the kernel cache: each wrong value is an error that names its environment variable."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as current
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from apps.kernels.cache.config import CacheConfig, config, problems, variable

REPOSITORY = Path(__file__).parents[4]
DEFAULTS = current.KERNEL_CACHE


def wrong(**values: Any) -> list[str]:
    return problems(CacheConfig(**{**DEFAULTS, **values}))


def test_the_defaults_are_right() -> None:
    assert wrong() == []


@pytest.mark.parametrize(
    ("name", "value", "variable"),
    [
        ("l1_bytes", 0, "ESPER_CACHE_L1_BYTES"),
        ("policy", "foo", "ESPER_CACHE_POLICY"),
        ("write", "around", "ESPER_CACHE_WRITE"),
        ("l2_url", "http://cache:6379", "ESPER_CACHE_L2_URL"),
        ("l2_ttl", -1.0, "ESPER_CACHE_L2_TTL"),
        ("l2_timeout_ms", 0.0, "ESPER_CACHE_L2_TIMEOUT_MS"),
        ("l2_ms_per_mib", -0.1, "ESPER_CACHE_L2_MS_PER_MIB"),
        ("l2_largest", 0, "ESPER_CACHE_L2_LARGEST"),
        ("half_life", 0.0, "ESPER_CACHE_HALF_LIFE"),
        ("hot_reads", 0.0, "ESPER_CACHE_HOT_READS"),
        ("cold_after_days", -1.0, "ESPER_CACHE_COLD_AFTER_DAYS"),
        ("warm_share", 0.0, "ESPER_CACHE_WARM_SHARE"),
        ("warm_share", 1.01, "ESPER_CACHE_WARM_SHARE"),
        ("warm_bytes_per_second", 0, "ESPER_CACHE_WARM_BYTES_PER_SECOND"),
        ("absent_ttl", 0.0, "ESPER_CACHE_ABSENT_TTL"),
        ("lease", -5.0, "ESPER_CACHE_LEASE"),
        ("binding_ttl", 0.0, "ESPER_CACHE_BINDING_TTL"),
        ("lease", float("nan"), "ESPER_CACHE_LEASE"),
        ("l2_timeout_ms", float("inf"), "ESPER_CACHE_L2_TIMEOUT_MS"),
        ("cold_after_days", float("nan"), "ESPER_CACHE_COLD_AFTER_DAYS"),
    ],
)
def test_a_wrong_value_is_one_error_that_names_its_variable(name: str, value: Any, variable: str) -> None:
    (problem,) = wrong(**{name: value})

    assert problem.startswith(f"{variable} must ")


@pytest.mark.parametrize("url", ["redis://:hidden@[cache", "redis://:hidden@cach\u2100:6379"])
def test_what_is_no_url_is_said_without_the_password_in_it(url: str) -> None:
    assert wrong(l2_url=url) == ["ESPER_CACHE_L2_URL is no URL"]


@pytest.mark.parametrize(
    ("name", "value"), [("cold_after_days", 0.0), ("l2_ms_per_mib", 0.0), ("warm_share", 1.0), ("l2_url", "")]
)
def test_values_at_the_edge_are_right(name: str, value: Any) -> None:
    assert wrong(**{name: value}) == []


def test_every_setting_stands_in_the_documentation() -> None:
    documented = set(re.findall(r"`(ESPER_CACHE_\w+)`", (REPOSITORY / "docs" / "configuration.md").read_text()))

    assert documented == {variable(name) for name in DEFAULTS}


def test_several_are_told_at_once_by_the_system_check(settings: Any) -> None:
    settings.KERNEL_CACHE = {**DEFAULTS, "policy": "foo", "lease": 0.0}

    found = [str(message.msg).split()[0] for message in run_checks() if str(message.id).startswith("kernels.")]

    assert found == ["ESPER_CACHE_LEASE", "ESPER_CACHE_POLICY"]


def test_the_cache_does_not_begin_with_a_wrong_one(settings: Any) -> None:
    settings.KERNEL_CACHE = {**DEFAULTS, "policy": "foo"}

    with pytest.raises(ImproperlyConfigured, match="ESPER_CACHE_POLICY must be one of cost-aware, s3-fifo, lru"):
        config()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ESPER_CACHE_POLICY", "foo", "ESPER_CACHE_POLICY must be one of"),
        ("ESPER_CACHE_L1_BYTES", "many", '"ESPER_CACHE_L1_BYTES" invalid: Not a valid integer'),
        ("ESPER_CACHE_L2_CLUSTER", "perhaps", '"ESPER_CACHE_L2_CLUSTER" invalid: Not a valid boolean'),
    ],
)
def test_a_wrong_value_in_the_environment_is_told_without_a_traceback(variable: str, value: str, said: str) -> None:
    command = [sys.executable, "manage.py", "check"]
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {variable: value}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
