"""Every refusal is application/problem+json, whichever layer of the site says no."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from apps.accounts.roles import Role
from apps.core.ids import new_id
from apps.kernels.api.views import KernelListView
from apps.kernels.lifecycle import KernelState
from tests.api.conftest import Caller
from tests.support.factories import BlueprintFactory, KernelFactory, RunFactory
from tests.support.problems import assert_problem


def test_nobody_is_asked_to_authenticate(db: None, nobody: Caller) -> None:
    response = nobody.get("/api/v1/runs")

    assert_problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == 'Bearer realm="esper"'


@pytest.mark.parametrize("secret", ["esper_wrong", "x" * 5000, "two words", "\u00fc"])
def test_a_wrong_token_is_refused(db: None, secret: str) -> None:
    assert_problem(Caller(secret).get("/api/v1/runs"), 401, "authentication_failed")


def test_a_missing_scope_is_named(caller: Callable[..., Caller]) -> None:
    body = assert_problem(caller(Role.VIEWER).post("/api/v1/runs", {}), 403, "permission_denied")

    assert "runs:write" in body["detail"]


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v2/runs", "/api/v1/runs/not-a-uuid", f"/api/v1/runs/{new_id()}"]
)
def test_what_is_not_there_is_404(admin: Caller, path: str) -> None:
    assert_problem(admin.get(path), 404, "not_found")


@pytest.mark.parametrize("method", ["put", "delete", "options", "patch"])
def test_a_method_that_a_resource_lacks_is_405_and_says_which_it_has(admin: Caller, method: str) -> None:
    response = getattr(admin, method)("/api/v1/runs")

    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, POST"


def test_a_method_that_a_plain_view_lacks_is_a_problem_too(nobody: Caller) -> None:
    response = nobody.post("/healthz")

    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


def test_another_state_is_409(admin: Caller) -> None:
    run = RunFactory(state="COMPLETED")

    assert_problem(admin.post(f"/api/v1/runs/{run.pk}/stop"), 409, "ended")


def test_a_body_without_a_length_is_411(admin: Caller) -> None:
    kernel = KernelFactory(state=KernelState.REGISTERED, awaits_upload=True)

    response = admin.generic(
        "PUT", f"/api/v1/kernels/{kernel.pk}/binary", b"", content_type="application/octet-stream", CONTENT_LENGTH=""
    )

    assert_problem(response, 411, "length_required")


def test_a_body_that_is_too_large_is_413_before_it_is_read(admin: Caller) -> None:
    response = admin.generic("POST", "/api/v1/runs", b"{}", content_type="application/json", CONTENT_LENGTH=str(2**30))

    assert_problem(response, 413, "payload_too_large")


def test_another_media_type_is_415(admin: Caller) -> None:
    assert_problem(admin.generic("POST", "/api/v1/runs", b"a=1", content_type="text/plain"), 415)


def test_a_range_outside_is_416_and_tells_the_size(admin: Caller) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED)

    response = admin.get(f"/api/v1/kernels/{kernel.pk}/binary", headers={"Range": "bytes=9999999-"})

    assert_problem(response, 416, "range")
    assert response["Content-Range"] == f"bytes */{kernel.size}"


def test_a_missing_precondition_is_428_and_a_wrong_one_412(admin: Caller) -> None:
    path = f"/api/v1/blueprints/{BlueprintFactory().pk}"

    assert_problem(admin.patch(path, {"title": "x"}), 428, "if_match_required")
    assert_problem(admin.patch(path, {"title": "x"}, headers={"If-Match": '"v9"'}), 412, "if_match")


def test_an_unknown_host_is_400(settings: Any, nobody: Caller) -> None:
    settings.ALLOWED_HOSTS = ["esper.example"]

    assert_problem(nobody.get("/api/v1/runs", headers={"Host": "evil.example"}), 400, "unknown_host")


def test_a_silent_database_is_503_and_nothing_of_it_shows(committed_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")

    response = Caller("esper_" + "0" * 64).get("/api/v1/runs")

    body = assert_problem(response, 503, "database_unavailable")
    assert response["Retry-After"] == "5"
    assert "127.0.0.1" not in body["detail"]


def test_a_page_without_a_database_says_so_as_a_page(committed_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "x" * 32

    response = client.get("/runs")

    assert response.status_code == 503
    assert response["Content-Type"].startswith("text/html")
    assert "the database does not answer" in response.content.decode().lower()
    assert response["Retry-After"] == "5"


def test_a_fault_of_ours_is_500_without_its_traceback(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> Any:
        raise KeyError("planted secret")

    monkeypatch.setattr(KernelListView, "get_queryset", broken)

    body = assert_problem(admin.get("/api/v1/kernels"), 500, "internal")

    assert "planted" not in str(body)


@pytest.mark.parametrize(
    ("given", "kept"), [("client-1:2.3_4", True), ("x" * 65, False), ("a b", False), ("<script>", False)]
)
def test_a_sane_request_id_is_kept_and_others_are_replaced(nobody: Caller, given: str, kept: bool) -> None:
    response = nobody.get("/api/v1/nothing", headers={"X-Request-Id": given})

    assert (response["X-Request-Id"] == given) is kept
    assert response.json()["request_id"] == response["X-Request-Id"]
