"""What a host's NVIDIA GPUs tell, by the driver's own tool: no library that loads CUDA into a process of ours."""

import csv
import math
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

TOOL = "nvidia-smi"
SECONDS = 3.0
MIB = 1 << 20
COLUMNS = ("index", "utilization.gpu", "memory.total", "memory.used", "temperature.gpu", "power.draw")

Ask = Callable[[list[str]], str]


def ask_driver(command: list[str]) -> str:
    """Standard output of the tool. Raises OSError, or subprocess.SubprocessError."""
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def read(ask: Ask = ask_driver) -> list[dict[str, Any]]:
    """One entry a GPU: {"gpu", "busy", "total", "used", "celsius", "watts"}; memory in bytes; None: not told.

    Empty where there is no driver, or where it does not answer in time.
    """
    if shutil.which(TOOL) is None:
        return []
    try:
        text = ask([TOOL, f"--query-gpu={','.join(COLUMNS)}", "--format=csv,noheader,nounits"])
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("gpu_not_read", error=str(error))
        return []
    return [_parsed(row) for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == len(COLUMNS)]


def _parsed(row: list[str]) -> dict[str, Any]:
    index, busy, total, used, celsius, watts = row
    return {
        "gpu": index.strip(),
        "busy": _number(busy, 0.01),
        "total": _number(total, MIB),
        "used": _number(used, MIB),
        "celsius": _number(celsius),
        "watts": _number(watts),
    }


def _number(text: str, unit: float = 1.0) -> float | None:
    """None for "[N/A]", "[Not Supported]" and the like."""
    try:
        value = float(text) * unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None
