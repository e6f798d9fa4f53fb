"""Traces are replayed exactly, and a bad one is told by its line."""

import pytest

from benchmarks.cache_traces import BadTrace, read, replay

HEADER = "i,op,key,size,worker\n"


def test_lru_drops_what_was_not_read_for_longest(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(HEADER + "".join(f"0,GET,{key},10,0\n" for key in "abcdefghaiab"))
    assert replay(read(trace), capacity=80, policy="lru").hits == [False] * 8 + [True, False, True, False]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1"),
        ("i,op,key,size\n", "line 1"),
        (HEADER + "0,GET,a,10\n", "line 2"),
        (HEADER + "0,LOOK,a,10,0\n", "line 2"),
        (HEADER + "0,GET,a,-1,0\n", "line 2"),
        (HEADER + "0,GET,a,10,0\n1,GET,a,11,0\n", "line 3"),
    ],
)
def test_a_bad_trace_is_told_by_its_line(tmp_path, text, line):
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(BadTrace, match=line):
        read(trace)
