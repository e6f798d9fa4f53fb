"""The base of every admin page: who may read by scope, nothing may be written, rows lead to their neighbours.

Writing goes through services only: see ``accounts.admin_steps`` for buttons with a reason and a preview.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin import sites
from django.core.exceptions import PermissionDenied
from django.db.models import DateTimeField, Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import capfirst
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction

from apps.core.admin_display import time_column
from apps.core.admin_site import EsperAdminSite

# Unfold puts its site in place when it starts; this module is imported after that, and before every other admin module.
admin.site = sites.site = EsperAdminSite()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A list of rows that belong to the one on the page."""

    title: str
    url: str
    count: int | None = None


class ScopedAdmin(ModelAdmin):
    """Rows that people with ``read_scope`` read. Nobody adds, changes or deletes them here.

    ``subject_type`` is that of the rows' audit events. ``neighbours`` adds lists that no foreign key tells of:
    (model label, its column, the column of this row that it holds).
    """

    read_scope: ClassVar[str] = ""
    write_scope: ClassVar[str] = ""
    subject_type: ClassVar[str] = ""
    page: ClassVar[str] = ""
    """Name of the URL of a row's own page outside the admin, if there is one."""
    neighbours: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    offered_when: ClassVar[dict[str, Callable[[Any], bool]]] = {}
    """Button -> whether it can do something for a row, so that it is shown. The service decides whether it works."""

    list_per_page = 50
    list_filter_submit = True
    list_fullwidth = True
    show_full_result_count = False
    actions_on_top = True
    change_form_outer_before_template = "admin/neighbours.html"

    def __init__(self, model: type[Model], admin_site: Any) -> None:
        super().__init__(model, admin_site)
        times = [field for field in model._meta.concrete_fields if isinstance(field, DateTimeField)]
        self._times = {field.name: time_column(field.name, str(field.verbose_name)) for field in times}

    # --- Times are shown to the second

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [self._times.get(name, name) for name in super().get_list_display(request)]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [self._times.get(name, name) for name in super().get_readonly_fields(request, obj)]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [
            (title, {**options, "fields": [self._times.get(name, name) for name in options["fields"]]})
            for title, options in super().get_fieldsets(request, obj)
        ]

    # --- Who may do what

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.read_scope) and request.user.has_scope(self.read_scope)  # type: ignore[union-attr]

    def has_write_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What the buttons ask for."""
        return bool(self.write_scope) and request.user.has_scope(self.write_scope)  # type: ignore[union-attr]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # --- The audit trail is the only history

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return None

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return None

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        row = self.get_object(request, object_id)
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return HttpResponseRedirect(self._trail_url(row))

    def _trail_url(self, row: Model) -> str:
        trail = reverse("admin:audit_auditevent_changelist")
        return f"{trail}?subject_type={self.subject_type}&subject_id={getattr(row, 'id', row.pk)}"

    # --- Rows lead to their page and to their neighbours

    def get_view_on_site_url(self, obj: Any = None) -> str | None:
        return reverse(self.page, args=[obj.pk]) if obj is not None and self.page else None

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        if row is not None and row.pk is not None:
            context["neighbours"] = list(self._neighbours(request, row))
        return super().render_change_form(request, context, *args, **kwargs)

    def _neighbours(self, request: HttpRequest, row: Model) -> Iterator[Neighbours]:
        """Lists of rows that point to this one, as far as this user may read them, and its audit events."""
        by_key = [(label, lookup, row.pk, name) for label, lookup, name in self._pointing()]
        by_column = [(label, f"{column}__exact", getattr(row, own), "") for label, column, own in self.neighbours]
        registry = {model._meta.label_lower: page for model, page in self.admin_site._registry.items()}
        for label, lookup, value, name in [*by_key, *by_column]:
            page = registry.get(label)
            if page is None or not page.has_view_permission(request):
                continue
            opts = page.opts
            yield Neighbours(
                title=str(capfirst(name or opts.verbose_name_plural)),
                url=f"{reverse(f'admin:{opts.app_label}_{opts.model_name}_changelist')}?{lookup}={value}",
                count=page.model._default_manager.filter(**{lookup: value}).count(),
            )
        trail = registry.get("audit.auditevent")
        if self.subject_type and trail is not None and trail.has_view_permission(request):
            yield Neighbours(title="Audit events", url=self._trail_url(row))

    def _pointing(self) -> Iterator[tuple[str, str, str]]:
        """(model, lookup, name) of each foreign key to this table; no name where that of its table tells enough."""
        keys = [key for key in self.opts.get_fields(include_hidden=True) if key.one_to_many and key.auto_created]
        tables = Counter(key.related_model for key in keys)
        for key in keys:
            is_own = key.related_model is self.model
            if is_own and key.hidden:
                continue  # nothing says what the list would be of
            name = key.related_name.replace("_", " ") if is_own or tables[key.related_model] > 1 else ""
            yield key.related_model._meta.label_lower, f"{key.field.name}__exact", name

    # --- Buttons

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[UnfoldAction]:
        """Those that this user may press, and that can do something for the row."""
        buttons = super().get_actions_detail(request, object_id)
        row = self.get_object(request, str(object_id)) if buttons else None
        return [button for button in buttons if row and self.offered_when.get(button.path, lambda row: True)(row)]
