"""The real addresses and four offenders, to prove that the walk finds each."""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView
from esper_site.urls import urlpatterns as real

PREFIX = "api/v1/planted/"


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open to everybody")


class WithoutScopes(ApiView):
    def get(self, request: Request) -> Response:
        return Response({})


class OpenToAll(ApiView):
    permission_classes = (AllowAny,)
    scopes = {"GET": "runs:read"}

    def get(self, request: Request) -> Response:
        return Response({})


class AskingForTheWrongScope(ApiView):
    """Guards a method by a scope that does not exist: everybody is refused, which the scopes test finds."""

    scopes = {"POST": "planted:write"}

    def post(self, request: Request) -> Response:
        return Response({})


urlpatterns = [
    *real,
    path(f"{PREFIX}plain", plain),
    path(f"{PREFIX}without-scopes", WithoutScopes.as_view()),
    path(f"{PREFIX}open", OpenToAll.as_view()),
    path(f"{PREFIX}wrong-scope", AskingForTheWrongScope.as_view()),
]
