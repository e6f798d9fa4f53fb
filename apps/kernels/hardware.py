"""Where and by what a kernel was measured: the hardware profile, the toolchain's digest, the signature of both.

Timings compare within one profile only. The processor's name is read here, in the parent: the sandbox opens no files.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

_DIGITS = 12


def profile(toolchain: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of this machine under ``toolchain`` (of a report): what moves timings, and an id of just that.

    Equal machines with equal torch builds and threads have equal ids: {"profile", "cpu", "cores", "device", "machine",
    "cpu_capability", "threads", "torch"}.
    """
    facts = {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "device": "cpu",
        **{name: toolchain.get(name) for name in ("machine", "cpu_capability", "threads", "torch")},
    }
    return {"profile": short_digest(facts), **facts}


@cache
def cpu_model() -> str:
    """The processor as it names itself; where nothing tells, its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        names = {}
    named = {key.strip(): value.strip() for key, value in names.items()}
    return named.get("model name") or platform.processor() or platform.machine()


def short_digest(facts: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of the facts as sorted JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def signature(
    *, report: Mapping[str, Any], hardware: Mapping[str, Any], pipeline: str, toolchain: Mapping[str, Any]
) -> str:
    """``<spec digest>-<hardware profile>-<pipeline>-<toolchain digest>``, 12 digits each; empty before the kernel was
    measured.

    Two kernels of one signature were made from one bound spec, on equal machines, by equal programs, as thoroughly.
    """
    spec_digest: str = report.get("validation", {}).get("spec_digest", "")
    if not (spec_digest and hardware.get("profile")):
        return ""
    return f"{spec_digest[:_DIGITS]}-{hardware['profile']}-{pipeline}-{short_digest(toolchain)}"
