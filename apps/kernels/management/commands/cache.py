"""`manage.py cache stats|plan|apply|cancel|warm|relay`: the kernel cache by hand, for operators."""

import json
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone
from rich.console import Console
from rich.table import Table

from apps.core.actors import SYSTEM
from apps.core.console import progress_bar
from apps.core.errors import Conflict, ServiceError
from apps.core.ids import parse_id
from apps.kernels import services
from apps.kernels.api.cache_forms import CachePlanDetail, told
from apps.kernels.cache import relay, reporting
from apps.kernels.cache.config import config
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import CacheOutbox, CachePlan, CachePlanKind

Answer = tuple[dict[str, Any], str]
SHOWN = 20
"""Moves that are printed; --json has all."""
POLL_SECONDS = 0.25
BATCH = 100
"""Rows between two moves of the progress bar."""


class Command(BaseCommand):
    help = "What the tiers of the kernel cache did; plans to move bytes between them; what is owed to them."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True, metavar="|".join(STEPS))
        stats = steps.add_parser("stats", help="what each tier did, and how the cache is now")
        stats.add_argument("--window", choices=reporting.WINDOWS, default="1h", help="of the past (default: 1h)")
        plan = steps.add_parser("plan", help="write down what the cache would move, and why; nothing is moved")
        plan.add_argument(
            "--kind", choices=CachePlanKind.values, default=CachePlanKind.OPTIMISE, help="default: optimise"
        )
        apply = steps.add_parser("apply", help="make the moves of a plan")
        cancel = steps.add_parser("cancel", help="give a plan up; what it has moved already stays moved")
        for step in (apply, cancel):
            step.add_argument("plan", metavar="PLAN", help="its id")
        warm = steps.add_parser("warm", help="load what is read most into L2, and then into the L1 of each process")
        for step in (plan, apply, cancel, warm):
            step.add_argument("--reason", default="by hand", help="why: it stands in the trail")
        relay = steps.add_parser("relay", help="do now what committed writes owe to the other tiers")
        for step in (stats, plan, apply, cancel, warm, relay):
            step.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, step: str, json: bool, **options: Any) -> None:
        config()  # a wrong setting is told here, before anything is done
        try:
            answer, text = STEPS[step](options)
        except ServiceError as error:
            raise CommandError(error.detail) from None
        self.stdout.write(_dumped(answer) if json else text)
        if answer.get("state") in {CachePlanState.FAILED, CachePlanState.CANCELLED} and step != "cancel":
            raise CommandError(f"the plan is {answer['state']}: {answer['problem'] or 'somebody gave it up'}")


def _dumped(answer: dict[str, Any]) -> str:
    return json.dumps(answer, cls=DjangoJSONEncoder)


# --- Plans


def _plan(options: dict[str, Any]) -> Answer:
    return _told(services.plan_cache(kind=options["kind"], actor=SYSTEM, reason=options["reason"]))


def _apply(options: dict[str, Any]) -> Answer:
    return _told(_carried_out(_found(options["plan"]), options["reason"]))


def _cancel(options: dict[str, Any]) -> Answer:
    return _told(services.cancel_cache_plan(plan=_found(options["plan"]), actor=SYSTEM, reason=options["reason"]))


def _warm(options: dict[str, Any]) -> Answer:
    plan = services.plan_cache(kind=CachePlanKind.WARM, actor=SYSTEM, reason=options["reason"])
    return _told(_carried_out(plan, options["reason"]))


def _found(given: str) -> CachePlan:
    key = parse_id(given)
    plan = CachePlan.objects.filter(pk=key).first() if key else None
    if plan is None:
        raise CommandError(f"there is no plan {given}; give the id that `manage.py cache plan` printed")
    return plan


def _carried_out(plan: CachePlan, reason: str) -> CachePlan:
    """Make the moves here; where a worker was faster, watch it. If it dies, its moves are made here too."""
    plan = services.apply_cache_plan(plan=plan, actor=SYSTEM, reason=reason)
    try:
        return _watched(plan)
    except KeyboardInterrupt:
        raise CommandError(
            f"interrupted: a worker goes on with the plan; `manage.py cache cancel {plan.pk}` stops it"
        ) from None


def _watched(plan: CachePlan) -> CachePlan:
    with progress_bar("moves") as progress:
        while plan.state == CachePlanState.APPLYING:
            try:
                plan = services.carry_out_cache_plan(plan=plan, actor=SYSTEM, progress=progress)
            except Conflict:
                threading.Event().wait(POLL_SECONDS)
                plan.refresh_from_db()
                progress(plan.done, len(plan.moves))
    return plan


def _told(plan: CachePlan) -> Answer:
    moved = sum(move["bytes"] for move in plan.moves)
    lines = [f"plan {plan.pk} to {plan.kind} is {plan.state}: {len(plan.moves)} moves, {moved:,} B"]
    lines += [f"  {move['name']}: {move['from']} -> {move['to']}, {move['reason']}" for move in plan.moves[:SHOWN]]
    if len(plan.moves) > SHOWN:
        lines.append(f"  ... and {len(plan.moves) - SHOWN} more (--json shows all)")
    if plan.result:
        lines.append(f"{plan.result['moved']} moved, {plan.result['bytes']:,} B; {len(plan.result['left'])} left")
        lines += [f"  left {left['name']}: {left['reason']}" for left in plan.result["left"]]
    return dict(CachePlanDetail(plan).data), "\n".join(lines)


# --- What is owed


def _relay(options: dict[str, Any]) -> Answer:
    """What is due now, once: what fails is put off, and what comes meanwhile is the workers'."""
    due, tried = CacheOutbox.objects.filter(due_at__lte=timezone.now()).count(), 0
    with progress_bar("rows owed") as progress:
        while tried < due and (batch := relay.drain(most=min(BATCH, due - tried))):
            tried += batch
            progress(tried, due)
    queue = reporting.queue()
    waiting = ", ".join(f"{count} {kind}" for kind, count in queue.rows.items() if count)
    failing = f"; the worst: {queue.error}" if queue.error else ""
    text = f"{tried:,} of {due:,} rows that were due: done or put off; waiting now: {waiting or 'none'}{failing}"
    return {"due": due, "tried": tried, "rows": queue.rows, "failing": queue.failing, "error": queue.error}, text


# --- Statistics


def _stats(options: dict[str, Any]) -> Answer:
    answer = told(reporting.FLEET, options["window"])
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        console.print(_tier_table(answer))
        for line in _state_lines(answer["now"]):
            console.print(line, soft_wrap=True, markup=False)
    return answer, captured.get().rstrip("\n")


def _tier_table(answer: dict[str, Any]) -> Table:
    table = Table("tier", title=f"{answer['scope']}, {answer['window']}", title_justify="left")
    for heading in (*COLUMNS, "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name, tier in answer["tiers"].items():
        counts = [COLUMNS[heading](tier) for heading in COLUMNS]
        table.add_row(name.upper(), *counts, *(_number(tier["latency"][f"p{share}_ms"]) for share in (50, 95, 99)))
    return table


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "hits": lambda tier: f"{tier['hits']:,}",
    "misses": lambda tier: f"{tier['misses']:,}",
    "hit rate": lambda tier: _share(tier["hit_rate"]),
    "answered": lambda tier: _share(tier["answered_share"]),
    "bytes": lambda tier: f"{tier['bytes']:,}",
    "heals": lambda tier: f"{tier['heals']:,}",
    "errors": lambda tier: f"{tier['errors']:,}",
}


def _state_lines(now: dict[str, Any]) -> list[str]:
    lines = [
        f"L1 of {process['name']} ({process['role']}): {process['l1']['bytes']:,} of {process['l1']['budget']:,} B, "
        f"{process['l1']['entries']:,} segments, {process['l1']['policy']}{_open(process['breakers'])}"
        for process in now["processes"]
    ]
    lines.append(_l2_line(now["l2"]))
    lines += [f"{name.upper()}: {now[name]['blobs']:,} blobs, {now[name]['bytes']:,} B" for name in ("l3", "l4")]
    waiting = ", ".join(f"{count:,} {kind}" for kind, count in now["queue"]["rows"].items() if count)
    lines.append(f"owed: {waiting or 'nothing'}{'; ' + now['queue']['error'] if now['queue']['error'] else ''}")
    lines.append(f"held by live runs: {now['pinned']['kernels']:,} kernels, {now['pinned']['bytes']:,} B")
    return lines


def _l2_line(l2: dict[str, Any] | None) -> str:
    if l2 is None:
        return "L2: there is none (ESPER_CACHE_L2_URL is empty)"
    if l2["problem"]:
        return f"L2: {l2['problem']}"
    limit = "no limit" if l2["limit_bytes"] is None else f"{l2['limit_bytes']:,} B"
    return f"L2: {l2['used_bytes']:,} B of {limit}, {l2['keys']:,} keys, {l2['evicted']:,} evicted"


def _open(breakers: list[dict[str, Any]]) -> str:
    left_alone = [breaker["tier"].upper() for breaker in breakers if breaker["state"] != "closed"]
    return f"; leaves alone: {', '.join(left_alone)}" if left_alone else ""


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


STEPS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "stats": _stats, "plan": _plan, "apply": _apply, "cancel": _cancel, "warm": _warm, "relay": _relay,
}  # fmt: skip
