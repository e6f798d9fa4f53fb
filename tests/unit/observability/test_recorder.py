"""The recorder: nothing waits in the loop, nothing is lost that fits, nothing that a sink does comes back."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from apps.observability import recorder as module
from apps.observability.recorder import LOOP_CAPACITY, Entry, Recorded, Recorder, thinned
from tests.support.forking import in_another_process
from tests.support.waiting import wait_until


class Store:
    """A sink that fails, or stays silent, on demand."""

    def __init__(self) -> None:
        self.taken: list[Recorded] = []
        self.fails = False
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, batch: Sequence[Recorded]) -> None:
        self.answers.wait()
        if self.fails:
            raise OSError("the database is away")
        self.taken.extend(batch)

    @property
    def values(self) -> list[float]:
        return [recorded.value for recorded in self.taken]


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.answers.set()


@pytest.fixture
def recorder(store: Store) -> Iterator[Recorder]:
    """Flushed by the test alone, and thins nothing."""
    with ExitStack() as stack:
        made = Recorder(store, flush_seconds=3600, resolution_seconds=0)
        stack.callback(made.close)
        yield made


def test_a_value_arrives_with_its_series_and_its_time(recorder: Recorder, store: Store) -> None:
    recorder.series("esper_run_train_loss", run="a").record(0.5)

    assert recorder.flush()

    (recorded,) = store.taken
    assert (recorded.name, recorded.labels, recorded.value) == ("esper_run_train_loss", {"run": "a"}, 0.5)
    assert recorded.at > 1_700_000_000


def test_the_same_series_is_one_handle(recorder: Recorder) -> None:
    assert recorder.series("x", run="a") is recorder.series("x", run="a")
    assert recorder.series("x", run="a") is not recorder.series("x", run="b")


def test_the_thread_flushes_by_itself(store: Store) -> None:
    recorder = Recorder(store, flush_seconds=0.01, resolution_seconds=0)
    recorder.series("x").record(1.0)

    wait_until(lambda: store.values == [1.0], seconds=10)
    recorder.close()


def test_closing_hands_over_what_is_left(recorder: Recorder, store: Store) -> None:
    recorder.series("x").record(1.0)

    recorder.close()

    assert store.values == [1.0]


def test_a_sink_that_fails_gets_everything_later_in_its_order(recorder: Recorder, store: Store) -> None:
    series = recorder.series("x")
    store.fails = True
    series.record(1.0)
    assert not recorder.flush()
    series.record(2.0)
    store.fails = False

    assert recorder.flush()

    assert store.values == [1.0, 2.0]
    assert recorder.dropped == 0


def test_more_than_fits_between_two_flushes_drops_the_oldest_and_counts_them(recorder: Recorder, store: Store) -> None:
    series = recorder.series("x")
    for value in range(LOOP_CAPACITY + 3):
        series.record(value)

    recorder.flush()

    assert store.values == list(range(3, LOOP_CAPACITY + 3))
    assert recorder.dropped == 3


def test_more_than_may_wait_for_a_failing_sink_drops_the_oldest_and_tells(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_CAPACITY", 2)
    told: list[int] = []
    recorder = Recorder(store, flush_seconds=3600, resolution_seconds=0, on_dropped=told.append)
    store.fails = True
    for value in (1.0, 2.0, 3.0):
        recorder.series("x").record(value)
    recorder.flush()
    store.fails = False

    recorder.close()

    assert store.values == [2.0, 3.0]
    assert told == [1]


def test_a_sink_that_hangs_holds_up_neither_the_loop_nor_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    store.answers.clear()
    recorder = Recorder(store, flush_seconds=0.001)
    series = recorder.series("x")
    series.record(1.0)

    recorder.close()
    series.record(2.0)

    assert store.values == []


def test_a_forked_child_neither_sends_what_is_its_parents_nor_hangs(recorder: Recorder, store: Store) -> None:
    recorder.series("x").record(1.0)

    def record_in_the_child() -> None:
        recorder.series("x").record(2.0)
        recorder.close()
        assert store.values == [2.0]

    in_another_process(record_in_the_child)
    recorder.close()

    assert store.values == [1.0]


class TestThinning:
    def test_the_last_value_of_each_stretch_is_kept(self) -> None:
        entries = [Entry(n, at, at) for n, at in enumerate((0.1, 1.9, 2.0, 5.0))]

        assert [entry.at for entry in thinned(entries, 2.0)] == [1.9, 2.0, 5.0]

    def test_a_value_that_is_no_number_goes_before_those_after_it(self) -> None:
        entries = [Entry(0, 0.1, math.nan), Entry(1, 0.2, 1.0)]

        (kept,) = thinned(entries, 2.0)

        assert math.isnan(kept.value)
