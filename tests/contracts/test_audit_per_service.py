"""Every service that writes owes the audit trail an event, in the transaction of its write.

The list of services is generated from the modules `apps.*.services`; each has a case in `audit_cases` or an exemption
with its reason. For each case, the real call on real rows:

- adds the event that the case names, about its subject, by the acting user;
- adds events that tell what became of every watched row, column by column: their fold is the row;
- leaves neither write nor event when the transaction around it rolls back;
- writes nothing at all when the event cannot be recorded.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from django.db import transaction

import apps
from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit import services as audit
from apps.audit.models import AuditEvent, AuditPerson
from apps.audit.watched import Personal, image
from apps.core.actors import Actor, ActorKind
from tests.contracts.audit_cases import CASES, EXEMPT, Arranged, Case
from tests.support import story, tables
from tests.support.factories import UserFactory

pytestmark = pytest.mark.django_db


# --- Which services there are


def service_modules() -> list[ModuleType]:
    """`apps.<app>.services`, with its submodules where it is a package."""
    found: list[ModuleType] = []
    for app in pkgutil.iter_modules(apps.__path__, "apps."):
        package = importlib.import_module(app.name)
        names = {module.name for module in pkgutil.iter_modules(package.__path__)}
        if "services" not in names:
            continue
        services = importlib.import_module(f"{app.name}.services")
        found.append(services)
        for module in pkgutil.iter_modules(getattr(services, "__path__", ()), f"{services.__name__}."):
            found.append(importlib.import_module(module.name))
    return found


def public_functions(modules: Iterable[ModuleType]) -> dict[str, Callable[..., Any]]:
    """``training.pause_run`` -> the function, for every public function defined in these modules."""
    return {
        f"{module.__name__.split('.')[1]}.{name}": function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == module.__name__
    }


SERVICES = public_functions(service_modules())


def without_case(services: Iterable[str]) -> set[str]:
    return set(services) - set(CASES) - set(EXEMPT)


def test_every_service_has_a_case_or_a_reason_why_not() -> None:
    assert without_case(SERVICES) == set()


def test_no_case_and_no_exemption_outlives_its_service() -> None:
    assert (set(CASES) | set(EXEMPT)) - set(SERVICES) == set()


def test_a_service_that_takes_an_actor_is_never_exempt() -> None:
    acting = {name for name, function in SERVICES.items() if "actor" in inspect.signature(function).parameters}

    assert acting & set(EXEMPT) == {"audit.record", "audit.archive_partition"}


# --- What each owes


@pytest.fixture
def actor() -> Actor:
    user = UserFactory(username="ada", role=Role.ADMIN)
    return Actor(kind=ActorKind.USER, id=user.pk, name="ada", address="192.0.2.7")


def new_events(before: set[Any]) -> list[AuditEvent]:
    return list(AuditEvent.objects.exclude(pk__in=before).order_by("id"))


def event_ids() -> set[Any]:
    return set(AuditEvent.objects.values_list("pk", flat=True))


def check_event(case: Case, arranged: Arranged, actor: Actor) -> None:
    """Call in a transaction that is rolled back; the event must be there before, and gone after.

    Raises:
        AssertionError: the event is missing, about something else or by somebody else, or it outlives its write; or
            the events tell otherwise of a watched row than it is.
    """
    call, subject = arranged
    before_ids, before_tables = event_ids(), tables.digests()
    with transaction.atomic():
        rows = story.snapshot()
        result = call()
        row = subject(result) if callable(subject) else subject
        wanted = (case.event, str(row.id))
        events = [event for event in new_events(before_ids) if (event.type, event.subject_id) == wanted]
        assert events, f"no {wanted} among {[(event.type, event.subject_id) for event in new_events(before_ids)]}"
        for event in events:
            assert_by(event, case, actor)
        assert story.untold(rows, story.snapshot(), new_events(before_ids)) == []
        transaction.set_rollback(True)
    assert new_events(before_ids) == []
    assert tables.digests() == before_tables


def assert_by(event: AuditEvent, case: Case, actor: Actor) -> None:
    if case.by:
        assert event.actor_kind == case.by
        return
    person = AuditPerson.objects.get(user_id=actor.id)
    assert (event.actor_kind, event.actor_id) == (str(actor.kind), person.pk)


class TrailIsDown(Exception):
    """The event could not be recorded."""


def check_nothing_without_event(case: Case, arranged: Arranged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call while no event can be recorded; nothing may stay written.

    Raises:
        AssertionError: the service wrote all the same.
    """
    call, _ = arranged
    before = tables.digests()

    def fail(**event: Any) -> None:
        raise TrailIsDown

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", fail)
        with pytest.raises(TrailIsDown):
            call()
    changed = {name for name, digest in tables.digests().items() if digest != before[name]}
    assert changed == set()


@pytest.mark.parametrize("name", CASES)
def test_the_service_leaves_its_event_in_the_transaction_of_its_write(name: str, actor: Actor) -> None:
    case = CASES[name]

    check_event(case, case.arrange(actor), actor)


@pytest.mark.parametrize("name", CASES)
def test_the_service_writes_nothing_when_its_event_cannot_be_recorded(
    name: str, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]

    check_nothing_without_event(case, case.arrange(actor), monkeypatch)


# --- Planted offenders: each of the checks above can fail


class TestPlantedOffenders:
    @pytest.fixture
    def user(self) -> User:
        return UserFactory()

    def arranged(self, service: Callable[..., Any], user: User, actor: Actor) -> Arranged:
        return lambda: service(user=user, actor=actor), user

    @pytest.fixture
    def case(self) -> Case:
        return Case(event="access.role_changed", arrange=lambda actor: (lambda: None, None))

    def test_a_new_service_without_a_case_is_found(self) -> None:
        module = ModuleType("apps.planted.services")
        exec("def rename_everything(*, actor): ...", module.__dict__)

        assert without_case(public_functions([module])) == {"planted.rename_everything"}

    def test_a_service_without_an_event_is_found(self, case: Case, user: User, actor: Actor) -> None:
        def silent(*, user: User, actor: Actor) -> None:
            User.objects.filter(pk=user.pk).update(role=Role.ADMIN)

        with pytest.raises(AssertionError, match=r"no \('access.role_changed'"):
            check_event(case, self.arranged(silent, user, actor), actor)

    def test_an_event_about_something_else_is_found(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def astray(*, user: User, actor: Actor) -> None:
            audit.record(type="access.role_changed", subject=("user", "somebody"), actor=actor)

        with pytest.raises(AssertionError, match="somebody"):
            check_event(case, self.arranged(astray, user, actor), actor)

    def test_an_event_by_somebody_else_is_found(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def disguised(*, user: User, actor: Actor) -> None:
            audit.record(type="access.role_changed", subject=user, actor=actor)  # so that the person exists
            audit.record(type="access.role_changed", subject=user, actor=Actor(kind=ActorKind.SYSTEM))

        with pytest.raises(AssertionError):
            check_event(case, self.arranged(disguised, user, actor), actor)

    def test_an_event_that_leaves_a_column_out_is_found(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def discreet(*, user: User, actor: Actor) -> None:
            before = image(user)
            User.objects.filter(pk=user.pk).update(role=Role.ADMIN, is_superuser=True)
            after = {**before, "role": Role.ADMIN}
            audit.record(type="access.role_changed", subject=user, actor=actor, before=before, after=after)

        with pytest.raises(AssertionError, match="is_superuser is True, and its events say False"):
            check_event(case, self.arranged(discreet, user, actor), actor)

    def test_an_event_that_tells_a_wrong_value_is_found(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def lying(*, user: User, actor: Actor) -> None:
            before = image(user)
            User.objects.filter(pk=user.pk).update(role=Role.ADMIN)
            after = {**before, "role": Role.CURATOR}
            audit.record(type="access.role_changed", subject=user, actor=actor, before=before, after=after)

        with pytest.raises(AssertionError, match="role is 'admin', and its events say 'curator'"):
            check_event(case, self.arranged(lying, user, actor), actor)

    def test_a_change_of_another_row_that_no_event_tells_is_found(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def greedy(*, user: User, actor: Actor) -> None:
            accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=actor)
            User.objects.filter(pk=actor.id).update(is_superuser=True)

        with pytest.raises(AssertionError, match=f"user {actor.id}: is_superuser"):
            check_event(case, self.arranged(greedy, user, actor), actor)

    def test_a_name_that_is_told_wrong_is_found_by_its_digest(self, case: Case, user: User, actor: Actor) -> None:
        @transaction.atomic
        def renaming(*, user: User, actor: Actor) -> None:
            before = image(user)
            User.objects.filter(pk=user.pk).update(email="mallory@example.org")
            after = {**before, "email": Personal(user_id=user.pk, kind="email", value="ada@example.org")}
            audit.record(type="access.role_changed", subject=user, actor=actor, before=before, after=after)

        with pytest.raises(AssertionError, match="email is 'hmac:"):
            check_event(case, self.arranged(renaming, user, actor), actor)

    def test_a_write_that_does_not_wait_for_its_event_is_found(
        self, case: Case, user: User, actor: Actor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hasty(*, user: User, actor: Actor) -> None:
            with transaction.atomic():
                User.objects.filter(pk=user.pk).update(role=Role.ADMIN)
            with transaction.atomic():
                audit.record(type="access.role_changed", subject=user, actor=actor)

        with pytest.raises(AssertionError, match="accounts_user"):
            check_nothing_without_event(case, self.arranged(hasty, user, actor), monkeypatch)
