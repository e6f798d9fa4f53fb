"""Writing from the admin: always through a service, with the acting user, after a page that shows what will happen.

The preview is not a description: it makes the very call in a transaction that is rolled back, and shows the events that
the audit trail would have got, or the service's refusal.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Never

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.core import context
from apps.core.actors import Actor, actor_of
from apps.core.admin import ScopedAdmin
from apps.core.errors import ServiceError
from apps.core.ids import new_id

REFUSALS = (ServiceError, ValidationError)
MAX_AT_ONCE = 100
CONFIRMED = "confirmed"


class ReasonForm(forms.Form):
    """Why: it stands in the audit trail next to who and when."""

    reason = forms.CharField(
        max_length=1000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Stands in the audit trail, for everybody who may read it.",
    )


class PrettyJSONField(forms.JSONField):
    """JSON that people edit: indented, in a fixed width, with its mistakes left as they were typed."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 10, "class": "font-mono", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, cls=self.encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A button that calls one service for a row.

    ``promises`` tell what will happen and what will not. ``call`` gets the row, the actor and the form's data.
    A step whose form asks for more than a reason has no preview: what happens depends on the answers.
    """

    title: str
    promises: tuple[str, ...]
    done: str
    call: Callable[[Any, Actor, Mapping[str, Any]], Any]
    form: type[forms.Form] = ReasonForm
    initial: Callable[[Any], Mapping[str, Any]] = lambda row: {}
    is_destructive: bool = False

    @property
    def has_preview(self) -> bool:
        return self.form is ReasonForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a step would do to one row: the events it would leave, or why it is refused."""

    row: Model
    events: tuple[str, ...] = ()
    refusal: str = ""


class StepAdmin(ScopedAdmin):
    """Buttons on a row (``take``) and on a selection (``take_all``), each with its page to confirm."""

    def take(self, request: HttpRequest, object_id: str, step: Step) -> HttpResponse:
        """The page of a step for one row: what would happen and why; then the call itself."""
        row = self.get_object(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_write_permission(request, row):
            raise PermissionDenied
        form = step.form(request.POST or None, initial=dict(step.initial(row)))
        if request.method == "POST" and form.is_valid():
            try:
                result = step.call(row, actor_of(request), form.cleaned_data)
            except REFUSALS as error:
                refuse(form, error)
            else:
                return self.after_step(request, row, step, result)
        effects = preview(step, [row], actor_of(request)) if step.has_preview else []
        return self._page(request, step, form, effects, back=self._url_of(row), row=row)

    def after_step(self, request: HttpRequest, row: Model, step: Step, result: Any) -> HttpResponse:
        """Back to the row, or to the list if the row is gone."""
        messages.success(request, f"{row}: {step.done}")
        return HttpResponseRedirect(self._url_of(row if self._still_there(row) else None))

    def take_all(self, request: HttpRequest, rows: QuerySet[Any], step: Step) -> HttpResponse | None:
        """The page of a step for the selected rows; then one call for each, so that one refusal stops no other."""
        if not self.has_write_permission(request):
            raise PermissionDenied
        selected = list(rows[: MAX_AT_ONCE + 1])
        if len(selected) > MAX_AT_ONCE:
            messages.error(request, f"Select at most {MAX_AT_ONCE} at once.")
            return None
        form = step.form(request.POST if CONFIRMED in request.POST else None)
        if not form.is_valid():
            return self._page(request, step, form, preview(step, selected, actor_of(request)), back=self._url_of(None))
        for row in selected:
            self._take_one_of_many(request, row, step, form.cleaned_data)
        return HttpResponseRedirect(self._url_of(None))

    def _take_one_of_many(self, request: HttpRequest, row: Model, step: Step, data: Mapping[str, Any]) -> None:
        try:
            step.call(row, actor_of(request), data)
        except REFUSALS as error:
            messages.error(request, f"{row}: {text_of(error)}")
        else:
            messages.success(request, f"{row}: {step.done}")

    def _page(
        self,
        request: HttpRequest,
        step: Step,
        form: forms.Form,
        effects: list[Effect],
        *,
        back: str,
        row: Model | None = None,
    ) -> HttpResponse:
        page = {
            **self.admin_site.each_context(request),
            "title": step.title,
            "opts": self.opts,
            "original": row,
            "step": step,
            "form": form,
            "effects": effects,
            "can_confirm": not effects or any(not effect.refusal for effect in effects),
            "back": back,
            "action": request.POST.get("action", ""),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        }
        return TemplateResponse(request, "admin/step.html", page)

    def _url_of(self, row: Model | None) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        if row is None:
            return reverse(f"{name}_changelist")
        return reverse(f"{name}_change", args=[str(getattr(row, "id", row.pk))])

    def _still_there(self, row: Model) -> bool:
        return self.model._default_manager.filter(pk=row.pk).exists()


def preview(step: Step, rows: Iterable[Any], actor: Actor) -> list[Effect]:
    """What the step would do to each row, found out by doing it and rolling back."""
    return [_effect(step, row, actor) for row in rows]


def _effect(step: Step, row: Any, actor: Actor) -> Effect:
    try:
        events = dry_run(lambda: step.call(row, actor, {"reason": "preview"}))
    except REFUSALS as error:
        return Effect(row=row, refusal=text_of(error))
    return Effect(row=row, events=tuple(map(sentence, events)))


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
    changes = [
        f"{operation['path'].lstrip('/')} becomes {operation.get('value', 'nothing')}" for operation in event.diff
    ]
    said = EVENT_TYPES[event.type].sentence
    return f"{said}: {', '.join(changes)}" if changes else said


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

    def write(self) -> Any:
        """Call the service with ``cleaned_data`` and ``actor``; returns the row."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        try:
            dry_run(self.write)
        except REFUSALS as error:
            refuse(self, error)


class ServiceFormAdmin(StepAdmin):
    """Adds (and, where the subclass says so, changes) rows by a ``ServiceForm``."""

    add_form: type[ServiceForm] | None = None
    change_form: type[ServiceForm] | None = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add_form is not None and self.has_write_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.change_form is not None and self.has_write_permission(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        base = self.change_form if change else self.add_form
        if base is not None and (change or obj is None):
            kwargs["form"] = type(base.__name__, (base,), {"actor": actor_of(request)})
        return super().get_form(request, obj, change=change, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        written = form.write()
        obj.__dict__.update(written.__dict__)

    def delete_model(self, request: HttpRequest, obj: Any) -> Never:
        raise PermissionDenied
