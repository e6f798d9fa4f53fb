"""When a group of alerts is told of, and what: after Alertmanager's rules."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from apps.core.ids import new_id
from apps.observability.delivery.grouping import Message, decide, group_key, is_over
from apps.observability.lifecycle import NotificationState
from apps.observability.models import Alert, AlertRoute, Notification

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
WORKSPACE = UUID(int=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def route(**values: Any) -> AlertRoute:
    """Waits 30 s, then 300 s between changes, and repeats after an hour."""
    return AlertRoute(workspace_id=WORKSPACE, **{"name": "ops", "repeat_interval_seconds": 3600, **values})


def alert(fingerprint: str = "a", *, fired: float = 0, acknowledged: float | None = None) -> Alert:
    return Alert(
        workspace_id=WORKSPACE,
        fingerprint=fingerprint,
        started_at=at(fired),
        fired_at=at(fired),
        acknowledged_at=None if acknowledged is None else at(acknowledged),
    )


def told(*alerts: Alert, when: float = 30, state: NotificationState = NotificationState.DELIVERED) -> Notification:
    """The newest message of the group, which told of these as firing."""
    return Notification(created_at=at(when), state=state, open_alerts=[one.pk for one in alerts])


def ended(*alerts: Alert) -> dict[UUID, Alert]:
    return {one.pk: one for one in alerts}


def decided(
    firing: list[Alert],
    seconds: float,
    *,
    last: Notification | None = None,
    over: tuple[Alert, ...] = (),
    **values: Any,
) -> Message | None:
    return decide(route(**values), firing, last, ended(*over), at(seconds))


class TestTheFirstMessage:
    def test_waits_so_that_what_belongs_together_comes_together(self) -> None:
        first, second = alert("a"), alert("b", fired=20)

        assert decided([first], 29) is None
        message = decided([first, second], 30)
        assert message is not None
        assert message.firing == (first, second)
        assert set(message.open_ids) == {first.pk, second.pk}

    def test_is_not_sent_for_what_somebody_has_acknowledged(self) -> None:
        assert decided([alert(acknowledged=5)], 100) is None


class TestNews:
    def test_of_another_alert_wait_for_the_interval_and_tell_of_all(self) -> None:
        first, second = alert("a"), alert("b", fired=100)

        assert decided([first, second], 329, last=told(first)) is None
        message = decided([first, second], 330, last=told(first))
        assert message is not None
        assert message.firing == (first, second)

    def test_that_somebody_has_acknowledged_are_none(self) -> None:
        first, second = alert("a"), alert("b", fired=100, acknowledged=110)

        assert decided([first, second], 400, last=told(first)) is None

    def test_of_an_end_tell_what_is_over_and_what_still_fires(self) -> None:
        first, second = alert("a"), alert("b")

        message = decided([second], 330, last=told(first, second), over=(first,))

        assert message == Message(firing=(second,), resolved=(first,), open_ids=(second.pk,))

    def test_of_the_last_end_close_the_group(self) -> None:
        only = alert()

        assert decided([], 329, last=told(only), over=(only,)) is None
        assert decided([], 330, last=told(only), over=(only,)) == Message(firing=(), resolved=(only,), open_ids=())

    def test_of_an_end_are_kept_from_a_route_that_does_not_want_them(self) -> None:
        first, second = alert("a"), alert("b")

        assert decided([second], 400, last=told(first, second), over=(first,), send_resolved=False) is None
        assert decided([], 400, last=told(first), over=(first,), send_resolved=False) is None

    def test_call_nothing_over_that_fires_again(self) -> None:
        before, again = alert("a"), alert("a", fired=200)

        message = decided([again], 330, last=told(before), over=(before,))

        assert message == Message(firing=(again,), resolved=(), open_ids=(again.pk,))


class TestRepetition:
    def test_comes_after_the_repeat_interval_without_news(self) -> None:
        only = alert()

        assert decided([only], 3629, last=told(only)) is None
        assert decided([only], 3630, last=told(only)) == Message(firing=(only,), resolved=(), open_ids=(only.pk,))

    def test_ends_when_every_alert_is_acknowledged(self) -> None:
        first, second = alert("a", acknowledged=60), alert("b")

        assert decided([first, second], 3700, last=told(first, second)) is not None
        second.acknowledged_at = at(70)
        assert decided([first, second], 3700, last=told(first, second)) is None


class TestMutedAlerts:
    """They are not among those that fire."""

    def test_are_not_called_over_and_not_repeated(self) -> None:
        silenced = alert()

        assert decided([], 10_000, last=told(silenced)) is None

    def test_end_for_whom_they_began(self) -> None:
        silenced = alert()

        message = decided([], 330, last=told(silenced), over=(silenced,))

        assert message is not None
        assert message.resolved == (silenced,)

    def test_stay_known_while_others_are_told_of(self) -> None:
        silenced, other = alert("a"), alert("b", fired=100)

        message = decided([other], 330, last=told(silenced))

        assert message is not None
        assert message.firing == (other,)
        assert set(message.open_ids) == {silenced.pk, other.pk}


class TestOneMessageAtATime:
    def test_news_wait_for_a_message_that_is_under_way(self) -> None:
        first, second = alert("a"), alert("b", fired=100)

        for state in (NotificationState.PENDING, NotificationState.SENDING):
            assert decided([first, second], 10_000, last=told(first, state=state)) is None

    def test_one_that_was_given_up_is_told_anew_after_half_an_hour(self) -> None:
        only = alert()
        given_up = told(only, state=NotificationState.FAILED)

        assert decided([only], 1829, last=given_up, repeat_interval_seconds=86_400) is None
        assert decided([only], 1830, last=given_up, repeat_interval_seconds=86_400) is not None

    def test_one_that_was_given_up_holds_news_back_for_the_interval_only(self) -> None:
        first, second = alert("a"), alert("b", fired=100)
        given_up = told(first, state=NotificationState.FAILED)

        assert decided([first, second], 329, last=given_up) is None
        assert decided([first, second], 330, last=given_up) is not None

    def test_a_group_that_begins_anew_still_keeps_the_interval(self) -> None:
        before, later = alert("a"), alert("b", fired=40)

        assert decided([later], 329, last=told(before), over=(before,), send_resolved=False) is None
        assert decided([later], 330, last=told(before), over=(before,), send_resolved=False) is not None


class TestAGroupOfARouteThatHearsOfNoEnd:
    ROUTE = route(send_resolved=False)

    def test_is_over_when_all_has_ended_and_its_interval_too(self) -> None:
        only = alert()

        assert not is_over(self.ROUTE, told(only), ended(only), at(329))
        assert is_over(self.ROUTE, told(only), ended(only), at(330))

    def test_is_not_over_while_something_fires_or_its_message_is_under_way(self) -> None:
        first, second = alert("a"), alert("b")

        assert not is_over(self.ROUTE, told(first, second), ended(first), at(10_000))
        assert not is_over(self.ROUTE, told(first, state=NotificationState.PENDING), ended(first), at(10_000))

    def test_another_route_is_told_of_the_end_instead(self) -> None:
        only = alert()

        assert not is_over(route(), told(only), ended(only), at(10_000))


def test_a_group_is_the_same_whatever_the_order_of_its_labels() -> None:
    one = AlertRoute(pk=new_id(), workspace_id=WORKSPACE)

    assert group_key(one, {"a": "1", "b": "2"}) == group_key(one, {"b": "2", "a": "1"})
    assert group_key(one, {"a": "1"}) != group_key(one, {"a": "2"})
    assert group_key(one, {}) != group_key(AlertRoute(pk=new_id(), workspace_id=WORKSPACE), {})
