"""Checking that an answer is a problem as RFC 9457 and docs/api.md describe it."""

from typing import Any

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "errors"}


def assert_problem(response: Any, status: int, code: str = "", *pointers: str) -> dict[str, Any]:
    """The answer is a problem of this status, code and these fields at fault; returns its body."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == MEMBERS
    assert body["status"] == status
    assert body["detail"]
    assert body["request_id"] == response["X-Request-Id"]
    assert "Traceback" not in response.content.decode()
    if code:
        assert body["code"] == code, body
    if pointers:
        assert [error["pointer"] for error in body["errors"]] == list(pointers), body
    return body
