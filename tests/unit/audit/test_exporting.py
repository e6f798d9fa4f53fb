"""CSV that no spreadsheet computes, and files that say that they are whole."""

import csv
import io
import json

import pytest

from apps.audit.exporting import json_lines, safe_cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "\uff1d1+1"]
)
def test_what_a_spreadsheet_would_compute_becomes_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "kernel", "1=1", " =1", "'=1", "0.5", "[]", "{}"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


@pytest.mark.parametrize("text", ['a"b', "a,b", "a\nb", '=",1'])
def test_a_cell_keeps_its_bounds(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([safe_cell(text), "next"])

    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [[safe_cell(text), "next"]]


def test_the_last_line_counts_the_lines_before_it() -> None:
    *lines, end = json_lines([{"id": "a"}, {"id": "b"}])

    assert [json.loads(line) for line in lines] == [{"id": "a"}, {"id": "b"}]
    assert json.loads(end) == {"end": True, "events": 2}


def test_a_file_that_breaks_off_has_no_last_line() -> None:
    def broken() -> object:
        yield {"id": "a"}
        raise OSError("away")

    lines = json_lines(broken())  # type: ignore[arg-type]

    assert json.loads(next(lines)) == {"id": "a"}
    with pytest.raises(OSError, match="away"):
        next(lines)
