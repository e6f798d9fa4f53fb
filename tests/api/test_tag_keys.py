"""Declared tags over the API: what they hold kernels to, who may change them, and their indexes."""

import json
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.test import override_settings

from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.blueprints.lifecycle import VersionState
from apps.core.actors import SYSTEM
from apps.kernels import search, services
from apps.kernels.models import MAX_TAG_KEYS, IndexState, Kernel, TagKey, TagType
from apps.kernels.tag_indexes import PREFIX
from tests.api.conftest import Caller
from tests.support.factories import BlueprintVersionFactory, KernelFactory
from tests.support.problems import assert_problem
from tests.support.stack import Servers

PATH = "/api/v1/tag-keys"


def declare(client: Caller, **body: Any) -> Any:
    return client.post(PATH, {"name": "arch", "type": "text", **body}, format="json")


def test_a_declared_tag_waits_for_its_index(admin: Caller) -> None:
    response = declare(admin, choices=["conv", "attn"])

    assert response.status_code == 201
    assert response["Location"] == f"{PATH}/{response.json()['id']}"
    assert response.json()["index_state"] == IndexState.WAITING
    assert [row["name"] for row in admin.get(PATH).json()["results"]] == ["arch"]
    assert AuditEvent.objects.filter(type="tag.declared", subject_id=response.json()["id"]).exists()


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"name": "Arch"}, 400, "/name"),
        ({"type": "date"}, 400, "/type"),
        ({"type": "number", "choices": ["1"]}, 400, "/choices"),
        ({"choices": ["a", "a"]}, 400, "/choices"),
        ({"name": "high_speed"}, 400, "/type"),
        ({"name": "there"}, 409, "/name"),
        ({"colour": "red"}, 400, "/colour"),
    ],
)
def test_what_cannot_be_declared_is_named(admin: Caller, body: dict[str, Any], status: int, pointer: str) -> None:
    services.declare_tag(name="there", type=TagType.TEXT, actor=SYSTEM)

    assert_problem(declare(admin, **body), status, "", pointer)
    assert TagKey.objects.count() == 1


def test_there_are_at_most_as_many_declared_tags_as_may_have_an_index(admin: Caller) -> None:
    for number in range(MAX_TAG_KEYS):
        services.declare_tag(name=f"tag{number}", type=TagType.TEXT, actor=SYSTEM)

    assert_problem(declare(admin), 409, "too_many")


def test_a_change_needs_the_current_version(admin: Caller) -> None:
    path = f"{PATH}/{declare(admin).json()['id']}"
    etag = admin.get(path)["ETag"]

    assert_problem(admin.patch(path, {"description": "x"}, format="json"), 428)
    changed = admin.patch(path, {"description": "x", "choices": ["a"]}, format="json", HTTP_IF_MATCH=etag)
    assert (changed.status_code, changed.json()["choices"]) == (200, ["a"])
    assert_problem(admin.patch(path, {"description": "y"}, format="json", HTTP_IF_MATCH=etag), 412)
    assert_problem(admin.delete(path, HTTP_IF_MATCH=etag), 412)
    assert admin.delete(f"{path}?reason=unused", HTTP_IF_MATCH=changed["ETag"]).status_code == 204
    assert admin.get(path).status_code == 404
    assert AuditEvent.objects.get(type="tag.removed").reason == "unused"


def test_only_curators_declare(caller: Any) -> None:
    assert_problem(declare(caller(Role.VIEWER)), 403)


# --- What kernels are held to


@pytest.mark.parametrize(
    ("type", "choices", "value", "code"),
    [
        (TagType.TEXT, [], 5, "type"),
        (TagType.TEXT, ["conv"], "attn", "choice"),
        (TagType.TEXT, [], "x" * 501, "max_length"),
        (TagType.NUMBER, [], "5", "type"),
        (TagType.NUMBER, [], True, "type"),
        (TagType.BOOLEAN, [], 1, "type"),
        (TagType.TEXT, [], None, "type"),
    ],
)
def test_a_kernel_with_a_wrong_value_of_a_declared_tag_is_refused(
    admin: Caller, type: str, choices: list[str], value: Any, code: str
) -> None:
    services.declare_tag(name="arch", type=type, choices=choices, actor=SYSTEM)
    version = BlueprintVersionFactory(state=VersionState.SUBMITTED)
    body = {"blueprint": str(version.blueprint_id), "tags": {"arch": value}}

    problem = assert_problem(admin.post("/api/v1/kernels", body, format="json"), 400, code, "/tags/arch")

    assert "arch" in problem["detail"] or code == "max_length"
    assert not Kernel.objects.exists()


@pytest.mark.parametrize("declared", [{"type": "number"}, {"choices": ["conv"]}])
def test_a_declaration_does_not_keep_a_blueprint_from_its_kernels(admin: Caller, declared: dict[str, Any]) -> None:
    version = BlueprintVersionFactory(blueprint__tags={"arch": "mlp", "layer": "linear"})
    assert declare(admin, **declared).status_code == 201

    kernel = services.ensure_kernel(version=version, bindings={}, actor=SYSTEM)

    assert kernel.tags == {"layer": "linear"}


def test_right_values_and_undeclared_tags_pass(admin: Caller) -> None:
    services.declare_tag(name="arch", type=TagType.TEXT, choices=["conv"], actor=SYSTEM)
    services.declare_tag(name="width", type=TagType.NUMBER, actor=SYSTEM)
    version = BlueprintVersionFactory(state=VersionState.SUBMITTED)
    tags = {"arch": "conv", "width": 1.5, "free": [1]}

    response = admin.post("/api/v1/kernels", {"blueprint": str(version.blueprint_id), "tags": tags}, format="json")

    assert response.status_code == 201


# --- Their indexes


def indexes(owner: psycopg.Connection[Any]) -> dict[str, bool]:
    rows = owner.execute(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE starts_with(relname, %s)",
        [PREFIX],
    )
    return {name.removeprefix(PREFIX): valid for name, valid in rows}


def run_index_tags(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    call_command("index_tags", "--json")
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_indexes_are_made_retried_and_dropped(
    committed_db: str, servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    url = servers.url("owner", committed_db)
    with override_settings(DATABASE_OWNER_URL=url), psycopg.connect(url, autocommit=True) as owner:
        twins = [KernelFactory(tags={"arch": "conv", "width": number}) for number in range(2)]
        arch = services.declare_tag(name="arch", type=TagType.TEXT, actor=SYSTEM)
        services.declare_tag(name="width", type=TagType.NUMBER, actor=SYSTEM)
        with pytest.raises(psycopg.errors.UniqueViolation):  # what leaves an invalid index behind
            owner.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {PREFIX}arch ON kernels_kernel ((tags -> 'arch'))")
        assert indexes(owner) == {"arch": False}

        done = run_index_tags(capsys)

        assert (done["made"], done["dropped"], done["failed"]) == (["arch", "width"], ["arch"], {})
        assert indexes(owner) == {"arch": True, "width": True}
        assert set(TagKey.objects.values_list("index_state", flat=True)) == {IndexState.READY}
        for text, wanted in (("tags.arch = 'conv'", twins), ("tags.width >= 1", twins[1:])):
            found = search.run(search.Query(filter=search.parse(text))).rows
            assert [row["id"] for row in found] == [kernel.pk for kernel in reversed(wanted)]

        services.remove_tag(tag_key=arch, actor=SYSTEM)
        assert run_index_tags(capsys)["dropped"] == ["arch"]
        assert indexes(owner) == {"width": True}
        assert run_index_tags(capsys) == {"made": [], "dropped": [], "ready": ["width"], "failed": {}}


def test_an_index_that_cannot_be_made_is_told_and_leaves_nothing(
    committed_db: str, servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    url = servers.url("owner", committed_db)
    with override_settings(DATABASE_OWNER_URL=url), psycopg.connect(url, autocommit=True) as owner:
        KernelFactory(tags={"arch": "".join(chr(0x4E00 + n) for n in range(4000))})
        services.declare_tag(name="arch", type=TagType.TEXT, actor=SYSTEM)

        with pytest.raises(Exception, match="arch: index row"):
            call_command("index_tags")

        key = TagKey.objects.get()
        assert (key.index_state, indexes(owner)) == (IndexState.FAILED, {})
        assert "index row" in key.index_error
