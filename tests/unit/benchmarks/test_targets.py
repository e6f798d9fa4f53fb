"""The rows that a bench prints: every target of its area, measured or not."""

import tomllib

from benchmarks.targets import TARGETS, Measurement, rows


def test_every_row_of_an_area_is_printed_and_an_unmeasured_one_is_not_reached() -> None:
    printed = rows("audit", {"seal_rate": Measurement(value=20_000.0, n=5, spread=10.0)})

    wanted = [target for target in tomllib.loads(TARGETS.read_text())["target"] if target["area"] == "audit"]
    assert [row["name"] for row in printed] == [target["name"] for target in wanted]
    by_name = {row["name"]: row for row in printed}
    assert by_name["seal_rate"]["reached"] is True
    assert by_name["verify_rate"] == {
        "name": "verify_rate",
        "value": None,
        "op": ">=",
        "target": 20000,
        "unit": "events/s",
        "reached": False,
        "n": 0,
        "spread": None,
    }


def test_a_figure_on_the_wrong_side_of_its_target_is_not_reached() -> None:
    (row,) = [row for row in rows("audit", {"seal_rate": Measurement(value=9_999.0, n=5, spread=0.0)}) if row["n"]]

    assert row["reached"] is False
