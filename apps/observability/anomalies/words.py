"""What the detector found, in words."""

SENTENCES = {
    "extreme": "{value} is {side} everything seen in the last {span} ({low} to {high})",
    "shift": "the mean has moved: {value} now, {low} to {high} in the last {span}",
    "sequence": "{value} does not follow on what came before, as it did in the last {span}",
    "activity": "{value}: it moves much more or much less than in the last {span}",
    "season": "{value} is not what this time of the day brings ({low} to {high} in the last {span})",
}
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def sentence(component: str, value: float, low: float | None, high: float | None, *, seconds: float) -> str:
    """Why ``component`` finds ``value`` odd; ``seconds`` are how long the stream is known."""
    side = "above" if high is not None and value > high else "below"
    return SENTENCES[component].format(
        value=number(value), low=number(low), high=number(high), side=side, span=duration(seconds)
    )


def number(value: float | None) -> str:
    """Four digits: enough to recognise a value."""
    return "?" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """In the largest unit that it fills: "6 h"."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
