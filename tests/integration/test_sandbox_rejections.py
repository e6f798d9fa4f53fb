"""Every way in which a kernel is bad ends as REJECTED with the reason, and the worker does the next job.

First by a real worker, then byte by byte of an artefact in this process's sandbox.
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from apps.blueprints.spec import MAX_PARAMETERS, bind
from apps.core.actors import SYSTEM
from apps.kernels import compiler, sandbox_worker, services, validator
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.selectors import PENDING
from tests.support.factories import BlueprintVersionFactory, residual_spec
from tests.support.waiting import wait_until

Header = dict[str, Any]


@cache
def good(width: int = 8, hidden: int = 16) -> tuple[dict[str, Any], bytes]:
    """(compile report, artefact) of a residual MLP."""
    job = {"spec": bind(residual_spec(width, hidden)), "seed": 0, "pipeline": "warm_up"}
    return sandbox_worker.compile_job(job, b"", lambda stage: None)


def split(data: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(edit: Callable[[Header], None]) -> bytes:
    header, body = split(good()[1])
    edit(header)
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def transposed(header: Header) -> None:
    header["fc1.weight"]["shape"].reverse()


def unknown_operation(header: Header) -> None:
    header["__metadata__"]["esper_spec"] = header["__metadata__"]["esper_spec"].replace('"relu"', '"exec"')


def claiming_more(header: Header) -> None:
    header["fc1.weight"]["data_offsets"][1] += 4


class Payload:
    """What a pickle would run where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle ran",))


BAD_UPLOADS = {
    "a NaN": (good()[1][:-4] + b"\x00\x00\xc0\x7f", "finite", "inf or nan"),
    "a wrong shape": (with_header(transposed), "format", "must be F32 [16, 8]"),
    "an unknown operation": (with_header(unknown_operation), "format", "exec"),
    "a header that lies": (with_header(claiming_more), "format", "do not fit its shape"),
    "a header bomb": ((2**62).to_bytes(8, "little") + b"{}", "format", "over the limit"),
    "a pickle": (pickle.dumps(Payload()), "format", "header"),
    "no identity": (good()[1][:-4] + b"\x00\x00\x80\x3f", "identity", "not zero at birth"),
    "another kernel": (good(6, 16)[1], "contract", "the artefact's spec is not that of"),
}


def memory_bomb() -> dict[str, Any]:
    """Few parameters, and 128 MiB at each of 16 steps for the smallest input."""
    chain: list[dict[str, Any]] = [
        {"id": "wide", "op": "conv2d", "inputs": ["input"], "params": {"out_channels": 65_536, "kernel_size": 1}}
    ]
    for number in range(16):
        chain.append({"id": f"step{number}", "op": "relu", "inputs": [chain[-1]["id"]]})
    last = {"out_channels": 2, "kernel_size": 1, "init": "zeros"}
    chain.append({"id": "last", "op": "conv2d", "inputs": [chain[-1]["id"]], "params": last})
    shape = ["N", 2, "H", "W"]
    return {"version": 1, "operator": "residual", "symbols": {}, "input": shape, "nodes": chain, "output": "last"}


BY_A_WORKER = ("a NaN", "a pickle")


def test_a_real_worker_rejects_each_with_its_reason_and_does_the_next_job(
    committed_db: str, worker: Callable[..., Any]
) -> None:
    program = worker("compile")
    uploaded = [upload(BAD_UPLOADS[name][0]) for name in BY_A_WORKER]
    bomb = services.register_kernel(version=BlueprintVersionFactory(spec=memory_bomb()), actor=SYSTEM)
    decided = Kernel.objects.exclude(state__in=PENDING)
    wait_until(lambda: decided.count() == len(BY_A_WORKER) + 1, seconds=120)

    last = services.register_kernel(version=BlueprintVersionFactory(), actor=SYSTEM)
    wait_until(lambda: decided.filter(pk=last.pk).exists(), seconds=60)

    last.refresh_from_db()
    assert last.state == KernelState.VALIDATED
    assert program.process.poll() is None
    for name, kernel in zip(BY_A_WORKER, uploaded, strict=True):
        kernel.refresh_from_db()
        assert_rejected(kernel, name)
    bomb.refresh_from_db()
    assert (bomb.state, bomb.rejection) == (KernelState.REJECTED, "needs more memory than the sandbox allows")


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(BAD_UPLOADS.keys() - set(BY_A_WORKER)))
def test_an_upload_that_is_no_good_kernel_is_rejected_with_the_reason(name: str) -> None:
    assert_rejected(services.process_kernel(kernel=upload(BAD_UPLOADS[name][0])), name)


def assert_rejected(kernel: Kernel, name: str) -> None:
    _, stage, reason = BAD_UPLOADS[name]
    assert (kernel.state, kernel.report["rejected_at"]) == (KernelState.REJECTED, stage)
    assert reason in kernel.rejection


def upload(data: bytes) -> Kernel:
    kernel = services.register_kernel(
        version=BlueprintVersionFactory(spec=residual_spec(8, 16)), actor=SYSTEM, awaits_upload=True
    )
    return services.upload_binary(kernel=kernel, data=data, actor=SYSTEM)


def test_more_parameters_than_allowed_are_refused_with_the_limit() -> None:
    outcome = compiler.compile(residual_spec(width=4_096, hidden=4_096))

    assert (outcome.artefact, outcome.stage) == (None, "parse")
    assert f"over the limit of {MAX_PARAMETERS:,}" in outcome.reason


def regions() -> dict[str, int]:
    """Name -> offset of one byte in each part of the artefact."""
    header, _ = split(good()[1])
    start = 8 + int.from_bytes(good()[1][:8], "little")
    tensors = {name: start + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
    ends = {f"end of {name}": start + header[name]["data_offsets"][1] - 1 for name in tensors}
    spec = good()[1].index(b"esper_spec") + len(b'esper_spec":"') + 5
    return {"length": 0, "header": 9, "spec": spec, **tensors, **ends}


def flipped(offset: int, mask: int) -> bytes:
    data = bytearray(good()[1])
    data[offset] ^= mask
    return bytes(data)


@pytest.mark.parametrize("region", regions())
def test_one_flipped_bit_anywhere_is_refused_by_the_digest(region: str) -> None:
    report, artefact = good()
    mutated = flipped(regions()[region], 1)

    verdict = validator.validate(
        mutated, expected_digest=hashlib.sha256(artefact).hexdigest(), reference=report["reference"]
    )

    assert (verdict.valid, verdict.stage) == (False, "digest")


@pytest.mark.parametrize("region", regions())
def test_a_mutation_that_brings_its_own_digest_is_refused_by_what_it_does(region: str) -> None:
    """In a weight the bit is the highest of the exponent: smaller changes are the digest's to find."""
    offset = regions()[region]
    if region in {"length", "header", "spec"}:
        mutated = flipped(offset, 0x40)
    else:
        mutated = flipped(offset if region.startswith("end") else offset + 3, 0x40)

    verdict = validator.validate(
        mutated, expected_digest=hashlib.sha256(mutated).hexdigest(), reference=good()[0]["reference"]
    )

    assert not verdict.valid
    assert verdict.stage in {"format", "finite", "identity", "gradients", "equivalence"}
    assert verdict.reason
