"""What a verification finds."""

from dataclasses import dataclass, field

MAX_FINDINGS = 10_000
"""More are counted, not kept: a trail with so many has been rewritten."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was signed: ``kind`` of thing, which one, and what is wrong with it."""

    kind: str
    id: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}: {self.wrong}"


@dataclass(slots=True)
class Outcome:
    """What a verification saw. ``unchecked`` is what could not be read, such as a copy in a storage that is away."""

    first: int
    size: int
    events: int = 0
    checkpoints: int = 0
    unsealed: int = 0
    findings_count: int = 0
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        return self.findings_count == 0

    def wrong(self, kind: str, id: object, wrong: str) -> None:
        self.findings_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, str(id), wrong))
