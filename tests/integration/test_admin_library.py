"""The admin of assets: the queue of kernels that wait for a person, and steps that ask for more than a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.blueprints.models import BlueprintVersion, VersionLineage
from apps.blueprints.starter import starter_library
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.core.lineage import LineageKind
from apps.kernels import curation_queue, services
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, Kernel, KernelAlias, KernelChunk, KernelUse, StorageTier, TagKey
from tests.support import factories, tables
from tests.support.curating import DAY, HOUR, LIST, YES, curator, kernel_in, messages_of, url_of

__all__ = ["curator"]

pytestmark = pytest.mark.django_db


def named(kernel: Kernel, name: str = "candidate") -> Kernel:
    services.set_alias(kernel=kernel, name=name, actor=SYSTEM, reason="test")
    return kernel


def since_login() -> list[str]:
    return [event.type for event in AuditEvent.objects.exclude(type="access.login").order_by("id")]


def aged(kernel: Kernel, **ages: timedelta) -> Kernel:
    Kernel.objects.filter(pk=kernel.pk).update(**{name: timezone.now() - age for name, age in ages.items()})
    return kernel


WAITS: dict[str, Callable[[], Kernel]] = {
    "quarantined": lambda: kernel_in(KernelState.QUARANTINED),
    "rejected": lambda: kernel_in(KernelState.REJECTED),
    "risky": lambda: named(kernel_in(risk=0.7, risk_confidence=0.6)),
    "stalled": lambda: aged(kernel_in(KernelState.REGISTERED), updated_at=2 * HOUR),
    "unnamed": kernel_in,
    "deprecated": lambda: kernel_in(KernelState.DEPRECATED),
    "leaving": lambda: aged(kernel_in(KernelState.RETIRED), purge_after=-DAY),
}


def held_by_a_run(kernel: Kernel) -> Kernel:
    KernelUse.objects.create(kernel=kernel, run_id=factories.RunFactory().pk)
    return kernel


CALM: dict[str, Callable[[], Kernel]] = {
    "validated with an alias": lambda: named(kernel_in()),
    "sibling of one with an alias": lambda: kernel_in(
        blueprint_version__blueprint=named(kernel_in()).blueprint_version.blueprint
    ),
    "risky, but by few outcomes": lambda: named(kernel_in(risk=0.9, risk_confidence=0.2)),
    "rejected long ago": lambda: aged(kernel_in(KernelState.REJECTED), updated_at=8 * DAY),
    "registered just now": lambda: kernel_in(KernelState.REGISTERED),
    "deprecated and held by a run": lambda: held_by_a_run(kernel_in(KernelState.DEPRECATED)),
    "deprecated under legal hold": lambda: kernel_in(KernelState.DEPRECATED, legal_hold=True),
    "deprecated and pinned": lambda: kernel_in(KernelState.DEPRECATED, pinned_until=timezone.now() + DAY),
    "deprecated with an alias": lambda: services.deprecate_kernel(
        kernel=named(kernel_in()), reason="old", actor=SYSTEM
    ),
    "retired with time left": lambda: aged(kernel_in(KernelState.RETIRED), purge_after=-20 * DAY),
    "purged": lambda: kernel_in(KernelState.PURGED),
}


class TestQueue:
    def test_the_table_of_cases_knows_every_concern(self) -> None:
        assert set(WAITS) == set(curation_queue.CONCERNS)

    @pytest.mark.parametrize("concern", WAITS)
    def test_a_kernel_that_waits_is_in_the_queue_and_says_what_for(
        self, client: Client, curator: User, concern: str
    ) -> None:
        kernel = WAITS[concern]()

        rows = list(client.get(LIST, {"waits": concern}).context["cl"].result_list)

        assert [(row.pk, row.waits_for) for row in rows] == [(kernel.pk, [concern])]
        assert curation_queue.CONCERNS[concern].title in client.get(url_of(kernel)).content.decode()

    @pytest.mark.parametrize("calm", CALM)
    def test_a_kernel_that_needs_nobody_is_not(self, client: Client, curator: User, calm: str) -> None:
        kernel = CALM[calm]()

        rows = client.get(LIST, {"waits": "any"}).context["cl"].result_list

        assert kernel.pk not in {row.pk for row in rows}

    def test_the_list_counts_each_concern_and_leads_to_its_kernels(self, client: Client, curator: User) -> None:
        for make in WAITS.values():
            make()
        WAITS["quarantined"]()

        answer = client.get(LIST)

        counted = {item["concern"].key: item["count"] for item in answer.context["queue"]}
        assert counted == {**dict.fromkeys(WAITS, 1), "quarantined": 2}
        assert 'href="?waits=quarantined"' in answer.content.decode()

    def test_all_of_the_queue_is_the_kernels_of_its_concerns(self, client: Client, curator: User) -> None:
        waiting = {make().pk for make in WAITS.values()}
        for make in CALM.values():
            make()

        rows = client.get(LIST, {"waits": "any"}).context["cl"].result_list

        assert {row.pk for row in rows} == waiting

    def test_without_kernels_that_wait_it_says_so(self, client: Client, curator: User) -> None:
        assert "Nothing does." in client.get(LIST).content.decode()


class TestAnswers:
    """A step that asks for more than a reason is previewed with the answers, and does what was previewed."""

    def test_the_first_page_asks_and_promises_nothing(self, client: Client, curator: User) -> None:
        answer = client.get(url_of(kernel_in(), "set_alias"))

        assert answer.context["effects"] == []
        assert not answer.context["can_confirm"]
        assert list(answer.context["form"].fields) == ["name", "reason"]

    def test_the_preview_shows_what_the_answers_would_do_and_changes_nothing(
        self, client: Client, curator: User
    ) -> None:
        kernel, before = kernel_in(), tables.digests()

        answer = client.post(url_of(kernel, "set_alias"), {"name": "prod", "reason": "good", "preview": "1"})

        (effect,) = answer.context["effects"]
        assert effect.events[0].startswith("pointed at a kernel the alias")
        assert answer.context["can_confirm"]
        assert tables.digests() == before

    def test_what_was_previewed_is_done(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        answers = {"name": "prod", "reason": "good"}
        page = client.post(url_of(kernel, "set_alias"), {**answers, "preview": "1"}).context

        answer = client.post(
            url_of(kernel, "set_alias"),
            {**answers, "confirmed": "1", "answers": page["answers"], "shown": page["shown"]},
        )

        assert messages_of(answer) == {f"{kernel}: has the alias"}
        assert KernelAlias.objects.get(name="prod").kernel == kernel

    def test_answers_that_changed_after_the_preview_are_previewed_again(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        page = client.post(url_of(kernel, "set_alias"), {"name": "prod", "reason": "good", "preview": "1"}).context

        answer = client.post(
            url_of(kernel, "set_alias"),
            {"name": "candidate", "reason": "good", "confirmed": "1", "answers": page["answers"]},
        )

        assert len(answer.context["effects"]) == 1
        assert not KernelAlias.objects.exists()

    def test_another_reason_needs_no_other_preview(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        page = client.post(url_of(kernel, "set_alias"), {"name": "prod", "reason": "good", "preview": "1"}).context

        client.post(
            url_of(kernel, "set_alias"),
            {"name": "prod", "reason": "better", "confirmed": "1", "answers": page["answers"]},
        )

        assert KernelAlias.objects.get().name == "prod"

    @pytest.mark.parametrize("send", ["preview", "confirmed"])
    def test_a_wrong_answer_is_told_at_its_field(self, client: Client, curator: User, send: str) -> None:
        answer = client.post(url_of(kernel_in(), "set_alias"), {"name": "Not a name", "reason": "good", send: "1"})

        assert "use lower-case letters" in answer.context["form"].errors["name"][0]
        assert not answer.context["can_confirm"]
        assert since_login() == []

    def test_an_answer_that_the_service_refuses_is_told_in_the_preview(self, client: Client, curator: User) -> None:
        kernel = kernel_in(KernelState.RETIRED)

        answer = client.post(url_of(kernel, "set_alias"), {"name": "prod", "reason": "good", "preview": "1"})

        assert answer.context["form"].non_field_errors() == ["the kernel is RETIRED: no alias may point at it"]
        assert not answer.context["can_confirm"]


class TestStaleRows:
    def test_a_row_that_changed_since_it_was_shown_is_refused(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        shown = client.get(url_of(kernel, "quarantine")).context["shown"]
        services.deprecate_kernel(kernel=kernel, reason="old", actor=SYSTEM)

        answer = client.post(url_of(kernel, "quarantine"), {**YES, "shown": shown})

        kernel.refresh_from_db()
        assert answer.context["form"].non_field_errors() == ["it has changed since this page was shown: look again"]
        assert kernel.state == KernelState.DEPRECATED

    def test_the_page_that_refuses_shows_the_row_as_it_is_now(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        shown = client.get(url_of(kernel, "quarantine")).context["shown"]
        services.deprecate_kernel(kernel=kernel, reason="old", actor=SYSTEM)

        page = client.post(url_of(kernel, "quarantine"), {**YES, "shown": shown}).context
        client.post(url_of(kernel, "quarantine"), {**YES, "shown": page["shown"]})

        kernel.refresh_from_db()
        assert kernel.state == KernelState.QUARANTINED

    def test_in_a_selection_only_the_row_that_changed_is_left_out(self, client: Client, curator: User) -> None:
        changed, same = kernel_in(), kernel_in()
        selection = {"action": "quarantine_selected", "_selected_action": [str(changed.pk), str(same.pk)]}
        shown = client.post(LIST, selection).context["shown"]
        services.deprecate_kernel(kernel=changed, reason="old", actor=SYSTEM)

        answer = client.post(LIST, {**selection, **YES, "shown": shown})

        assert messages_of(answer) == {
            f"{changed}: it has changed since this page was shown: look again",
            f"{same}: quarantined",
        }

    def test_a_row_that_is_gone_from_a_selection_is_told(self, client: Client, curator: User) -> None:
        kernel, other = kernel_in(), kernel_in()
        selection = {"action": "quarantine_selected", "_selected_action": [str(kernel.pk)]}

        answer = client.post(LIST, {**selection, **YES, "shown": [f"{kernel.pk}:1", f"{other.pk}:1"]})

        assert "1 of those selected are not there any more." in messages_of(answer)


class TestSentences:
    def test_what_is_taken_away_is_told_as_nothing(self, client: Client, curator: User) -> None:
        kernel = kernel_in(pinned_until=timezone.now() + DAY)

        (effect,) = client.get(url_of(kernel, "unpin")).context["effects"]

        assert effect.events == ("changed the kernel: pinned_until becomes nothing",)

    def test_a_pin_is_told_as_a_day_and_a_time(self, client: Client, curator: User) -> None:
        day = timezone.now().date() + 30 * DAY

        page = client.post(url_of(kernel_in(), "pin"), {"pinned_until": f"{day}", "reason": "x", "preview": "1"})

        assert page.context["effects"][0].events == (f"changed the kernel: pinned_until becomes {day} 00:00 UTC",)


class TestSelections:
    def test_the_preview_counts_what_would_be_taken_and_what_is_left(self, client: Client, curator: User) -> None:
        rows = [kernel_in(), kernel_in(), kernel_in(KernelState.REJECTED)]
        selection = {"action": "deprecate_selected", "_selected_action": [str(row.pk) for row in rows]}

        answer = client.post(LIST, selection)

        assert (answer.context["allowed"], answer.context["refused"]) == (2, 1)
        assert "3 selected: 2 would be taken, 1 left as they are." in answer.content.decode()

    def test_answers_are_asked_once_for_all(self, client: Client, curator: User) -> None:
        rows = [kernel_in(), kernel_in()]
        selection = {"action": "move_tier_selected", "_selected_action": [str(row.pk) for row in rows]}

        page = client.post(LIST, selection)
        previewed = client.post(LIST, {**selection, "tier": "hot", "reason": "busy", "preview": "1"})
        client.post(LIST, {**selection, "tier": "hot", "reason": "busy", "confirmed": "1"})

        assert page.context["effects"] == []
        assert [len(effect.events) for effect in previewed.context["effects"]] == [1, 1]
        assert {row.storage_tier for row in Kernel.objects.all()} == {StorageTier.HOT}

    def test_more_than_a_hundred_are_not_taken_at_once(self, client: Client, curator: User) -> None:
        version = factories.BlueprintVersionFactory()
        rows = [kernel_in(KernelState.REGISTERED, blueprint_version=version, bindings={"D": n}) for n in range(101)]
        answer = client.post(
            LIST, {"action": "quarantine_selected", "_selected_action": [str(row.pk) for row in rows], **YES}
        )

        assert messages_of(answer) == {"Select at most 100 at once."}
        assert since_login() == []


class TestVerify:
    def test_right_bytes_change_nothing(self, client: Client, curator: User) -> None:
        kernel, before = kernel_in(), tables.beside_the_trail()

        answer = client.post(url_of(kernel, "verify"), YES)

        assert messages_of(answer) == {f"{kernel}: its bytes are right"}
        assert tables.beside_the_trail() == before

    def test_wrong_bytes_quarantine_the_kernel_by_this_person(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        KernelChunk.objects.filter(blob_id=kernel.digest).update(data=b"x" * 10)

        answer = client.post(url_of(kernel, "verify"), YES)

        kernel.refresh_from_db()
        assert messages_of(answer) == {f"{kernel}: its bytes are wrong: quarantined"}
        assert kernel.state == KernelState.QUARANTINED
        assert since_login() == ["kernel.quarantined"]

    def test_its_preview_reads_nothing(self, client: Client, curator: User, monkeypatch: Any) -> None:
        monkeypatch.delattr(KernelStore, "verify")

        (effect,) = client.get(url_of(kernel_in(), "verify")).context["effects"]

        assert effect.events[0].startswith("reads 2.0 KiB of sha256")

    def test_a_kernel_without_bytes_is_refused(self, client: Client, curator: User) -> None:
        (effect,) = client.get(url_of(kernel_in(KernelState.REGISTERED), "verify")).context["effects"]

        assert effect.refusal == "the kernel is REGISTERED and has no bytes"


class TestAliases:
    def test_what_an_alias_pointed_at_stays_in_the_list_of_its_periods(self, client: Client, curator: User) -> None:
        first = named(kernel_in())
        second = named(kernel_in(blueprint_version__blueprint=first.blueprint_version.blueprint))

        rows = client.get("/admin/kernels/aliasperiod/").context["cl"].result_list

        assert [(row.kernel, row.ended_at is None) for row in rows] == [(second, True), (first, False)]

    def test_a_protection_is_lifted_with_a_reason_then_the_alias_can_be_taken_away(
        self, client: Client, curator: User
    ) -> None:
        alias = KernelAlias.objects.get(kernel=named(kernel_in(), "prod"))

        client.post(url_of(alias, "unprotect"), YES)
        client.post(url_of(alias, "remove"), YES)

        alias.refresh_from_db()
        assert (alias.is_protected, alias.kernel) == (False, None)
        assert AliasPeriod.objects.get().ended_at is not None


class TestTags:
    def send(self, client: Client, kernel: Kernel, **answers: str) -> Any:
        return client.post(url_of(kernel, "tag"), {**YES, **answers})

    def test_named_keys_change_and_others_stay(self, client: Client, curator: User) -> None:
        kernel = kernel_in(tags={"arch": "mlp", "old": 1, "rank": 2})

        self.send(client, kernel, tags='{"arch": "conv"}', remove="old, nowhere")

        kernel.refresh_from_db()
        assert kernel.tags == {"arch": "conv", "rank": 2}

    @pytest.mark.parametrize(
        ("answers", "field", "error"),
        [
            ({}, "tags", "Say at least one tag to set or to take away."),
            ({"tags": "[1]"}, "tags", "must be an object"),
            ({"tags": "{not json"}, "tags", "Enter a valid JSON."),
            ({"tags": '{"a": {"b": 1}}'}, "tags", "/tags/a: must be text"),
            ({"tags": '{"a": 1}', "remove": "a"}, "remove", "a cannot be set and taken away at once."),
        ],
    )
    def test_what_cannot_be_is_told_at_its_field(
        self, client: Client, curator: User, answers: dict[str, str], field: str, error: str
    ) -> None:
        answer = self.send(client, kernel_in(), **answers)

        assert answer.context["form"].errors[field][0].startswith(error)
        assert since_login() == []


class TestCuration:
    def test_a_pin_lasts_until_the_day_begins(self, client: Client, curator: User) -> None:
        kernel, day = kernel_in(), timezone.now().date() + 30 * DAY

        client.post(url_of(kernel, "pin"), {**YES, "pinned_until": f"{day}"})

        kernel.refresh_from_db()
        assert kernel.pinned_until == datetime.combine(day, time.min, UTC)

    def test_a_pin_in_the_past_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        answer = client.post(url_of(kernel_in(), "pin"), {**YES, "pinned_until": "2020-01-01"})

        assert "must be in the future" in answer.context["form"].errors["pinned_until"][0]

    def test_a_hold_is_kept_by_retirement_until_it_is_lifted(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        client.post(url_of(kernel, "hold"), YES)

        (refused,) = client.get(url_of(kernel, "retire")).context["effects"]
        client.post(url_of(kernel, "lift_hold"), YES)
        (allowed,) = client.get(url_of(kernel, "retire")).context["effects"]

        assert refused.refusal == "the kernel stays: under legal hold"
        assert allowed.refusal == ""

    def test_a_successor_of_another_contract_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        other = kernel_in(compat={"operator": "residual", "input": [1], "output": [1]})

        answer = client.post(url_of(kernel_in(), "name_successor"), {**YES, "successor": str(other.pk)})

        assert answer.context["form"].errors["successor"][0].startswith("fits other slots")

    def test_a_successor_that_is_not_there_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        url = url_of(kernel_in(), "name_successor")

        for key in ("nonsense", str(new_id())):
            assert client.post(url, {**YES, "successor": key}).context["form"].errors["successor"]

    def test_a_move_of_a_kernel_that_a_run_holds_is_refused_in_the_preview(self, client: Client, curator: User) -> None:
        kernel = held_by_a_run(kernel_in())

        answer = client.post(url_of(kernel, "move_tier"), {"tier": "cold", "reason": "space", "preview": "1"})

        assert answer.context["form"].non_field_errors()[0].startswith("a run holds this kernel")


class TestTagKeys:
    def test_choices_are_written_one_a_line(self, client: Client, curator: User) -> None:
        client.post("/admin/kernels/tagkey/add/", {"name": "arch", "type": "text", "choices": "conv\n\n attn "})

        key = TagKey.objects.get()
        assert key.choices == ["conv", "attn"]
        assert client.get(url_of(key)).context["adminform"].form["choices"].value() == "conv\nattn"

    def test_choices_of_a_number_are_refused_at_their_field(self, client: Client, curator: User) -> None:
        answer = client.post("/admin/kernels/tagkey/add/", {"name": "rank", "type": "number", "choices": "1"})

        assert answer.context["adminform"].form.errors["choices"] == ["only a text has choices"]

    def test_a_removed_declaration_is_gone_and_kernels_keep_their_values(self, client: Client, curator: User) -> None:
        key = services.declare_tag(name="arch", type="text", actor=SYSTEM)
        kernel = kernel_in(tags={"arch": "conv"})

        answer = client.post(url_of(key, "remove"), YES)

        kernel.refresh_from_db()
        assert answer.headers["Location"] == "/admin/kernels/tagkey/"
        assert (TagKey.objects.count(), kernel.tags) == (0, {"arch": "conv"})


class TestVersions:
    def version(self) -> BlueprintVersion:
        return factories.BlueprintVersionFactory(blueprint=factories.BlueprintFactory(next_number=2), number=1)

    def test_a_clone_starts_a_blueprint_with_its_lineage(self, client: Client, curator: User) -> None:
        version = self.version()

        answer = client.post(url_of(version, "clone"), {"name": "copy"})

        edge = VersionLineage.objects.get()
        assert messages_of(answer) == {f"{version}: cloned as copy"}
        assert (edge.parent, edge.child.blueprint.name, edge.kind) == (version, "copy", LineageKind.CLONED)

    def test_a_mutation_is_previewed_and_becomes_the_next_version(self, client: Client, curator: User) -> None:
        version = self.version()

        page = client.post(url_of(version, "mutate"), {"seed": "3", "preview": "1"})
        client.post(url_of(version, "mutate"), {"seed": "3", "confirmed": "1", "answers": page.context["answers"]})

        (effect,) = page.context["effects"]
        assert any("version" in event for event in effect.events)
        assert version.blueprint.versions.count() == 2

    def test_a_name_that_is_taken_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        version = self.version()

        answer = client.post(url_of(version, "clone"), {"name": version.blueprint.name})

        assert answer.context["form"].errors
        assert BlueprintVersion.objects.count() == 1

    def test_versions_of_other_contracts_cannot_be_crossed(self, client: Client, curator: User) -> None:
        version = self.version()
        other = factories.BlueprintVersionFactory(spec=starter_library()["residual_conv"].spec)

        answer = client.post(url_of(version, "cross"), {"seed": "1", "other": str(other.pk)})

        assert answer.context["form"].errors["other"]


class TestRoles:
    """Viewers see nothing, operators read, curators act."""

    PAGES = (
        *("kernel", "kernelalias", "aliasperiod", "kernelvariant", "kernellineage"),
        *("tagkey", "retentionpolicy", "retentionplan", "retentionitem"),
    )

    def test_a_viewer_is_not_let_in(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER))

        answers = {page: client.get(f"/admin/kernels/{page}/", follow=True).status_code for page in self.PAGES}

        assert set(answers.values()) == {403}

    def test_an_operator_reads_and_is_offered_no_action(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.OPERATOR))

        answers = {page: client.get(f"/admin/kernels/{page}/") for page in self.PAGES}

        assert {answer.status_code for answer in answers.values()} == {200}
        assert {page for page, answer in answers.items() if answer.context["action_form"]} == set()

    def test_an_operator_sees_a_kernel_without_buttons(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.OPERATOR))

        assert client.get(url_of(kernel_in())).context["buttons"] == []

    def test_a_curator_is_offered_what_can_be_done_to_a_kernel(self, client: Client, curator: User) -> None:
        offered = {
            state: {button["path"].split("/")[-2] for button in _buttons(client, state)}
            for state in (KernelState.VALIDATED, KernelState.RETIRED, KernelState.PURGED)
        }

        assert offered[KernelState.VALIDATED] >= {
            "set_alias",
            "move_tier",
            "verify",
            "deprecate",
            "retire",
            "quarantine",
        }
        assert "restore" in offered[KernelState.RETIRED]
        assert "restore" not in offered[KernelState.VALIDATED]
        assert not offered[KernelState.PURGED] & {"retire", "move_tier", "verify", "quarantine"}


def _buttons(client: Client, state: str) -> list[dict[str, Any]]:
    return list(client.get(url_of(kernel_in(state))).context["buttons"])
