"""The bytes of a kernel over HTTP: whole, in ranges, not again, and checked on the way in."""

import hashlib
import io
import random
from base64 import b64encode
from typing import Any

import pytest

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, Kernel, KernelBlob, KernelChunk
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
    assert response["Server-Timing"].startswith("store;dur=")


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


def test_a_kernel_without_bytes_is_404(admin: Caller) -> None:
    assert_problem(admin.get(path_of(KernelFactory())), 404, "no_binary")


@pytest.mark.parametrize("state", [KernelState.QUARANTINED, KernelState.RETIRED])
def test_bytes_that_must_not_be_used_are_not_given_out(admin: Caller, state: str) -> None:
    assert_problem(admin.get(path_of(KernelFactory(state=state))), 409, "not_downloadable")


def test_a_corrupt_kernel_is_quarantined_instead_of_sent(admin: Caller, kernel: Kernel) -> None:
    KernelChunk.objects.filter(blob_id=kernel.digest, index=0).update(data=b"\0" * CHUNK_BYTES)

    assert_problem(admin.get(path_of(kernel)), 503, "corrupt_kernel")
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.QUARANTINED


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
