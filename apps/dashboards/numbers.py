"""Numbers as people read them. Every missing value is an em dash, never a zero."""

import math
from datetime import timedelta

MISSING = "\u2014"
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
JUST_NOW = 5
AGES = (
    (60, 1, "sec."),
    (3600, 60, "min."),
    (86_400, 3600, "hr."),
    (2_592_000, 86_400, "day"),
    (31_536_000, 2_592_000, "mo."),
    (math.inf, 31_536_000, "yr."),
)
"""(seconds up to which, seconds of one, its word)."""
BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def whole(text: str | None) -> int:
    """A whole number from a query string; anything else is 0."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


def count(value: object) -> str:
    """12345 -> '12,345'."""
    number = _number(value)
    return MISSING if number is None else f"{number:,.0f}"


def signed(value: object) -> str:
    """1234 -> '+1,234'; zero has no sign."""
    number = _number(value)
    if number is None:
        return MISSING
    return "\u00b10" if number == 0 else f"{number:+,.0f}".replace("-", "\u2212")


def percent(value: object, digits: int = 1) -> str:
    """A share in 0..1: .9612 -> '96.1 %'."""
    number = _number(value)
    return MISSING if number is None else f"{number * 100:.{digits}f}\u00a0%"


def points(value: object, digits: int = 1) -> str:
    """A difference of two shares, in percentage points: .004 -> '+0.4 pp'."""
    number = _number(value)
    return MISSING if number is None else f"{number * 100:+.{digits}f}\u00a0pp".replace("-", "\u2212")


def scaled(value: object, unit: str = "") -> str:
    """3.1e9, 'FLOP' -> '3.1 GFLOP', three significant digits."""
    number = _number(value)
    if number is None:
        return MISSING
    for size, prefix in PREFIXES:
        if abs(number) >= size:
            return f"{number / size:.3g}\u00a0{prefix}{unit}"
    return f"{number:.3g}\u00a0{unit}".rstrip("\u00a0")


def size(value: object) -> str:
    """Bytes: 2048 -> '2.0 KiB'."""
    number = _number(value)
    if number is None:
        return MISSING
    for bytes_, unit in BYTES:
        if number >= bytes_:
            return f"{number / bytes_:.1f}\u00a0{unit}"
    return f"{number:.0f}\u00a0B"


def signed_size(value: object) -> str:
    """Bytes that came or went: -2048 -> '\u22122.0 KiB'; none has no sign."""
    number = _number(value)
    if number is None:
        return MISSING
    sign = "+" if number > 0 else "\u2212" if number < 0 else "\u00b1"
    return sign + size(abs(number))


def plain(value: object) -> str:
    """Any measured number: four significant digits, or fixed for whole ones."""
    number = _number(value)
    if number is None:
        return MISSING
    if number == int(number) and abs(number) < 1e7:
        return f"{number:,.0f}".replace("-", "\u2212")
    return f"{number:.4g}".replace("-", "\u2212")


def fixed(value: object, digits: int = 4) -> str:
    """A fixed number of decimals, for columns that are compared; more where a small number would show as zero."""
    number = _number(value)
    if number is None:
        return MISSING
    if 0 < abs(number) < 10**-digits:
        digits = min(12, 1 - math.floor(math.log10(abs(number))))
    return f"{number:.{digits}f}".replace("-", "\u2212")


def nats(value: object) -> str:
    """A loss, a gain or a rent, with its unit."""
    text = fixed(value)
    return text if text == MISSING else f"{text}\u00a0nats"


def latency(value: object) -> str:
    """Milliseconds: .0123 -> '12.3 \u00b5s', 1234 -> '1.23 s'."""
    number = _number(value)
    if number is None:
        return MISSING
    for least, factor, unit in ((1000, 1e-3, "s"), (1, 1, "ms"), (0, 1e3, "\u00b5s")):
        if number >= least:
            return f"{number * factor:.3g}\u00a0{unit}"
    return MISSING


def seconds(value: object) -> str:
    """Seconds of any length: .0123 -> '12.3 ms', 1.234 -> '1.23 s', 240 -> '4 min'."""
    number = _number(value)
    if number is None:
        return MISSING
    return duration(number) if number >= 60 else latency(number * 1000)


def duration(value: object) -> str:
    """A timedelta or seconds: '1 h 04 min', '12 min', '3.2 s'."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value)
    if seconds is None or seconds < 0:
        return MISSING
    if seconds < 60:
        return f"{seconds:.3g}\u00a0s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}\u00a0h {minutes:02d}\u00a0min" if hours else f"{minutes}\u00a0min"


def ago(seconds: float) -> str:
    """90 -> '2 min. ago', -90 -> 'in 2 min.': the words of Intl.RelativeTimeFormat("en", {style: "short"})."""
    long = abs(seconds)
    if long < JUST_NOW:
        return "just now"
    size, word = next((size, word) for limit, size, word in AGES if long < limit)
    number = math.floor(-seconds / size + 0.5)  # as Math.round does
    told = f"{abs(number)} {word}{'s' if word == 'day' and abs(number) != 1 else ''}"
    return f"in {told}" if number > 0 else f"{told} ago"
