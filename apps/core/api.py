"""The base of every endpoint: scopes, strict parameters, keyset lists, detail with ETag. Endpoints stay thin on it.

A view parses, authorises (``scopes``) and calls one selector or one service; nothing else.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import Model
from django.http import Http404, QueryDict
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.mixins import ListModelMixin
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from apps.core.concurrency import content_etag, not_modified, require_match
from apps.core.errors import FieldError, Invalid
from apps.core.pagination import OWN_PARAMETERS, KeysetPagination


class Negotiation(DefaultContentNegotiation):
    """Answers have one form each, whatever Accept says (RFC 9110, section 12.5.1 allows it)."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        renderer: BaseRenderer = renderers[0]
        return renderer, renderer.media_type


class ApiView(GenericAPIView[Any]):
    """``scopes`` maps each method to the scope that it needs. Query parameters that nobody reads are refused."""

    scopes: ClassVar[Mapping[str, str]] = {}
    query_parameters: ClassVar[frozenset[str]] = frozenset()
    content_tagged: ClassVar[bool] = False
    """The answer shows more than the row's own columns (or the row has no version): its ETag follows the content."""
    pagination_class: Any = None
    filter_backends: Any = ()
    content_negotiation_class = Negotiation
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    lookup_field = "id"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method in self.allowed_methods:
            self._check_parameters(request)

    def _check_parameters(self, request: Request) -> None:
        """A parameter that is misspelt or left empty would silently widen the answer."""
        known = self.known_parameters(request)
        unknown = f"unknown parameter; known here: {', '.join(sorted(known)) or 'none'}"
        errors = [FieldError(f"/{name}", "unknown", unknown) for name in request.query_params if name not in known]
        for name, values in request.query_params.lists():
            if name in known and "" in values:
                errors.append(FieldError(f"/{name}", "empty", "is empty: give a value or leave it out"))
        if errors:
            raise Invalid(errors[0].detail, errors=errors)

    def known_parameters(self, request: Request) -> frozenset[str]:
        return self.query_parameters

    def parse(self, kind: type[BaseSerializer[Any]], data: Any = None) -> dict[str, Any]:
        """The checked body of the request. Raises ValidationError with every field at fault."""
        given = self.request.data if data is None else data
        if isinstance(given, QueryDict):  # an empty body that is said to be a form: what is missing would be "unticked"
            given = given.dict()
        serializer = kind(data=given)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def parse_at(self, name: str, kind: type[BaseSerializer[Any]], data: Any) -> dict[str, Any]:
        """Check ``data``, the member ``name`` of the body; its errors point there."""
        try:
            return self.parse(kind, data)
        except ValidationError as error:
            raise ValidationError({name: error.detail}) from None

    def etag(self, thing: Any, data: Any) -> str:
        """The version of what ``data`` shows."""
        return content_etag(getattr(thing, "row_version", None), data) if self.content_tagged else str(thing.etag)

    def show(self, thing: Any, kind: type[BaseSerializer[Any]], *, code: int = 200, location: str = "") -> Response:
        """``thing`` with its ETag; after a change, or as what was created at ``location``."""
        data = kind(thing, context=self.get_serializer_context()).data
        headers = {"ETag": self.etag(thing, data), **({"Location": location} if location else {})}
        return Response(data, status=code, headers=headers)

    def read(self, data: Any, etag: str) -> Response:
        """``data``, or 304 for a client that has this version."""
        if not_modified(self.request, etag):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers={"ETag": etag})
        return Response(data, headers={"ETag": etag})


class ListView(ListModelMixin, ApiView):
    """GET a keyset page of ``get_queryset()``, filtered by ``filterset_class``."""

    pagination_class = KeysetPagination
    filter_backends = (DjangoFilterBackend,)
    sorts: ClassVar[tuple[str, ...]] = ("-id", "id")
    filterset_class: Any = None
    parent: ClassVar[type[Model] | None] = None
    """What ``id`` in the path is the key of, when the list belongs to one thing: 404 when there is no such thing."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.parent is not None and not self.parent._default_manager.filter(pk=kwargs["id"]).exists():
            raise Http404

    def known_parameters(self, request: Request) -> frozenset[str]:
        if request.method not in {"GET", "HEAD"}:
            return self.query_parameters
        filters = self.filterset_class.base_filters if self.filterset_class else ()
        return self.query_parameters | OWN_PARAMETERS | frozenset(filters)

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class DetailView(ApiView):
    """GET one thing of ``get_queryset()``, with ETag and 304."""

    conditional: ClassVar[bool] = True

    def matched(self) -> Any:
        """The thing, locked for the transaction, when the client has seen its current version.

        Raises:
            PreconditionRequired: no If-Match. PreconditionFailed: it names another version.
        """
        thing = self.get_object()
        thing = type(thing)._base_manager.select_for_update(of=("self",)).get(pk=thing.pk)
        self._require_match(thing)
        return thing

    def seen(self) -> Any:
        """As ``matched``, but not locked: for what takes long and is done before the change."""
        thing = self.get_object()
        self._require_match(thing)
        return thing

    def _require_match(self, thing: Any) -> None:
        require_match(self.request, self.etag(thing, self.get_serializer(thing).data))

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        thing = self.get_object()
        data = self.get_serializer(thing).data
        return self.read(data, self.etag(thing, data))
