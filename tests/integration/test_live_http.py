"""What only a real server shows: streams, bodies that hide or lie about their length, and workers' signs of life."""

import hashlib
import http.client
import json
import random
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction

from apps.accounts.roles import Role
from apps.kernels.cache import KernelStore, changes
from apps.kernels.cache.segments import SEGMENT_BYTES, SEGMENT_CHUNKS
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, Kernel, KernelChunk, KernelVariant
from apps.training.models import TrainingRun
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.programs import RunningProgram
from tests.support.waiting import wait_until

DATA = random.Random(3).randbytes(CHUNK_BYTES * 5 + 7)


class Site:
    """A live site and an administrator's token."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self.token = TokenFactory(user=UserFactory(role=Role.ADMIN)).secret

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        known = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers=known | headers)
        return connection.getresponse()

    def status_of_endless(self, path: str) -> int:
        """Send 64 MiB in chunks without a length; the server may hang up before it has read everything: 413."""
        try:
            return self.ask("POST", path, (b"x" * (1 << 20) for _ in range(64))).status
        except OSError:
            return http.client.REQUEST_ENTITY_TOO_LARGE

    def raw(self, text: bytes) -> bytes:
        """Send bytes as they are, close our side, and return the whole answer."""
        with socket.create_connection((self.host, self.port), timeout=20) as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def site(committed_db: str, live_site: str) -> Site:
    return Site(live_site)


def test_a_kernel_streams_whole_in_ranges_and_not_at_all_to_head(site: Site) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED, data=DATA)
    path = f"/api/v1/kernels/{kernel.pk}/binary"

    whole = site.ask("GET", path)
    part = site.ask("GET", path, Range=f"bytes={CHUNK_BYTES - 1}-{CHUNK_BYTES}")
    again = site.ask("GET", path, **{"If-None-Match": whole.headers["ETag"]})
    head = site.ask("HEAD", path)

    assert whole.read() == DATA
    assert (part.status, part.read()) == (206, DATA[CHUNK_BYTES - 1 : CHUNK_BYTES + 1])
    assert (again.status, again.read()) == (304, b"")
    assert (head.status, head.headers["Content-Length"], head.read()) == (200, str(len(DATA)), b"")


def test_bytes_that_turn_out_corrupt_on_the_way_break_off_before_their_announced_length(site: Site) -> None:
    data = DATA * (1 + SEGMENT_BYTES // len(DATA))
    kernel = KernelFactory(state=KernelState.VALIDATED, data=data)
    KernelChunk.objects.filter(blob_id=kernel.digest, index=SEGMENT_CHUNKS).update(data=b"\0" * CHUNK_BYTES)
    changes.forget(kernel.digest or "")  # the copies that it was written through to

    response = site.ask("GET", f"/api/v1/kernels/{kernel.pk}/binary")
    with pytest.raises(http.client.IncompleteRead) as broken:
        response.read()

    assert (response.status, response.headers["Content-Length"]) == (200, str(len(data)))
    assert broken.value.partial == data[:SEGMENT_BYTES]
    wait_until(lambda: Kernel.objects.get(pk=kernel.pk).state == KernelState.QUARANTINED, seconds=10)
    assert site.ask("GET", f"/api/v1/kernels/{kernel.pk}/binary").status == http.client.CONFLICT


def answered_by(response: http.client.HTTPResponse) -> tuple[str, list[str]]:
    """The tier that answered, and those that were asked, with their times as Server-Timing has them."""
    asked = [metric.split(";dur=") for metric in response.headers["Server-Timing"].split(", ")]
    assert all(0 <= float(took) < 20_000 for _, took in asked)
    return response.headers["X-Esper-Cache-Tier"], [tier for tier, _ in asked]


@pytest.mark.parametrize("of", ["kernel", "variant"])
def test_a_download_tells_which_tier_answered_and_how_long_each_was_asked(site: Site, of: str) -> None:
    data = random.Random(of).randbytes(2 * SEGMENT_BYTES + 1000)
    path = kernel_with(data) if of == "kernel" else variant_with(data)
    changes.forget(hashlib.sha256(data).hexdigest())  # the copies that it was written through to

    def download(start: int = 0, stop: int = len(data)) -> tuple[str, list[str]]:
        asks_for_part = (start, stop) != (0, len(data))
        response = site.ask("GET", path, **({"Range": f"bytes={start}-{stop - 1}"} if asks_for_part else {}))
        assert (response.status, response.read() == data[start:stop]) == (206 if asks_for_part else 200, True)
        return answered_by(response)

    def located() -> str:
        head = site.ask("HEAD", path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))
        return str(head.headers["X-Esper-Cache-Tier"])

    assert (located(), download()) == ("l3", ("l3", ["l1", "l2", "l3"]))
    assert (located(), download()) == ("l2", ("l2", ["l1", "l2"]))  # which the first one filled
    assert (located(), download()) == ("l1", ("l1", ["l1"]))  # the second access within a half-life came to stay
    across_segments = (SEGMENT_BYTES - 10, 2 * SEGMENT_BYTES + 10)
    assert download(*across_segments) == ("l1", ["l1"])
    told = json.loads(site.ask("GET", "/api/v1/cache/stats?scope=process").read())
    assert {name: tier["hits"] for name, tier in told["tiers"].items()} == {"l1": 6, "l2": 3, "l3": 3, "l4": 0}
    (process,) = told["now"]["processes"]
    assert (process["l1"]["entries"], process["l1"]["bytes"] >= len(data)) == (3, True)


def kernel_with(data: bytes) -> str:
    return f"/api/v1/kernels/{KernelFactory(state=KernelState.VALIDATED, data=data).pk}/binary"


def variant_with(data: bytes) -> str:
    with transaction.atomic():
        variant = KernelVariant.objects.create(
            kernel=KernelFactory(state=KernelState.VALIDATED),
            memory_format="contiguous",
            dtype="bfloat16",
            digest=KernelStore().put(data),
            size=len(data),
        )
    return f"/api/v1/kernels/{variant.kernel_id}/variants/{variant.digest}/binary"


def test_a_body_cannot_hide_or_lie_about_its_length(site: Site) -> None:
    unannounced = site.ask("POST", "/api/v1/runs", iter([b'{"settings": {', b'"task": "digits"}}']))
    endless = site.status_of_endless("/api/v1/runs")
    announced = site.raw(
        b"POST /api/v1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {site.token}\r\nContent-Length: {2**40}\r\n\r\n".encode()
    )

    assert unannounced.status == 400  # WSGI gives a body without a length as an empty one
    assert unannounced.headers["Content-Type"] == "application/problem+json"
    assert endless in {400, 413}
    assert announced.startswith(b"HTTP/1.1 413")
    assert b"payload_too_large" in announced
    assert not TrainingRun.objects.exists()


def test_a_site_is_ready_once_each_queue_has_a_worker(
    site: Site, worker: Callable[..., RunningProgram], settings: Any
) -> None:
    before = json.loads(site.ask("GET", "/readyz").read())

    for queue in ("default", "train", "compile"):
        worker(queue)

    wait_until(lambda: site.ask("GET", "/readyz").status == 200, seconds=20)
    assert before["errors"][0]["detail"] == "no worker serves default, train, compile"
