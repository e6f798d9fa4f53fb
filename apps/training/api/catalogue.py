"""`/catalogue`: what a run may name, read from the tables that check it."""

import dataclasses
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.blueprints.spec import OPERATORS, OPS
from apps.core.api import ApiView
from apps.core.concurrency import content_etag
from apps.core.permissions import ANY
from apps.morphogenesis.catalogue import HOSTS, RECIPES, TASKS
from apps.morphogenesis.settings import GrowthSettings, RunSettings


class TaskCardSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    input_shape = serializers.ListField(child=serializers.IntegerField())
    classes = serializers.IntegerField()
    hosts = serializers.ListField(child=serializers.CharField())


class HostCardSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    width = serializers.IntegerField()
    depth = serializers.IntegerField()


class RecipeSerializer(serializers.Serializer[Any]):
    task = serializers.CharField()
    host = serializers.CharField()
    width = serializers.IntegerField()
    epochs = serializers.IntegerField()
    learning_rate = serializers.FloatField()


class SettingSerializer(serializers.Serializer[Any]):
    """``low`` and ``high`` are inclusive; null where there is no bound."""

    name = serializers.CharField()
    type = serializers.CharField()
    default = serializers.JSONField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    choices = serializers.ListField(child=serializers.CharField(), allow_null=True)
    help = serializers.CharField(allow_blank=True)


class CatalogueSerializer(serializers.Serializer[Any]):
    tasks = TaskCardSerializer(many=True)
    hosts = HostCardSerializer(many=True)
    recipes = RecipeSerializer(many=True)
    settings = SettingSerializer(many=True)
    growth = SettingSerializer(many=True, help_text="the members of settings.growth")
    operators = serializers.ListField(child=serializers.CharField())
    operations = serializers.ListField(child=serializers.CharField())


class CatalogueView(ApiView):
    """What a run may name."""

    serializer_class = CatalogueSerializer
    scopes = {"GET": ANY}
    conditional = True

    @extend_schema(responses=CatalogueSerializer)
    def get(self, request: Request) -> Response:
        """Tasks, hosts, and every setting of a run with its bounds."""
        data = CatalogueSerializer(catalogue()).data
        return self.read(data, content_etag(None, data))


def catalogue() -> dict[str, Any]:
    return {
        "tasks": list(TASKS.values()),
        "hosts": list(HOSTS.values()),
        "recipes": [{"task": t, "host": h, **dataclasses.asdict(recipe)} for (t, h), recipe in RECIPES.items()],
        "settings": _settings(RunSettings),
        "growth": _settings(GrowthSettings),
        "operators": list(OPERATORS),
        "operations": sorted(OPS),
    }


def _settings(kind: type[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "type": "object" if field.name == "topology" else type(field.default).__name__,
            "default": field.default,
            "low": field.metadata.get("low"),
            "high": field.metadata.get("high"),
            "choices": field.metadata.get("choices"),
            "help": field.metadata.get("help", ""),
        }
        for field in dataclasses.fields(kind)
        if field.name != "growth"
    ]
