"""Writing from the admin: always through a service, with the acting user, after a page that shows what will happen.

The preview is not a description: it makes the very call in a transaction that is rolled back, and shows the events that
the audit trail would have got, or the service's refusal. What was shown is what is done: an answer that was changed
after the preview is previewed again, and a row that changed after it is refused.

    class RunAdmin(StepAdmin):
        steps = {"pause": PAUSE, "stop": STOP}      a button on the row and an action on the list for each
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, ClassVar, Never

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import APIException
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.core import context
from apps.core.actors import Actor, actor_of
from apps.core.admin import ScopedAdmin
from apps.core.errors import Conflict, ServiceError
from apps.core.ids import new_id
from apps.core.parsers import check_storable

REFUSALS = (ServiceError, ValidationError)
MAX_AT_ONCE = 100
IS_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)\Z")
CONFIRMED, PREVIEW = "confirmed", "preview"
SHOWN, ANSWERS = "shown", "answers"
"""Hidden fields of the page: the rows as they were shown, and a digest of the answers that were previewed."""
WHY = "Stands in the audit trail, for everybody who may read it."
UNSTORABLE = "Holds a NUL, half of a surrogate pair, a number that is too large, or too many levels."
CHANGED = "it has changed since this page was shown: look again"


class ReasonForm(forms.Form):
    """Why: it stands in the audit trail next to who and when."""

    reason = forms.CharField(
        max_length=1000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text=WHY,
    )


class PrettyJSONField(forms.JSONField):
    """JSON that people edit: indented, in a fixed width, with its mistakes left as they were typed."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 10, "class": "font-mono", "spellcheck": "false"})

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
            check_storable(found)
        except (ValueError, RecursionError, APIException):
            raise forms.ValidationError(UNSTORABLE) from None
        return found

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            self.to_python(data)
        except forms.ValidationError:
            return data
        return super().bound_data(data, initial)

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, cls=self.encoder)


class Together(list[Any]):
    """The rows of a selection, as one."""

    def __str__(self) -> str:
        return f"{len(self)} selected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A button that calls one service for a row.

    ``promises`` tell what will happen and what will not. ``call`` gets the row, the actor and the form's data.
    ``offered`` tells whether it can do something for a row, so that its button is shown; the service decides whether it
    works. ``foretell`` says what would happen, for a call that cannot be made and rolled back because it reaches
    beyond the database; it raises what ``call`` would, and returns None where the call can be made. ``tell`` puts the
    events of a preview into words. ``done`` is what is said afterwards, of the result if it is a function.
    ``now`` is what a row has of that which the answers change. One ``is_of_all`` is taken once, for all selected rows
    together: its ``row`` is a ``Together``.
    """

    title: str
    promises: tuple[str, ...]
    done: str | Callable[[Any], str]
    call: Callable[[Any, Actor, Mapping[str, Any]], Any]
    form: type[forms.Form] = ReasonForm
    initial: Callable[[Any], Mapping[str, Any]] = lambda row: {}
    now: Callable[[Any], str] = lambda row: ""
    foretell: Callable[[Any, Mapping[str, Any]], tuple[str, ...] | None] = lambda row, data: None
    tell: Callable[[list[AuditEvent]], tuple[str, ...]] = lambda events: tuple(map(sentence, events))
    offered: Callable[[Any], bool] = lambda row: True
    icon: str = ""
    is_primary: bool = False
    is_destructive: bool = False
    is_for_many: bool = True
    is_of_all: bool = False

    @property
    def asks(self) -> bool:
        """Whether it needs answers beside a reason: what would happen is known only with them."""
        return bool(set(self.form.base_fields) - {"reason"})

    def said(self, result: Any) -> str:
        return self.done if isinstance(self.done, str) else self.done(result)

    @property
    def variant(self) -> ActionVariant:
        if self.is_destructive:
            return ActionVariant.DANGER
        return ActionVariant.PRIMARY if self.is_primary else ActionVariant.DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a step would do to one row: the events it would leave, or why it is refused."""

    row: Model | Together
    events: tuple[str, ...] = ()
    error: ServiceError | ValidationError | None = None

    @property
    def refusal(self) -> str:
        return text_of(self.error) if self.error is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person sent from the page of a step: the button pressed and what the page had shown."""

    confirmed: bool
    previews: bool
    answers: str
    shown: Mapping[str, str]

    @classmethod
    def of(cls, request: HttpRequest) -> "Asked":
        pairs = (text.rpartition(":") for text in request.POST.getlist(SHOWN))
        return cls(
            confirmed=CONFIRMED in request.POST,
            previews=PREVIEW in request.POST,
            answers=request.POST.get(ANSWERS, ""),
            shown={key: version for key, _, version in pairs},
        )

    def wants_preview(self, form: forms.Form) -> bool:
        """Also when the answers are not those that were previewed."""
        return self.previews or (self.answers not in {"", digest_of(form)})

    def check(self, row: "Model | Together") -> None:
        """Raises Conflict: the row is not as it was shown. Services check again, under their lock, what they need."""
        for each in row if isinstance(row, Together) else [row]:
            if self.shown.get(key_of(each), version_of(each)) != version_of(each):
                raise Conflict(CHANGED, code="stale")


def key_of(row: Model) -> str:
    """What stands for the row in addresses and pages: the key of a token is a digest of its secret."""
    return str(getattr(row, "id", row.pk))


def version_of(row: Model) -> str:
    return str(getattr(row, "row_version", ""))


def digest_of(form: forms.Form) -> str:
    """Of the answers that decide what happens: all but the reason."""
    answers = {name: getattr(value, "pk", value) for name, value in form.cleaned_data.items() if name != "reason"}
    return hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()


class StepAdmin(ScopedAdmin):
    """Buttons on a row and on a selection, each with its page to confirm: one for each of ``steps``, by its name."""

    steps: ClassVar[Mapping[str, Step]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "steps" not in cls.__dict__:
            return
        for name, step in cls.steps.items():
            setattr(cls, name, _button(name, step))
            setattr(cls, f"{name}_selected", _selection(name, step))
        cls.actions_detail = [name for name, step in cls.steps.items() if not step.is_of_all]
        cls.actions = [f"{name}_selected" for name, step in cls.steps.items() if step.is_for_many]
        cls.offered_when = {name: step.offered for name, step in cls.steps.items()}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The buttons stand on the page, where many have room: in a header of one line they would run out of it."""
        context |= {"buttons": context.get("actions_detail"), "actions_detail": None}
        return super().render_change_form(request, context, *args, **kwargs)

    def take(self, request: HttpRequest, object_id: str, step: Step) -> HttpResponse:
        """The page of a step for one row: what would happen and why; then the call itself."""
        row = self.get_object(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_write_permission(request, row):
            raise PermissionDenied
        form = step.form(request.POST or None, initial=dict(step.initial(row)))
        asked = Asked.of(request)
        if request.method == "POST" and form.is_valid() and not asked.wants_preview(form):
            try:
                asked.check(row)
                result = step.call(row, actor_of(request), form.cleaned_data)
            except REFUSALS as error:
                refuse(form, error)
            else:
                return self.after_step(request, row, step, result)
        return self._page(request, step, form, [row], back=self._url_of(row), row=row)

    def after_step(self, request: HttpRequest, row: Model, step: Step, result: Any) -> HttpResponse:
        """Back to the row, or to the list if the row is gone."""
        messages.success(request, f"{row}: {step.said(result)}")
        return HttpResponseRedirect(self._url_of(row if self._still_there(row) else None))

    def take_all(self, request: HttpRequest, rows: QuerySet[Any], step: Step) -> HttpResponse | None:
        """The page of a step for the selected rows; then one call for each, so that one refusal stops no other."""
        if not self.has_write_permission(request):
            raise PermissionDenied
        selected = list(rows[: MAX_AT_ONCE + 1])
        if len(selected) > MAX_AT_ONCE:
            messages.error(request, f"Select at most {MAX_AT_ONCE} at once.")
            return None
        asked = Asked.of(request)
        form = step.form(request.POST if asked.confirmed or asked.previews else None)
        if not form.is_valid() or asked.wants_preview(form):
            return self._page(request, step, form, selected, back=self._url_of(None))
        for row in [Together(selected)] if step.is_of_all else selected:
            self._take_one_of_many(request, row, step, form.cleaned_data, asked)
        if gone := set(asked.shown) - {key_of(row) for row in selected}:
            messages.error(request, f"{len(gone)} of those selected are not there any more.")
        return HttpResponseRedirect(self._url_of(None))

    def _take_one_of_many(
        self, request: HttpRequest, row: Model | Together, step: Step, data: Mapping[str, Any], asked: Asked
    ) -> None:
        try:
            asked.check(row)
            result = step.call(row, actor_of(request), data)
        except REFUSALS as error:
            messages.error(request, f"{row}: {text_of(error)}")
        else:
            messages.success(request, f"{row}: {step.said(result)}")

    def _page(
        self,
        request: HttpRequest,
        step: Step,
        form: forms.Form,
        rows: list[Any],
        *,
        back: str,
        row: Model | None = None,
    ) -> HttpResponse:
        is_answered = form.is_bound and form.is_valid()
        effects = self._effects(request, step, form, rows) if is_answered or not step.asks else []
        if row is not None and step.asks and effects and (error := effects[0].error) is not None:
            effects.clear()
            refuse(form, error)  # at the answer that is wrong
        refused = sum(bool(effect.error) for effect in effects)
        page = {
            **self.admin_site.each_context(request),
            "title": step.title,
            "opts": self.opts,
            "original": row,
            "now": step.now(row) if row is not None else "",
            "step": step,
            "form": form,
            "effects": effects,
            "refused": refused,
            "allowed": len(effects) - refused,
            "can_confirm": len(effects) > refused,
            "can_answer": step.asks or len(effects) > refused,
            "answers": digest_of(form) if effects and step.asks else "",
            "back": back,
            "action": request.POST.get("action", ""),
            "rows": rows,
            "shown": [f"{key_of(each)}:{version_of(each)}" for each in rows],
        }
        return TemplateResponse(request, "admin/step.html", page)

    def _effects(self, request: HttpRequest, step: Step, form: forms.Form, rows: Iterable[Any]) -> list[Effect]:
        answers = form.cleaned_data if form.is_bound and form.is_valid() else {"reason": "preview"}
        return preview(step, [Together(rows)] if step.is_of_all else rows, actor_of(request), answers)

    def _url_of(self, row: Model | None) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        if row is None:
            return reverse(f"{name}_changelist")
        return reverse(f"{name}_change", args=[key_of(row)])

    def _still_there(self, row: Model) -> bool:
        return self.model._default_manager.filter(pk=row.pk).exists()


def _button(name: str, step: Step) -> Callable[..., HttpResponse]:
    def press(self: StepAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
        return self.take(request, object_id, step)

    press.__name__ = name
    return action(description=step.title, url_path=name, icon=step.icon, permissions=["write"], variant=step.variant)(
        press
    )


def _selection(name: str, step: Step) -> Callable[..., HttpResponse | None]:
    def choose(self: StepAdmin, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        return self.take_all(request, rows, step)

    choose.__name__ = f"{name}_selected"
    return admin.action(description=step.title, permissions=["write"])(choose)


def preview(step: Step, rows: Iterable[Any], actor: Actor, answers: Mapping[str, Any]) -> list[Effect]:
    """What the step would do to each row, found out by doing it and rolling back."""
    return [_effect(step, row, actor, answers) for row in rows]


def _effect(step: Step, row: Any, actor: Actor, answers: Mapping[str, Any]) -> Effect:
    try:
        foretold = step.foretell(row, answers)
        if foretold is not None:
            return Effect(row=row, events=foretold)
        events = dry_run(lambda: step.call(row, actor, answers))
    except REFUSALS as error:
        return Effect(row=row, error=error)
    return Effect(row=row, events=step.tell(events))


def dry_run(call: Callable[[], Any]) -> list[AuditEvent]:
    """The events that ``call`` would record. Nothing of it stays, and nothing that waits for a commit starts.

    Raises:
        ServiceError / ValidationError: what ``call`` refuses.
    """
    marker = f"preview-{new_id()}"
    with transaction.atomic(), context.bound(request_id=marker):
        call()
        events = list(AuditEvent.objects.filter(request_id=marker).order_by("id"))
        transaction.set_rollback(True)
    return events


def sentence(event: AuditEvent) -> str:
    """``moved the run: state becomes CANCELLED``."""
    changes = [f"{operation['path'].lstrip('/')} becomes {_shown(operation.get('value'))}" for operation in event.diff]
    said = EVENT_TYPES[event.type].sentence
    return f"{said}: {', '.join(changes)}" if changes else said


def _shown(value: Any) -> str:
    """Times to the minute, what is not there in a word."""
    if value is None:
        return "nothing"
    moment = parse_datetime(value) if isinstance(value, str) and IS_TIME.match(value) else None
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment is not None else str(value)


def text_of(error: ServiceError | ValidationError) -> str:
    return error.detail if isinstance(error, ServiceError) else "; ".join(error.messages)


def refuse(form: forms.BaseForm, error: ServiceError | ValidationError) -> None:
    """Put each refusal at its field; at the top of the form where the form has no such field."""
    if isinstance(error, ValidationError):
        by_field = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        found = [(field, text) for field, texts in by_field.items() for text in texts]
    elif error.errors:
        found = [(item.pointer.split("/")[1], _with_place(item.pointer, item.detail)) for item in error.errors]
    else:
        found = [("", error.detail)]
    for field, text in found:
        form.add_error(field if field in form.fields else None, text)


def _with_place(pointer: str, text: str) -> str:
    """Inside a JSON field, the pointer says where."""
    return f"{pointer}: {text}" if pointer.count("/") > 1 else text


class ServiceForm(forms.ModelForm):
    """A form whose row a service writes. Its refusals, found in a dry run, become the errors of the fields."""

    actor: Actor

    shown = forms.CharField(required=False, widget=forms.HiddenInput)
    """The version of the row that the page showed; it is no answer, and ``write`` does not get it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["shown"] = version_of(self.instance)

    def write(self) -> Any:
        """Call the service with ``cleaned_data`` and ``actor``; returns the row."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        shown = self.cleaned_data.pop("shown", "")
        if shown not in {"", version_of(self.instance)}:
            self.add_error(None, CHANGED)
        if self.errors:
            return
        try:
            dry_run(self.write)
        except REFUSALS as error:
            refuse(self, error)


class ReasonedForm(ServiceForm):
    """A change asks why."""

    reason = forms.CharField(max_length=1000, widget=UnfoldAdminTextInputWidget, help_text=WHY)


class ServiceFormAdmin(StepAdmin):
    """Adds (and, where the subclass says so, changes) rows by a ``ServiceForm``."""

    add_form: type[ServiceForm] | None = None
    change_form: type[ReasonedForm] | None = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add_form is not None and self.has_write_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.change_form is not None and self.has_write_permission(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        base = self.change_form if change else self.add_form
        if base is not None and (change or obj is None):
            kwargs["form"] = type(base.__name__, (base,), {"actor": actor_of(request)})
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """A change asks why, and tells which version of the row it was made to."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not self.has_change_permission(request, obj):
            return fieldsets
        (title, first), *rest = fieldsets
        return [(title, {**first, "fields": [*first["fields"], "reason", "shown"]}), *rest]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        written = form.write()
        obj.__dict__.update(written.__dict__)

    def delete_model(self, request: HttpRequest, obj: Any) -> Never:
        raise PermissionDenied
