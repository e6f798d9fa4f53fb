"""Cells of CSV files, and a file that hands lines on."""


class Echo:
    """A file whose write returns what it was given: csv writes lines that a response streams."""

    def write(self, line: str) -> str:
        return line


def safe_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value
