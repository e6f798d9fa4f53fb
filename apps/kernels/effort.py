"""How much each pipeline measures, as data: the sandbox's child and its parent read it.

Every pipeline makes every check. Repetitions find what one look may miss (a shape that breaks, a build that depends on
the global generator, a timing that something else disturbed); they never lower a threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The repetitions of one pipeline."""

    probes: tuple[tuple[int, int], ...]
    """(samples N, side H = W) of each probe. No probe has more positions than the first: what fits the sandbox's memory
    in the fast pipeline fits it in all."""
    builds: int
    """Builds after the first whose bytes must equal it, each under another state of the global generator."""
    rounds: int
    """Benchmark rounds, each with its own baseline; the spread is over rounds."""
    round_s: float
    """Seconds for each timing of a round."""
    makes_variants: bool = False


_STANDARD = Effort(probes=((8, 8), (2, 5), (3, 13), (32, 4)), builds=3, rounds=9, round_s=0.04)

EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(probes=((8, 8),), builds=1, rounds=3, round_s=0.016),
    "standard": _STANDARD,
    "aggressive": replace(_STANDARD, makes_variants=True),
    "warm_up": Effort(probes=((8, 8),), builds=1, rounds=1, round_s=0.0),
}
"""By pipeline; ``warm_up`` is what the sandbox's child does before it seals itself."""
