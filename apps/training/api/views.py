"""`/runs`, what they grew, and the commands that people give them. Clients with a loop of their own: ``external``."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.checkpoints.api.serializers import CheckpointSerializer
from apps.checkpoints.filters import CheckpointOfRunFilter
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.selectors import checkpoints_of
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.idempotency import idempotent
from apps.training import selectors, services
from apps.training.api.requests import ExternalSettings, NewRun, RunCommand
from apps.training.api.serializers import (
    DecisionSerializer,
    EpochMetricSerializer,
    RunRow,
    RunSerializer,
    SeedRow,
    SeedSerializer,
)
from apps.training.filters import DecisionFilter, RunFilter, SeedFilter, SeedOfRunFilter
from apps.training.models import Decision, EpochMetric, RunKind, Seed, TrainingRun


class RunAnswer(ApiView):
    """Answers with a run, whose newest figures stand beside its own columns."""

    content_tagged = True

    def get_queryset(self) -> QuerySet[TrainingRun]:
        return selectors.runs()

    def answer(self, run: TrainingRun, *, code: int = 200, location: str = "") -> Response:
        """The run as it is after the service, with its annotations."""
        return self.show(selectors.runs().get(pk=run.pk), RunSerializer, code=code, location=location)


class RunListView(RunAnswer, ListView):
    """Runs, newest first, each with its newest figures."""

    serializer_class = RunRow
    filterset_class = RunFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewRun, responses={201: RunSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Create a run: `internal` ones are trained by our workers, `external` ones by a loop of your own."""
        given = self.parse(NewRun)
        create = self._create_external if given.pop("kind") == RunKind.EXTERNAL else services.create_run
        run = create(actor=actor_of(request), **given)
        return self.answer(run, code=201, location=f"/api/v1/runs/{run.pk}")

    def _create_external(self, *, settings: Mapping[str, Any], **given: Any) -> TrainingRun:
        read = self.parse_at("settings", ExternalSettings, settings)
        return services.create_external_run(settings=settings, **read, **given)


class RunResource(RunAnswer, DetailView):
    """A run at ``/runs/{id}``, whatever is done with it."""

    serializer_class = RunSerializer


class RunView(PastView, RunResource):
    """One run with its settings and its result."""

    scopes = {"GET": "runs:read"}


class CommandView(RunResource):
    """Asks something of a run, which it does at its next step boundary: the answer is 202."""

    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]
    command: ClassVar[Callable[..., TrainingRun]]

    @extend_schema(request=RunCommand, responses={202: RunSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        given = self.parse(RunCommand)
        return self.answer(type(self).command(run=self.get_object(), actor=actor_of(request), **given), code=202)


class PauseView(CommandView):
    """Ask the run to pause. It resumes bit-exactly."""

    command = staticmethod(services.pause_run)


class ResumeView(CommandView):
    """Let a paused run go on."""

    command = staticmethod(services.resume_run)


class StopView(CommandView):
    """End the run for good."""

    command = staticmethod(services.stop_run)


class OfRunView(ListView):
    """A list of what belongs to the run in the path."""

    parent = TrainingRun
    scopes = {"GET": "runs:read"}


class RunMetricsView(OfRunView):
    """What each epoch measured, from the first."""

    serializer_class = EpochMetricSerializer
    sorts = ("epoch", "-epoch")

    def get_queryset(self) -> QuerySet[EpochMetric]:
        return EpochMetric.objects.filter(run_id=self.kwargs.get("id"))


class RunSeedsView(OfRunView):
    """The seeds of one run, in the order of germination."""

    serializer_class = SeedRow
    filterset_class = SeedOfRunFilter
    sorts = ("number", "-number")

    def get_queryset(self) -> QuerySet[Seed]:
        return selectors.seeds_of(self.kwargs.get("id"))


class RunCheckpointsView(OfRunView):
    """The checkpoints of one run, newest first."""

    serializer_class = CheckpointSerializer
    filterset_class = CheckpointOfRunFilter

    def get_queryset(self) -> QuerySet[Checkpoint]:
        return checkpoints_of(self.kwargs.get("id"))


class SeedListView(ListView):
    """Seeds of all runs, newest first."""

    queryset = Seed.objects.select_related("slot")
    serializer_class = SeedRow
    filterset_class = SeedFilter
    scopes = {"GET": "runs:read"}


class SeedView(PastView):
    """One seed with its transitions: what each gate measured and asked for."""

    queryset = Seed.objects.select_related("slot").prefetch_related("transitions")
    serializer_class = SeedSerializer
    scopes = {"GET": "runs:read"}
    content_tagged = True


class DecisionListView(ListView):
    """Decisions of the policy, newest first."""

    queryset = Decision.objects.all()
    serializer_class = DecisionSerializer
    filterset_class = DecisionFilter
    scopes = {"GET": "runs:read"}


class DecisionView(DetailView):
    """One decision."""

    queryset = Decision.objects.all()
    serializer_class = DecisionSerializer
    scopes = {"GET": "runs:read"}
    content_tagged = True
