"""What the driver's tool says of GPUs, also where it says little, nothing, or hangs."""

import subprocess
from typing import NoReturn

import pytest

from apps.observability.collectors import gpu

TWO = "0, 41, 81559, 20480, 55, 210.5\n1, [N/A], 81559, 0, [Not Supported], [N/A]\n"
"""As nvidia-smi prints it: per cent, MiB, °C, W."""


@pytest.fixture(autouse=True)
def _has_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_each_gpu_is_read_in_base_units() -> None:
    first, _ = gpu.read(lambda command: TWO)

    assert first == {
        "gpu": "0",
        "busy": pytest.approx(0.41),
        "total": 81559 * 2**20,
        "used": 20480 * 2**20,
        "celsius": 55.0,
        "watts": 210.5,
    }


def test_what_a_gpu_does_not_tell_is_none() -> None:
    _, second = gpu.read(lambda command: TWO)

    assert (second["busy"], second["celsius"], second["watts"], second["used"]) == (None, None, None, 0)


@pytest.mark.parametrize("text", ["", "No devices were found\n", "0, 1\n"])
def test_an_answer_without_gpus_is_no_gpu(text: str) -> None:
    assert gpu.read(lambda command: text) == []


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), subprocess.TimeoutExpired("nvidia-smi", 3), subprocess.CalledProcessError(9, "nvidia-smi")],
)
def test_a_driver_that_fails_or_hangs_is_no_gpu(error: Exception) -> None:
    def ask(command: list[str]) -> NoReturn:
        raise error

    assert gpu.read(ask) == []


def test_without_the_tool_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)

    assert gpu.read(lambda command: TWO) == []
