"""The life of a compliance report, and which reports there are."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle


class ReportState(StrEnum):
    QUEUED = "QUEUED"
    READY = "READY"
    FAILED = "FAILED"


class ReportKind(StrEnum):
    """``access``: who came in and who was refused; ``change``: what was changed; ``retention``: what was let go;
    ``privileges``: who might do what at a time; ``provenance``: where one kernel comes from."""

    ACCESS = "access"
    CHANGE = "change"
    RETENTION = "retention"
    PRIVILEGES = "privileges"
    PROVENANCE = "provenance"


REPORT_LIFECYCLE = Lifecycle.of(
    "report",
    initial=[ReportState.QUEUED],
    transitions=[(ReportState.QUEUED, ReportState.READY), (ReportState.QUEUED, ReportState.FAILED)],
)
