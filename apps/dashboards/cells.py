"""CSV files: their cells, and answers that stream them."""

import csv
from collections.abc import Iterable, Iterator, Sequence

from django.http import StreamingHttpResponse


class Echo:
    """A file whose write returns what it was given: csv writes lines that a response streams."""

    def write(self, line: str) -> str:
        return line


def safe_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


def csv_file_of(name: str, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> StreamingHttpResponse:
    """A download called ``name`` with ``titles`` as its first line, as long as ``rows`` are."""
    response = StreamingHttpResponse(_lines(titles, rows), content_type="text/csv")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _lines(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    writer = csv.writer(Echo())
    yield writer.writerow(titles)
    for row in rows:
        yield writer.writerow([safe_cell(value) for value in row])
