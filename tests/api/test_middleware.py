"""What every request passes, whatever it asks for."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig

from apps.audit.models import AuditEvent
from apps.core.middleware import BoundedStream
from tests.api.conftest import Caller
from tests.support.factories import RunFactory

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("path", ["/healthz", "/login", "/api/v1/nothing", "/nothing"])
def test_only_this_sites_scripts_and_styles_may_run(db: None, nobody: Caller, path: str) -> None:
    policy = nobody.get(path)["Content-Security-Policy"]

    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_api_answers_stay_out_of_shared_caches(admin: Caller) -> None:
    assert admin.get("/api/v1/runs")["Cache-Control"] == "private, no-cache"


def test_a_trailing_slash_is_the_same_resource_without_a_redirect(admin: Caller) -> None:
    assert admin.get("/api/v1/runs/").status_code == 200
    assert admin.post("/api/v1/blueprints/", {"name": "a"}).status_code == 201


def test_the_trail_joins_the_request_and_the_trace(admin: Caller) -> None:
    run = RunFactory()
    headers = {"X-Request-Id": "client-7", "Traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

    admin.post(f"/api/v1/runs/{run.pk}/stop", headers=headers)

    event = AuditEvent.objects.filter(type="run.transition").get()
    assert (event.request_id, event.trace_id) == ("client-7", TRACE)


@pytest.mark.parametrize("read", [lambda s: s.read(), lambda s: s.read(8), lambda s: s.readline()])
def test_a_body_is_bounded_while_it_is_read(read: Callable[[Any], bytes]) -> None:
    with pytest.raises(RequestDataTooBig):
        read(BoundedStream(io.BytesIO(b"12345678"), 7))


def test_a_body_within_its_bound_comes_through() -> None:
    stream = BoundedStream(io.BytesIO(b"1234567"), 7)

    assert stream.read(3) + stream.read() + stream.read(1) == b"1234567"
