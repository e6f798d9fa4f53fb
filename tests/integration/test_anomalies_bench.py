"""`manage.py bench anomalies`: its rows, and a corpus in the layout of NAB, right or wrong."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from django.core.management.base import CommandError

from benchmarks import anomalies, anomalies_corpus, anomalies_curves
from benchmarks.anomalies_streams import Stream, streams

START = 1_396_310_400.0


def text(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def noise_with_a_peak(name, *, seed):
    values = np.random.default_rng(seed).normal(10, 1, 1000)
    values[700] = 40
    times = START + 300.0 * np.arange(1000)
    return Stream(name=name, family=name.partition("/")[0], times=times, values=values, windows=((650, 749),))


@pytest.fixture
def corpus(tmp_path):
    """Four streams, two a family."""
    labels = {}
    for seed, name in enumerate(("cloud/a.csv", "cloud/b.csv", "tweets/c.csv", "tweets/d.csv")):
        stream = noise_with_a_peak(name, seed=seed)
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{text(at)},{value!r}" for at, value in zip(stream.times, stream.values.tolist(), strict=True)]
        path.write_text("\n".join(["timestamp,value", *rows]))
        labels[name] = [[f"{text(stream.times[edge])}.000000" for edge in window] for window in stream.windows]
    write_labels(tmp_path, labels)
    return tmp_path


def write_labels(corpus, labels):
    (corpus / "labels").mkdir(exist_ok=True)
    (corpus / "labels" / "combined_windows.json").write_text(json.dumps(labels))


def test_a_corpus_is_read_as_it_was_written(corpus):
    found = anomalies_corpus.read(corpus)

    assert [stream.name for stream in found] == ["cloud/a.csv", "cloud/b.csv", "tweets/c.csv", "tweets/d.csv"]
    expected = noise_with_a_peak("cloud/a.csv", seed=0)
    assert found[0].windows == expected.windows
    assert found[0].times.tolist() == expected.times.tolist()
    assert found[0].values.tolist() == expected.values.tolist()


def test_every_row_is_measured_on_a_corpus(corpus, monkeypatch):
    few = anomalies_curves.halves()[1][:10]
    monkeypatch.setattr(anomalies_curves, "halves", lambda: ([], few))
    monkeypatch.setattr(anomalies.anomalies_streams, "streams", lambda seed: [noise_with_a_peak("x", seed=seed)])

    result = anomalies.run(quick=True, say=str, corpus=corpus)

    rows = {row["name"]: row for row in result["targets"]}
    assert rows["false_alarms_healthy_curves"]["reached"]
    assert rows["nab_standard_scoreboard"]["value"] > 80
    assert rows["nab_standard_half_against_half"]["n"] == anomalies.HALVINGS
    assert result["corpus"]["all"]["hit"] == result["corpus"]["windows"] == 4
    assert set(result["corpus"]["families"]) == {"cloud", "tweets"}
    json.dumps(result, allow_nan=False)
    table = anomalies.table(result)
    assert "reached nab_standard_scoreboard" in table
    assert "ours, refractory 200" in table


def test_without_a_corpus_its_rows_are_not_measured():
    rows = {row["name"]: row for row in anomalies.targets.rows("anomalies", {})}

    assert rows["nab_standard_scoreboard"]["value"] is None
    assert not rows["nab_standard_scoreboard"]["reached"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda corpus: (corpus / "labels/combined_windows.json").unlink(), "combined_windows.json cannot be read"),
        (lambda corpus: (corpus / "labels/combined_windows.json").write_text("{"), "is no JSON"),
        (lambda corpus: write_labels(corpus, []), "must be an object"),
        (
            lambda corpus: write_labels(corpus, {"cloud/a.csv": [["2014-04-01"]]}),
            "windows of cloud/a.csv must be pairs",
        ),
        (lambda corpus: write_labels(corpus, {"cloud/x.csv": []}), "x.csv cannot be read"),
        (lambda corpus: write_labels(corpus, {"../labels/combined_windows.json": []}), "lies outside"),
        (lambda corpus: write_labels(corpus, {"cloud/a.csv": [["2014-04-01 00:01:00"] * 2]}), "is not of rows of"),
        (
            lambda corpus: write_labels(corpus, {"cloud/a.csv": [["2014-04-01 00:10:00", "2014-04-01 00:05:00"]]}),
            "ends before it begins",
        ),
        (lambda corpus: (corpus / "data/cloud/a.csv").write_text("time,value\n1,2"), "line 2: needs timestamp"),
        (lambda corpus: (corpus / "data/cloud/a.csv").write_text("timestamp,value\n2014-04-01,x"), "line 2: needs"),
        (lambda corpus: (corpus / "data/cloud/a.csv").write_text("timestamp,value\n"), "has no rows"),
        (lambda corpus: (corpus / "data/cloud/a.csv").write_bytes(b"timestamp,value\n\xff"), "is no CSV"),
    ],
)
def test_a_folder_that_is_no_corpus_is_told_of(corpus, spoil, told):
    spoil(corpus)

    with pytest.raises(CommandError, match=told):
        anomalies_corpus.read(corpus)


def test_generated_streams_are_the_same_for_the_same_seed():
    first, again, other = (streams(seed) for seed in (5, 5, 6))

    assert all((a.values == b.values).all() and a.windows == b.windows for a, b in zip(first, again, strict=True))
    assert any((a.values != b.values).any() for a, b in zip(first, other, strict=True))
    assert {stream.family for stream in first} == {"none", "artificial", "cloud", "ads", "known", "traffic", "tweets"}
    for stream in first:
        assert np.isfinite(stream.values).all()
        assert all(0 <= start < end < len(stream.values) for start, end in stream.windows)
