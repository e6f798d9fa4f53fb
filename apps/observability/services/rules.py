"""Alert rules: people write, change and remove them; those that come with the platform are installed and reset."""

import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, FieldError, Invalid, field_errors
from apps.core.parsers import is_storable
from apps.observability import matchers as matching
from apps.observability.lifecycle import OPEN
from apps.observability.models import Alert, AlertRule, RuleKind
from apps.observability.rules import wording
from apps.observability.rules.kinds import KINDS
from apps.observability.rules.shipped import ANY_METRIC, SHIPPED, Shipped
from apps.observability.services.alerts import CHANGED, DISABLED, REMOVED, resolve_all

SETTABLE = frozenset(
    {
        "name", "description", "kind", "metric", "matchers", "parameters", "for_seconds", "keep_firing_seconds",
        "severity", "labels", "summary", "remedy", "inhibited_by", "enabled",
    }
)  # fmt: skip
JUDGES_BY = frozenset({"name", "kind", "metric", "matchers", "parameters", "severity", "labels"})
"""What makes another rule of it: its open alerts are over."""
METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,119}")
MOST_RULES = 500
MOST_LABELS, LONGEST_LABEL = 20, 200
MOST_INHIBITORS = 10
LONGEST_TEXT = 4_000


@transaction.atomic
def create_rule(*, workspace: Workspace | None = None, actor: Actor, reason: str = "", **settings: Any) -> AlertRule:
    """A new rule; it is applied with the next evaluation.

    Raises:
        Invalid: a setting is wrong, naming each. Conflict: there is one of that name, or there are too many.
    """
    return _create(AlertRule(**_known(settings)), workspace, actor, reason)


@transaction.atomic
def change_rule(*, rule: AlertRule, actor: Actor, reason: str = "", **changes: Any) -> AlertRule:
    """Change a rule. If it looks for something else then, or is disabled, its open alerts are resolved; what the
    changed rule sees begins anew. Where another rule is inhibited by it, a new name is written there too.

    Raises:
        Invalid: a setting is wrong, naming each. Conflict: there is one of that name.
    """
    fresh = AlertRule.objects.select_for_update(of=("self",)).get(pk=rule.pk)
    before, name = image(fresh), fresh.name
    for field, value in _known(changes).items():
        setattr(fresh, field, value)
    _check(fresh)
    after = image(fresh)
    if after == before:
        return fresh
    fresh.save()
    audit.record(type="alert_rule.changed", subject=fresh, actor=actor, reason=reason, before=before, after=after)
    if fresh.name != name:
        _rename(fresh, name, actor)
    if not fresh.enabled:
        _end_alerts(fresh, DISABLED, actor)
    elif any(before[field] != after[field] for field in JUDGES_BY):
        _end_alerts(fresh, CHANGED, actor)
    return fresh


@transaction.atomic
def remove_rule(*, rule: AlertRule, actor: Actor, reason: str = "") -> None:
    """Remove a rule; its open alerts are resolved.

    Raises:
        Conflict: it came with the platform, and would come back: disable it.
    """
    fresh = AlertRule.objects.select_for_update(of=("self",)).get(pk=rule.pk)
    if fresh.shipped:
        raise Conflict("the rule came with the platform and would come back: disable it instead", code="shipped")
    _end_alerts(fresh, REMOVED, actor)
    audit.record(type="alert_rule.removed", subject=fresh, actor=actor, reason=reason, before=image(fresh), after=None)
    fresh.delete()


@transaction.atomic
def reset_rule(*, rule: AlertRule, actor: Actor, reason: str = "") -> AlertRule:
    """Set a rule back to what it was shipped as, its name and whether it is enabled included.

    Raises:
        Conflict: it did not come with the platform, or not with this version of it; or its name was given to another.
    """
    shipped = SHIPPED.get(rule.shipped)
    if shipped is None:
        raise Conflict("the rule did not come with the platform: there is nothing to reset it to", code="not_shipped")
    return change_rule(rule=rule, actor=actor, reason=reason, **_as_shipped(shipped))


def install_shipped(*, actor: Actor) -> list[AlertRule]:
    """Make rows of the shipped rules that have none; those that are there stay as people changed them. One query
    when all are."""
    there = set(AlertRule.objects.filter(workspace=default_workspace_id()).exclude(shipped="").values_list("shipped"))
    missing = [rule for key, rule in SHIPPED.items() if (key,) not in there]
    return _install(missing, actor) if missing else []


def build_rule(*, workspace: Workspace | None = None, **settings: Any) -> AlertRule:
    """A rule that is checked and not stored, to see what it would say.

    Raises:
        Invalid, Conflict: as ``create_rule``, but for its name: that of another may be previewed.
    """
    rule = AlertRule(workspace_id=workspace.pk if workspace else default_workspace_id(), **_known(settings))
    _check(rule, stored=False)
    return rule


@transaction.atomic
def _install(missing: list[Shipped], actor: Actor) -> list[AlertRule]:
    workspace = Workspace.objects.select_for_update().get(pk=default_workspace_id())  # one at a time
    rows = AlertRule.objects.filter(workspace=workspace).values_list("name", "shipped")
    names, there = ({row[place] for row in rows} for place in (0, 1))
    installed = []
    for shipped in missing:
        if shipped.key in there:
            continue
        rule = AlertRule(shipped=shipped.key, **_as_shipped(shipped))
        wishes = (shipped.name, f"{shipped.name} (shipped)", shipped.key, f"{shipped.key} {rule.pk}")
        rule.name = next(name for name in wishes if name not in names)  # others are somebody's own
        names.add(rule.name)
        installed.append(_create(rule, workspace, actor, "came with the platform", knows=False))
    return installed


def _as_shipped(shipped: Shipped) -> dict[str, Any]:
    """The settings of a shipped rule, with those that inhibit it by the names that people gave them."""
    keys = {each.name: each.key for each in SHIPPED.values()}
    rows = AlertRule.objects.filter(workspace=default_workspace_id()).exclude(shipped="")
    names = dict(rows.values_list("shipped", "name")) if shipped.inhibited_by else {}
    inhibitors = [
        each | {"rule": names.get(keys[each["rule"]], each["rule"])} for each in shipped.settings["inhibited_by"]
    ]
    return {**shipped.settings, "inhibited_by": inhibitors}


def _create(
    rule: AlertRule, workspace: Workspace | None, actor: Actor, reason: str, *, knows: bool = True
) -> AlertRule:
    """``knows``: the rules that inhibit it have to be there."""
    rule.workspace_id = workspace.pk if workspace else default_workspace_id()
    _check(rule, knows=knows)
    if not rule.shipped and AlertRule.objects.filter(workspace=rule.workspace_id).count() >= MOST_RULES:
        raise Conflict(f"there are {MOST_RULES} rules already: remove one", code="too_many")
    rule.save(force_insert=True)
    audit.record(type="alert_rule.created", subject=rule, actor=actor, reason=reason, after=image(rule))
    return rule


def _rename(rule: AlertRule, old: str, actor: Actor) -> None:
    """Write the new name where other rules are inhibited by this one."""
    for other in AlertRule.objects.filter(workspace=rule.workspace_id, inhibited_by__contains=[{"rule": old}]):
        renamed = [each | {"rule": rule.name} if each["rule"] == old else each for each in other.inhibited_by]
        change_rule(rule=other, actor=actor, reason=f"{old} is called {rule.name} now", inhibited_by=renamed)


def _end_alerts(rule: AlertRule, because: str, actor: Actor) -> None:
    alerts = Alert.objects.filter(rule_id=rule.pk, state__in=OPEN)
    resolve_all(alerts=alerts, because=because, now=timezone.now(), actor=actor)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(settings) - SETTABLE:
        raise TypeError(f"an alert rule has no {min(unknown)}")
    return settings


# --- Checking


def _check(rule: AlertRule, *, stored: bool = True, knows: bool = True) -> None:
    """Fill in what has defaults. Raises Invalid, naming each field at fault, or Conflict."""
    errors: list[FieldError] = []
    try:
        rule.clean_fields(exclude={"matchers", "parameters", "labels", "inhibited_by"})
    except ValidationError as error:
        errors += field_errors(error)
    for check in (_check_texts, _check_metric, _check_matchers, _check_parameters, _check_labels, _check_inhibitors):
        try:
            check(rule)
        except Invalid as error:
            known = {each.pointer for each in errors}
            errors += [each for each in error.errors if each.pointer not in known]
    if errors:
        raise Invalid(errors[0].detail, code=errors[0].code, errors=errors)
    others = AlertRule.objects.filter(workspace=rule.workspace_id).exclude(pk=rule.pk)
    if stored and others.filter(name=rule.name).exists():
        raise Conflict("there is a rule of that name already", pointer="/name", code="duplicate")
    if stored and knows and (missing := _missing(rule)):
        raise Invalid(f"there is no rule {missing!r}", pointer="/inhibited_by", code="not_found")


def _missing(rule: AlertRule) -> str:
    names = {each["rule"] for each in rule.inhibited_by}
    if not names:
        return ""
    there = AlertRule.objects.filter(workspace=rule.workspace_id, name__in=names).values_list("name", flat=True)
    return min(names - set(there), default="")


def _check_texts(rule: AlertRule) -> None:
    for name in ("name", "description", "summary", "remedy"):
        value = getattr(rule, name)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not is_storable(value):
            raise Invalid(f"must be a text of at most {LONGEST_TEXT} characters", pointer=f"/{name}", code="invalid")
    if not rule.name.strip():
        raise Invalid("is needed", pointer="/name", code="required")
    if fault := wording.fault_of(rule.summary):
        raise Invalid(fault, pointer="/summary", code="invalid")


def _check_metric(rule: AlertRule) -> None:
    if rule.metric == ANY_METRIC and rule.kind == RuleKind.ANOMALY:
        return
    if not isinstance(rule.metric, str) or not METRIC.fullmatch(rule.metric):
        every = f"; {ANY_METRIC} (every metric) only for rules about anomalies" if rule.metric == ANY_METRIC else ""
        detail = f"must be the name of a metric: letters, digits, underscores{every}"
        raise Invalid(detail, pointer="/metric", code="invalid")


def _check_matchers(rule: AlertRule) -> None:
    rule.matchers = matching.told(matching.parse(rule.matchers))


def _check_parameters(rule: AlertRule) -> None:
    if rule.kind in KINDS:
        rule.parameters = KINDS[rule.kind].checked(rule.parameters)


def _check_labels(rule: AlertRule) -> None:
    labels = rule.labels
    if not isinstance(labels, Mapping) or len(labels) > MOST_LABELS:
        raise Invalid(f"must be a JSON object of at most {MOST_LABELS} labels", pointer="/labels", code="invalid")
    for name, value in labels.items():
        fault = ""
        if not isinstance(name, str) or not matching.LABEL.fullmatch(name):
            fault = "must be a label name: letters, digits, underscores"
        elif name in wording.RESERVED:
            fault = "is given by the platform"
        elif not isinstance(value, str) or not value or len(value) > LONGEST_LABEL or not is_storable(value):
            fault = f"must be a text of 1 to {LONGEST_LABEL} characters"
        if fault:
            raise Invalid(fault, pointer=f"/labels/{name}", code="invalid")


def _check_inhibitors(rule: AlertRule) -> None:
    found = rule.inhibited_by
    if not isinstance(found, list) or len(found) > MOST_INHIBITORS:
        detail = f"must be a list of at most {MOST_INHIBITORS} rules"
        raise Invalid(detail, pointer="/inhibited_by", code="invalid")
    for place, each in enumerate(found):
        if fault := _inhibitor_fault(rule, each):
            raise Invalid(fault, pointer=f"/inhibited_by/{place}", code="invalid")
    rule.inhibited_by = [{"rule": each["rule"], "equal": list(each["equal"])} for each in found]


def _inhibitor_fault(rule: AlertRule, each: Any) -> str:
    if not isinstance(each, Mapping) or set(each) != {"rule", "equal"}:
        return 'must be {"rule": <name>, "equal": [<label>, ...]}'
    name, equal = each["rule"], each["equal"]
    if not isinstance(name, str) or not 0 < len(name) <= 80:
        return "rule must be the name of a rule"
    if name == rule.name:
        return "a rule cannot inhibit itself"
    if not isinstance(equal, list) or len(equal) > MOST_LABELS:
        return f"equal must be a list of at most {MOST_LABELS} labels"
    if not all(isinstance(label, str) and matching.LABEL.fullmatch(label) for label in equal):
        return "equal must hold names of labels"
    return ""
