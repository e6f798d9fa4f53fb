"""The bytes of a kernel over HTTP: whole, in ranges, not again, and checked on the way in."""

import hashlib
import io
import random
import re
import tracemalloc
from base64 import b64encode
from typing import Any

import pytest
from django.test import TestCase
from django.utils import timezone

from apps.accounts.models import Workspace
from apps.core.actors import SYSTEM
from apps.core.errors import NotFound, Unavailable
from apps.kernels import selectors, services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, Kernel, KernelBlob, KernelChunk, StorageTier
from tests.api.conftest import Caller
from tests.support.factories import KernelFactory
from tests.support.problems import assert_problem

DATA = random.Random(11).randbytes(CHUNK_BYTES * 2 + 1000)


def body_of(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


@pytest.fixture
def kernel(db: None) -> Kernel:
    kernel: Kernel = KernelFactory(state=KernelState.VALIDATED, data=DATA)
    return kernel


def path_of(kernel: Kernel) -> str:
    return f"/api/v1/kernels/{kernel.pk}/binary"


def test_the_whole_kernel_comes_with_its_digest(admin: Caller, kernel: Kernel) -> None:
    response = admin.get(path_of(kernel))

    assert response.status_code == 200
    assert body_of(response) == DATA
    assert response["ETag"] == f'"sha256:{hashlib.sha256(DATA).hexdigest()}"'
    assert response["Repr-Digest"] == f"sha-256=:{b64encode(hashlib.sha256(DATA).digest()).decode()}:"
    assert response["Content-Length"] == str(len(DATA))
    assert response["Cache-Control"] == "private, max-age=31536000, immutable"
    assert response["X-Esper-Cache-Tier"] == "l3"
    assert re.search(r"l3;dur=\d+\.\d+", response["Server-Timing"])


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        (f"bytes={CHUNK_BYTES - 3}-{CHUNK_BYTES + 2}", CHUNK_BYTES - 3, CHUNK_BYTES + 3),
        (f"bytes={CHUNK_BYTES * 2}-", CHUNK_BYTES * 2, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
    ],
)
def test_a_range_is_exactly_those_bytes(admin: Caller, kernel: Kernel, header: str, start: int, stop: int) -> None:
    response = admin.get(path_of(kernel), headers={"Range": header})

    assert response.status_code == 206
    assert body_of(response) == DATA[start:stop]
    assert response["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert response["Content-Length"] == str(stop - start)


def test_a_range_reads_only_its_own_chunks(admin: Caller, kernel: Kernel, django_assert_max_num_queries: Any) -> None:
    KernelChunk.objects.filter(blob_id=kernel.digest).exclude(index=1).delete()

    response = admin.get(path_of(kernel), headers={"Range": f"bytes={CHUNK_BYTES}-{CHUNK_BYTES + 9}"})

    assert body_of(response) == DATA[CHUNK_BYTES : CHUNK_BYTES + 10]


def test_a_client_that_has_it_gets_304(admin: Caller, kernel: Kernel) -> None:
    etag = admin.get(path_of(kernel))["ETag"]

    response = admin.get(path_of(kernel), headers={"If-None-Match": etag})

    assert (response.status_code, body_of(response)) == (304, b"")
    assert response["ETag"] == etag


def test_head_says_everything_and_sends_nothing(admin: Caller, kernel: Kernel) -> None:
    response = admin.head(path_of(kernel))

    assert (response.status_code, response.content) == (200, b"")
    assert response["Content-Length"] == str(len(DATA))
    assert response["Accept-Ranges"] == "bytes"


def test_a_range_of_a_head_is_ignored(admin: Caller, kernel: Kernel) -> None:
    response = admin.head(path_of(kernel), headers={"Range": "bytes=0-1"})

    assert (response.status_code, response["Content-Length"]) == (200, str(len(DATA)))


def test_a_kernel_without_bytes_is_404(admin: Caller) -> None:
    assert_problem(admin.get(path_of(KernelFactory())), 404, "no_binary")


@pytest.mark.parametrize("state", [KernelState.QUARANTINED, KernelState.RETIRED])
def test_bytes_that_must_not_be_used_are_not_given_out(admin: Caller, state: str) -> None:
    assert_problem(admin.get(path_of(KernelFactory(state=state))), 409, "not_downloadable")


def test_a_corrupt_kernel_is_quarantined_instead_of_sent(admin: Caller, kernel: Kernel) -> None:
    KernelChunk.objects.filter(blob_id=kernel.digest, index=0).update(data=b"\0" * CHUNK_BYTES)

    assert_problem(admin.get(path_of(kernel)), 503, "corrupt_kernel")
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.QUARANTINED


@pytest.mark.parametrize("verb", ["get", "head"])
def test_a_kernel_whose_bytes_are_gone_is_quarantined(admin: Caller, kernel: Kernel, verb: str) -> None:
    KernelBlob.objects.filter(pk=kernel.digest).delete()

    assert getattr(admin, verb)(path_of(kernel)).status_code == 503
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.QUARANTINED


@pytest.mark.parametrize("verb", ["get", "head"])
def test_an_archived_kernel_is_refused_to_whoever_asks_for_its_bytes_or_only_for_its_head(
    admin: Caller, kernel: Kernel, verb: str
) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(storage_tier=StorageTier.ARCHIVE)
    KernelBlob.objects.filter(pk=kernel.digest).update(in_database=False, archived_at=timezone.now())

    assert getattr(admin, verb)(path_of(kernel)).status_code == 409


def test_bytes_that_turn_out_corrupt_on_the_way_break_off_and_are_never_sent_wrong(
    admin: Caller, kernel: Kernel
) -> None:
    """The status line is out: all that can be done is to end before the announced length."""
    big = random.Random(12).randbytes(CHUNK_BYTES * 9)
    kernel = KernelFactory(state=KernelState.VALIDATED, data=big)
    KernelChunk.objects.filter(blob_id=kernel.digest, index=8).update(data=b"\0" * CHUNK_BYTES)

    response = admin.get(path_of(kernel))
    sent = []
    with pytest.raises(Unavailable):
        sent.extend(response.streaming_content)

    assert (response.status_code, response["Content-Length"]) == (200, str(len(big)))
    assert b"".join(sent) == big[: CHUNK_BYTES * 8]
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.QUARANTINED


@pytest.mark.parametrize(
    "header",
    [
        "bytes=5-2",
        "bytes=-",
        "bytes=abc-def",
        "bytes=0-1,5-9",
        "items=0-1",
        "bytes=0x10-0x20",
        "bytes=\u0661-\u0662",
        "bytes=" + "9" * 400 + "-",
        "bytes 0-1",
        "",
    ],
)
def test_a_range_that_is_none_means_everything(admin: Caller, kernel: Kernel, header: str) -> None:
    response = admin.get(path_of(kernel), headers={"Range": header})

    assert (response.status_code, body_of(response)) == (200, DATA)


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={10**17}-{10**17 + 1}"])
def test_a_range_outside_says_how_many_bytes_there_are(admin: Caller, kernel: Kernel, header: str) -> None:
    response = admin.get(path_of(kernel), headers={"Range": header})

    assert_problem(response, 416, "range")
    assert response["Content-Range"] == f"bytes */{len(DATA)}"


def test_a_range_of_another_version_is_everything(admin: Caller, kernel: Kernel) -> None:
    etag = admin.get(path_of(kernel))["ETag"]

    def status(if_range: str) -> int:
        headers = {"Range": "bytes=0-1", "If-Range": if_range}
        return int(admin.get(path_of(kernel), headers=headers).status_code)

    assert status(etag) == 206
    assert [status(other) for other in (f"W/{etag}", '"other"', "Wed, 21 Oct 2015 07:28:00 GMT")] == [200] * 3


def test_what_the_client_has_comes_before_the_range_it_asks_for(admin: Caller, kernel: Kernel) -> None:
    etag = admin.get(path_of(kernel))["ETag"]

    for condition in (etag, f"W/{etag}", "*", f'"other", {etag}'):
        headers = {"If-None-Match": condition, "Range": "bytes=0-1"}
        assert admin.get(path_of(kernel), headers=headers).status_code == 304


def test_the_tier_is_the_one_that_the_bytes_come_from(admin: Caller, kernel: Kernel) -> None:
    with TestCase.captureOnCommitCallbacks(execute=True):
        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM, reason="space")

    response = admin.get(path_of(kernel))

    assert (response["X-Esper-Cache-Tier"], body_of(response)) == ("l4", DATA)


# --- Upload


@pytest.fixture
def waiting(db: None) -> Kernel:
    waiting: Kernel = KernelFactory(awaits_upload=True)
    return waiting


def put(client: Caller, kernel: Kernel, data: bytes, **headers: str) -> Any:
    return client.generic("PUT", path_of(kernel), data, content_type="application/octet-stream", headers=headers)


SAFE = (2).to_bytes(8, "little") + b"{}"


def test_uploaded_bytes_are_stored_and_can_be_downloaded(admin: Caller, waiting: Kernel) -> None:
    response = put(admin, waiting, SAFE)

    assert response.status_code == 201
    assert response.json()["state"] == "UPLOADED"
    assert response["ETag"] == f'"sha256:{hashlib.sha256(SAFE).hexdigest()}"'
    assert body_of(admin.get(path_of(waiting))) == SAFE


def test_the_same_bytes_again_change_nothing(admin: Caller, waiting: Kernel) -> None:
    put(admin, waiting, SAFE)

    assert put(admin, waiting, SAFE).status_code == 200


def test_other_bytes_are_refused_once_there_are_some(admin: Caller, waiting: Kernel) -> None:
    put(admin, waiting, SAFE)

    assert_problem(put(admin, waiting, SAFE + b"\0"), 409, "immutable")


def test_a_digest_that_does_not_fit_refuses_the_upload(admin: Caller, waiting: Kernel) -> None:
    wrong = b64encode(b"\1" * 32).decode()

    assert_problem(put(admin, waiting, SAFE, **{"Repr-Digest": f"sha-256=:{wrong}:"}), 400, "digest_mismatch")
    right = b64encode(hashlib.sha256(SAFE).digest()).decode()
    assert put(admin, waiting, SAFE, **{"Repr-Digest": f"sha-256=:{right}:"}).status_code == 201


@pytest.mark.parametrize("header", ["sha-256=nonsense", "md5=:abc:", "sha-256=:YWJj:"])
def test_a_malformed_digest_names_its_header(admin: Caller, waiting: Kernel, header: str) -> None:
    assert_problem(put(admin, waiting, SAFE, **{"Repr-Digest": header}), 400, "digest", "/Repr-Digest")


@pytest.mark.parametrize("data", [b"short", (2**40).to_bytes(8, "little") + b"{}", (100).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_file_is_refused_before_it_is_stored(
    admin: Caller, waiting: Kernel, data: bytes
) -> None:
    assert_problem(put(admin, waiting, data), 400, "not_safetensors")
    assert not KernelBlob.objects.exists()


def test_a_kernel_over_the_limit_is_refused_by_its_announced_length(admin: Caller, waiting: Kernel) -> None:
    response = admin.generic(
        "PUT",
        path_of(waiting),
        SAFE,
        content_type="application/octet-stream",
        CONTENT_LENGTH=str(MAX_KERNEL_BYTES + 1),
    )

    assert_problem(response, 413, "payload_too_large")


def test_a_body_that_breaks_off_is_refused(admin: Caller, waiting: Kernel) -> None:
    response = admin.generic(
        "PUT",
        path_of(waiting),
        content_type="application/octet-stream",
        **{"wsgi.input": io.BytesIO(SAFE), "CONTENT_LENGTH": str(len(SAFE) + 5)},
    )

    assert_problem(response, 400, "truncated")
    assert not KernelBlob.objects.exists()


@pytest.mark.parametrize("announced", ["", "-1"])
def test_an_upload_of_unknown_length_is_refused(admin: Caller, waiting: Kernel, announced: str) -> None:
    response = admin.generic(
        "PUT", path_of(waiting), SAFE, content_type="application/octet-stream", CONTENT_LENGTH=announced
    )

    assert_problem(response, 411, "length_required")


def test_an_upload_is_never_in_memory_as_a_whole(admin: Caller, waiting: Kernel) -> None:
    data = SAFE + random.Random(13).randbytes(16 * 2**20)
    body = {"wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data))}
    tracemalloc.start()
    try:
        response = admin.generic("PUT", path_of(waiting), content_type="application/octet-stream", **body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert response.status_code == 201
    assert peak < 8 * 2**20


# --- By digest, without an upload


def attach(client: Caller, kernel: Kernel, digest: Any) -> Any:
    return client.put(f"/api/v1/kernels/{kernel.pk}/blob", {"digest": digest})


def test_bytes_that_the_workspace_has_need_no_upload(admin: Caller, kernel: Kernel, waiting: Kernel) -> None:
    blob = admin.get(f"/api/v1/blobs/{kernel.digest}")
    head = admin.head(f"/api/v1/blobs/{kernel.digest}")
    first, again = attach(admin, waiting, kernel.digest), attach(admin, waiting, kernel.digest)

    assert (head.status_code, head.content) == (200, b"")
    assert blob.json() == {"digest": kernel.digest, "size": len(DATA)}
    assert (first.status_code, first.json()["state"], again.status_code) == (201, "UPLOADED", 200)
    assert (first.json()["size"], first["ETag"]) == (len(DATA), blob["ETag"])
    assert body_of(admin.get(path_of(waiting))) == DATA


def elsewhere(kernel: Kernel) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(workspace=Workspace.objects.create(name="elsewhere"))


def quarantined(kernel: Kernel) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(state=KernelState.QUARANTINED)


def freed(kernel: Kernel) -> None:
    KernelBlob.objects.filter(pk=kernel.digest).update(freed_at=timezone.now())


@pytest.mark.parametrize("lost", [elsewhere, quarantined, freed])
def test_bytes_that_the_workspace_has_not_are_as_unknown_ones(
    admin: Caller, kernel: Kernel, waiting: Kernel, lost: Any
) -> None:
    lost(kernel)

    known, unknown = (admin.get(f"/api/v1/blobs/{digest}") for digest in (kernel.digest, "0" * 64))

    assert_problem(known, 404, "no_blob")
    assert {**known.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert_problem(attach(admin, waiting, kernel.digest), 404, "no_blob")
    assert Kernel.objects.get(pk=waiting.pk).state == KernelState.REGISTERED


def test_a_kernel_that_has_bytes_takes_no_others(admin: Caller, kernel: Kernel) -> None:
    other = KernelFactory(state=KernelState.VALIDATED)

    assert_problem(attach(admin, kernel, other.digest), 409, "immutable")


@pytest.mark.parametrize("digest", ["x", "0" * 63, "A" * 64, 7, None, ""])
def test_a_digest_that_is_none_is_named(admin: Caller, waiting: Kernel, digest: Any) -> None:
    assert_problem(attach(admin, waiting, digest), 400, "", "/digest")


def test_a_blob_is_freed_or_attached_and_never_both(admin: Caller, kernel: Kernel, waiting: Kernel) -> None:
    """What was looked up a moment ago is looked up again under the lock."""
    assert selectors.blob_for_reuse(kernel.digest or "", kernel.workspace_id) is not None
    freed(kernel)

    with pytest.raises(NotFound):
        services.attach_blob(kernel=waiting, digest=kernel.digest or "", actor=SYSTEM)
