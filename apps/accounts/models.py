"""Who may do what: users with one role each, their API tokens, and the workspace that owns the assets."""

from typing import Any, ClassVar

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone
from knox.models import AbstractAuthToken

from apps.accounts.roles import ROLE_SCOPES, Role, Scope
from apps.audit.watched import Watched
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.core.models import BaseModel

DEFAULT_WORKSPACE = "default"


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox names it on the abstract model
    """A person or a service account. The role decides the scopes; Django's own permissions are not used."""

    audit: ClassVar[Watched] = Watched(
        subject="user",
        outside={"last_login", "date_joined"},
        secret={"password"},
        personal={"username", "email", "first_name", "last_name"},
    )

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    role = models.CharField(max_length=16, choices=choices(Role), default=Role.VIEWER)

    class Meta(AbstractUser.Meta):
        constraints = [models.CheckConstraint(condition=state_check("role", Role), name="user_role_is_known")]

    def check_password(self, raw_password: str | None) -> bool:
        """As Django's own, but an outdated hash is renewed by the service: that is an event."""

        def renew(password: str) -> None:
            from apps.accounts.services import renew_password_hash

            self.password = renew_password_hash(user=self, password=password).password

        return check_password(raw_password, self.password, renew)

    @property
    def scopes(self) -> frozenset[str]:
        return ROLE_SCOPES[Role.ADMIN] if self.is_superuser else ROLE_SCOPES.get(self.role, frozenset())

    def has_scope(self, scope: str) -> bool:
        return self.is_active and scope in self.scopes

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """The admin site asks by Django's names; the admin classes ask by scope (``core.admin``)."""
        return self.is_active and self.is_superuser

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_staff


class ApiToken(AbstractAuthToken):
    """A bearer token: only its SHA-512 is stored. Effective scopes = its own, cut down to its user's role."""

    audit: ClassVar[Watched] = Watched(
        subject="token", outside={"created", "last_used_at"}, secret={"digest", "token_key"}
    )

    id = models.UUIDField(default=new_id, editable=False, unique=True)
    name = models.CharField(max_length=100)
    scopes = ArrayField(models.CharField(max_length=32, choices=choices(Scope)), default=list)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.name

    @property
    def effective_scopes(self) -> frozenset[str]:
        return self.user.scopes & frozenset(self.scopes)

    @property
    def is_expired(self) -> bool:
        return self.expiry is not None and self.expiry < timezone.now()


class Workspace(BaseModel):
    """Owns top-level assets; names are unique within it. One default row: tenancy comes later."""

    audit: ClassVar[Watched] = Watched(subject="workspace")

    name = models.CharField(max_length=100, unique=True)

    def __str__(self) -> str:
        return self.name


def default_workspace_id() -> Any:
    """Key of the default workspace, for model defaults (the row is made by the first migration)."""
    return Workspace.objects.values_list("id", flat=True).get(name=DEFAULT_WORKSPACE)


class WorkspaceOwned(BaseModel):
    """A top-level asset: belongs to one workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="+", default=default_workspace_id)

    class Meta:
        abstract = True
