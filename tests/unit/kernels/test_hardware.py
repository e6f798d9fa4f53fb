"""The hardware profile and the signature name what a measurement depends on, and nothing else."""

import pytest

from apps.kernels import hardware
from apps.kernels.effort import EFFORTS
from apps.kernels.models import Pipeline

TOOLCHAIN = {"torch": "2.9.0", "threads": 1, "machine": "x86_64", "cpu_capability": "AVX2", "python": "3.11.9"}


def test_the_profile_is_the_same_every_time() -> None:
    assert hardware.profile(TOOLCHAIN) == hardware.profile(dict(reversed(TOOLCHAIN.items())))


@pytest.mark.parametrize("change", [{"torch": "2.10.0"}, {"threads": 2}, {"cpu_capability": "AVX512"}])
def test_what_moves_timings_makes_another_profile(change: dict[str, object]) -> None:
    assert hardware.profile({**TOOLCHAIN, **change})["profile"] != hardware.profile(TOOLCHAIN)["profile"]


def test_what_moves_no_timing_does_not() -> None:
    assert hardware.profile({**TOOLCHAIN, "python": "3.11.10"}) == hardware.profile(TOOLCHAIN)


def test_another_processor_is_another_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    here = hardware.profile(TOOLCHAIN)
    monkeypatch.setattr(hardware, "cpu_model", lambda: "another one")

    assert hardware.profile(TOOLCHAIN)["profile"] != here["profile"]


def test_the_signature_joins_spec_hardware_pipeline_and_toolchain() -> None:
    parts = {"report": {"validation": {"spec_digest": "ab" * 32}}, "hardware": {"profile": "0123456789ab"}}

    signature = hardware.signature(**parts, pipeline="fast", toolchain=TOOLCHAIN)

    assert signature == f"abababababab-0123456789ab-fast-{hardware.short_digest(TOOLCHAIN)}"


def test_what_was_not_measured_has_no_signature() -> None:
    assert hardware.signature(report={}, hardware={}, pipeline="fast", toolchain={}) == ""


def test_every_pipeline_has_its_effort() -> None:
    assert set(Pipeline.values) <= EFFORTS.keys()


def test_no_probe_is_larger_than_that_of_the_fast_pipeline() -> None:
    """Else a kernel that fits the sandbox in one pipeline would be rejected by another."""
    (samples, side), *_ = EFFORTS["fast"].probes
    largest = samples * side**2

    assert all(n * side**2 <= largest for effort in EFFORTS.values() for n, side in effort.probes)
