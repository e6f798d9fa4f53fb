"""`manage.py retention plan|approve|apply|explain`: retirement of kernels by hand, for operators."""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError
from apps.core.ids import parse_id
from apps.kernels import services
from apps.kernels.api.retention_forms import PlanSerializer, RetentionExplanation
from apps.kernels.lifecycle import PlanState
from apps.kernels.models import Kernel, RetentionPlan, RetentionPolicy
from apps.kernels.retention.explaining import Explanation, explain

Answer = tuple[dict[str, Any], str]


class Command(BaseCommand):
    help = "Plan what a policy would retire, approve a plan, apply it; explain what becomes of a kernel."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True, metavar="plan|approve|apply|explain")
        for name, what, about in (
            ("plan", "POLICY", "write down what the policy (name or id) would retire now; no kernel is touched"),
            ("approve", "PLAN", "let a plan be applied"),
            ("apply", "PLAN", "retire what an approved plan names, all of it"),
            ("explain", "KERNEL", "every rule that keeps or condemns a kernel, and when it would go"),
        ):
            step = steps.add_parser(name, help=about)
            step.add_argument("what", metavar=what)
            step.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
            if name in {"plan", "approve"}:
                step.add_argument("--reason", default="by hand", help="why: it stands in the trail")

    def handle(self, *args: Any, step: str, what: str, json: bool, **options: Any) -> None:
        try:
            answer, text = STEPS[step](what, options.get("reason", ""))
        except ServiceError as error:
            raise CommandError(error.detail) from None
        self.stdout.write(_dumped(answer) if json else text)


def _dumped(answer: dict[str, Any]) -> str:
    return json.dumps(answer, cls=DjangoJSONEncoder)


def _plan(what: str, reason: str) -> Answer:
    key = parse_id(what)
    policies = RetentionPolicy.objects.filter(pk=key) if key else RetentionPolicy.objects.filter(name=what)
    return _told(services.make_plan(policy=_found(policies, what), actor=SYSTEM, reason=reason))


def _approve(what: str, reason: str) -> Answer:
    return _told(services.approve_plan(plan=_by_id(RetentionPlan, what), actor=SYSTEM, reason=reason))


def _apply(what: str, reason: str) -> Answer:
    plan = services.apply_plan(plan=_by_id(RetentionPlan, what), actor=SYSTEM)
    while plan.state == PlanState.APPROVED:
        plan = services.apply_plan(plan=plan, actor=SYSTEM)
    return _told(plan)


def _explain(what: str, reason: str) -> Answer:
    told = explain(_by_id(Kernel, what), timezone.now())
    return RetentionExplanation(told).data, "\n".join(_lines(told))


STEPS: dict[str, Callable[[str, str], Answer]] = {
    "plan": _plan, "approve": _approve, "apply": _apply, "explain": _explain,
}  # fmt: skip


def _by_id(model: Any, what: str) -> Any:
    key = parse_id(what)
    return _found(model._default_manager.filter(pk=key) if key else model._default_manager.none(), what)


def _found(rows: Any, what: str) -> Any:
    row = rows.first()
    if row is None:
        by = "a name or an id" if rows.model is RetentionPolicy else "an id"
        raise CommandError(f"there is no {rows.model._meta.verbose_name} {what}; give {by}")
    return row


def _told(plan: RetentionPlan) -> Answer:
    lines = [f"plan {plan.pk} of {plan.policy.name} is {plan.state}: {plan.item_count} kernels, {plan.byte_count:,} B"]
    lines += [f"  kept, {rule}: {count}" for rule, count in plan.kept.items()]
    lines += [f"  {outcome}: {count}" for outcome, count in plan.outcome.items()]
    return PlanSerializer(plan).data, "\n".join(lines)


def _lines(told: Explanation) -> list[str]:
    lines = [f"{told.kernel.name} is {told.kernel.state}; it goes: {_time(told.when)}"]
    lines += [f"  kept by {finding.rule}: {finding.detail}" for finding in told.protections]
    for said in told.policies:
        lines.append(f"policy {said.policy.name}{'' if said.policy.is_enabled else ' (not enabled)'}")
        if said.verdict is None:
            lines.append(f"  cannot be read: {said.fault}")
            continue
        if not said.verdict.matches:
            lines.append("  is not about it")
        lines += [f"  {'+' if found.holds else '-'} {found.rule}: {found.detail}" for found in said.verdict.criteria]
        lines += [f"  kept by {found.rule}: {found.detail}" for found in said.verdict.kept_by]
        lines.append(f"  it goes: {_time(said.verdict.when)}")
    return lines


def _time(when: Any) -> str:
    return "never, as things are" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"
