"""Where one kernel comes from: its own events, those of its design, and the runs that it grew in. Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from heapq import merge
from operator import itemgetter
from typing import Any

from apps.audit.reading import Event, Read, Row, Wanted, changed, event_row
from apps.audit.verifier import canonical_json

CHECKS = ("compile", "validation")
ARTEFACT = ("kernel.compiled", "kernel.uploaded")


def provenance(read: Read, parameters: Mapping[str, str]) -> Iterator[Row]:
    """Every event of the kernel, of its blueprint version and of its blueprint; then the statement of what they say."""
    kernel = parameters["kernel"]
    own = list(read(_about("kernel", kernel)))
    version = _first(own, "blueprint_version_id")
    design = list(read(_about("blueprint_version", version))) if version else []
    blueprint = _first(design, "blueprint_id")
    origin = list(read(_about("blueprint", blueprint))) if blueprint else []
    for event in merge(own, design, origin, key=itemgetter("index")):
        yield {**event_row(event, diff=True), "facts": facts(event)}
    yield {
        "summary": {
            "kernel": {"id": kernel, **_told(own, ("name", "bindings", "operator", "state"))},
            "blueprint_version": {"id": version, **_told(design, ("number", "digest", "state"))},
            "blueprint": {"id": blueprint, **_told(origin, ("name", "title"))},
            "artefact": _artefact(own),
            "reports": _reports(own),
            "runs": [_run(event) for event in own if event["type"] == "kernel.field_report"],
        }
    }


def _about(subject_type: str, subject_id: str) -> Wanted:
    return Wanted(types=("*",), subject_type=subject_type, subject_id=subject_id)


def facts(event: Event) -> Row:
    """What the event proves by digest: reports are long, and their events hold them."""
    found: Row = {f"{name}_report_sha256": digest(report) for name, report in _checks(event).items()}
    if event["type"] == "kernel.field_report":
        found["run"] = _run(event)["run"]
    return found


def digest(report: Any) -> str:
    """SHA-256 of the canonical JSON of a report, as its event holds it."""
    return hashlib.sha256(canonical_json(report)).hexdigest()


def _checks(event: Event) -> Row:
    """The compile and the validation report that the event carries, where it does."""
    report = event["payload"].get("report") or changed(event).get("report")
    return {name: report[name] for name in CHECKS if name in report} if isinstance(report, dict) else {}


def _first(events: list[Event], column: str) -> str:
    return next((str(values[column]) for event in events if (values := changed(event)).get(column)), "")


def _told(events: list[Event], columns: tuple[str, ...]) -> Row:
    """The last value that the events gave each column, with the leaf of the first event."""
    found: Row = {"index": events[0]["index"]} if events else {}
    for event in events:
        values = changed(event)
        found |= {name: values[name] for name in columns if name in values}
    return found


def _artefact(events: list[Event]) -> Row:
    """The digest of the kernel's bytes, and the event that made them its bytes."""
    for event in events:
        sha256 = changed(event).get("digest")
        if event["type"] in ARTEFACT and sha256:
            return {"sha256": sha256, "how": event["type"].partition(".")[2], "index": event["index"]}
    return {}


def _reports(events: list[Event]) -> Row:
    """The digest of each report as it was last told."""
    found: Row = {}
    for event in events:
        found |= {name: {"sha256": digest(told), "index": event["index"]} for name, told in _checks(event).items()}
    return found


def _run(event: Event) -> Row:
    told = event["payload"]
    names = ("seed", "site", "verdict", "contribution", "contribution_low", "contribution_high")
    return {
        "index": event["index"],
        "run": told.get("run") or told.get("run_id", ""),
        **{name: told[name] for name in names if name in told},
    }
