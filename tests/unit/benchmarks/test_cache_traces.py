"""Traces are replayed exactly, and a bad one is told by its line."""

import json
import random
import sys
from collections import OrderedDict
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

import benchmarks
from apps.kernels.cache.config import POLICIES
from benchmarks import cache_traces
from benchmarks.cache_traces import BadTrace, Request, read, refetch_seconds, replay

HEADER = "i,op,key,size,worker\n"


@pytest.fixture
def trace(tmp_path) -> Path:
    """Ten keys of ten bytes: with room for eight, the two that were read first are gone when they are read again."""
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "".join(f"{i},GET,{key},10,{i % 3}\n" for i, key in enumerate("abcdefghaiab")))
    return path


def bench(*options: str) -> str:
    out = StringIO()
    call_command("bench", *options, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_lru_drops_what_was_not_read_for_longest(trace):
    assert replay(read(trace), capacity=80, policy="lru").hits == [False] * 8 + [True, False, True, False]


def test_lru_is_an_exact_lru_of_bytes_that_keeps_out_what_is_above_an_eighth():
    chance = random.Random(5)
    sizes = {str(key): chance.randint(1, 150) for key in range(60)}
    reads = [Request("GET", key, sizes[key]) for key in chance.choices(list(sizes), k=3_000)]
    held: OrderedDict[str, int] = OrderedDict()
    expected = []
    for _, key, size in reads:
        expected.append(key in held)
        if key in held:
            held.move_to_end(key)
        elif size <= 1_000 // 8:
            held[key] = size
            while sum(held.values()) > 1_000:
                held.popitem(last=False)

    assert replay(reads, capacity=1_000, policy="lru").hits == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_put_is_there_and_what_was_deleted_is_not(policy):
    requests = [Request("PUT", "a", 10), Request("GET", "a", 10), Request("DEL", "a", 0), Request("GET", "a", 10)]
    assert replay(requests, capacity=100, policy=policy).hits == [True, False]


def test_hits_are_weighed_by_reads_by_bytes_and_by_the_time_of_a_fetch():
    large = 1 << 20
    outcome = replay(
        [Request("GET", key, size) for key, size in [("a", 10), ("b", large)] * 2], capacity=8, policy="lru"
    )
    assert outcome.ratios() == {"objects": 0.0, "bytes": 0.0, "latency": 0.0}

    outcome.hits[3] = True
    seconds = refetch_seconds(10), refetch_seconds(large)
    assert outcome.by_objects() == 0.25
    assert outcome.by_bytes() == pytest.approx(large / (2 * large + 20))
    assert outcome.by_latency() == pytest.approx(seconds[1] / (2 * sum(seconds)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1"),
        ("i,op,key,size\n", "line 1"),
        (HEADER + "0,GET,a,10\n", "line 2"),
        (HEADER + "0,LOOK,a,10,0\n", "line 2"),
        (HEADER + "0,GET,a,-1,0\n", "line 2"),
        (HEADER + "0,GET,a,0,0\n", "line 2"),
        (HEADER + "0,GET,a,1.5,0\n", "line 2"),
        (HEADER + f"0,GET,a,{'9' * 5_000},0\n", "line 2"),
        (HEADER + "0,DEL,a,-1,0\n", "line 2"),
        (HEADER + "0,GET,a,10,0\n\n", "line 3"),
        (HEADER + "0,GET,a,10,0\n1,GET,a,11,0\n", "line 3"),
    ],
)
def test_a_bad_trace_is_told_by_its_line(tmp_path, text, line):
    path = tmp_path / "trace.csv"
    path.write_text(text)

    with pytest.raises(BadTrace, match=line) as told:
        read(path)

    assert "\n" not in str(told.value)
    with pytest.raises(CommandError, match=line):
        bench("cache", "--trace", str(path), "--capacity", "80")


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTrace, match=r"trace\.csv"):
        read(path)


def test_the_command_prints_the_ratios_of_each_policy_and_writes_the_hits_of_the_one(trace, tmp_path):
    hits = tmp_path / "hits"

    told = json.loads(bench("cache", "--trace", str(trace), "--capacity", "80", "--json").splitlines()[-1])
    assert set(told["hit_ratios"]) == set(POLICIES)
    assert told["hit_ratios"]["lru"]["objects"] == pytest.approx(2 / 12)

    bench("cache", "--trace", str(trace), "--capacity", "80", "--policy", "lru", "--hits", str(hits))
    assert hits.read_text() == "0\n" * 8 + "1\n0\n1\n0\n"
    bench("cache", "--trace", str(trace), "--capacity", "80", "--hits", str(hits))
    shipped = replay(read(trace), capacity=80, policy=POLICIES[0]).hits
    assert hits.read_text() == "".join(f"{hit:d}\n" for hit in shipped)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["cache", "--trace", "away.csv", "--capacity", "80"], "away.csv"),
        (["cache", "--trace", "away.csv"], "--capacity"),
        (["cache", "--trace", "away.csv", "--capacity", "0"], "--capacity"),
        (["cache", "--hits", "hits"], "--hits needs --trace"),
        (["growth", "--seeds", "1-3"], "--seeds is for the area cache"),
        (["cache", "--seeds", "5-1"], "5-1"),
        (["cache", "--seeds", "1,1"], "1,1"),
        (["cache", "--seeds", "0-999999999999"], "at most"),
        (["cache", "--seeds", "one"], "one"),
    ],
)
def test_options_that_make_no_sense_are_told(options, told):
    with pytest.raises(CommandError, match=told):
        bench(*options)


def test_what_a_fetch_takes_grows_with_the_size():
    assert refetch_seconds(cache_traces.BYTES_PER_SECOND) == pytest.approx(cache_traces.BASE_SECONDS + 1.0)


def test_a_package_that_is_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "cachebox", None)
    for name in ("benchmarks.cache", "benchmarks.cache_l1"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(benchmarks, "cache_l1", raising=False)
    with pytest.raises(CommandError, match="needs cachebox: install the extra 'bench'"):
        bench("cache")
