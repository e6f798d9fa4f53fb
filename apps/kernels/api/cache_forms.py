"""Statistics and plans of the cache as the API shows and takes them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.lifecycle import choices
from apps.core.serializers import Choice, Flag, Identifier, StrictSerializer
from apps.kernels.api.serializers import Reason
from apps.kernels.cache import reporting
from apps.kernels.cache.config import POLICIES
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.stats import SIZE_CLASSES
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import CachePlan, CachePlanKind, StorageTier

TIERS = [str(name) for name in TierName]
PLACES = (*StorageTier.values, str(TierName.L3), str(TierName.L2))
BREAKER_STATES = ("closed", "open", "half-open")


class StatsQuestion(StrictSerializer):
    """The parameters of a request for statistics."""

    scope = Choice(choices=reporting.SCOPES, default=reporting.FLEET)
    window = Choice(choices=reporting.WINDOWS, required=False)


# --- What was counted


class CacheLatencySerializer(serializers.Serializer[reporting.Latency]):
    """Milliseconds; null where there were no hits. A percentile is at most 21 % off."""

    mean_ms = serializers.FloatField(allow_null=True)
    p50_ms = serializers.FloatField(allow_null=True)
    p95_ms = serializers.FloatField(allow_null=True)
    p99_ms = serializers.FloatField(allow_null=True)


class CacheCountsSerializer(serializers.Serializer[reporting.Counts]):
    hits = serializers.IntegerField(help_text="reads that it answered, segment by segment (4 MiB)")
    misses = serializers.IntegerField(help_text="reads for which it was asked and had nothing")
    hit_rate = serializers.FloatField(allow_null=True, help_text="hits among the reads that came as far as this tier")
    answered_share = serializers.FloatField(allow_null=True, help_text="its hits among those of all tiers")
    bytes = serializers.IntegerField(help_text="that it gave out")
    fills = serializers.IntegerField(help_text="copies that it took")
    refused = serializers.IntegerField(help_text="copies that it did not take")
    evictions = serializers.IntegerField(help_text="copies that left it for others, or for their age")
    promotions = serializers.IntegerField(help_text="copies that came because they are read often")
    demotions = serializers.IntegerField(help_text="copies that left because they are read seldom")
    coalesced = serializers.IntegerField(help_text="loads that were spared: somebody else's was waited for")
    heals = serializers.IntegerField(help_text="copies that were put right from another tier")
    corrupt = serializers.IntegerField(help_text="copies that were not what had been put there")
    errors = serializers.IntegerField(  # type: ignore[assignment]  # declared fields leave the class
        help_text="reads that went past it: it did not answer, not in time, or is left alone"
    )
    latency = CacheLatencySerializer()


class CacheSizeClassSerializer(CacheCountsSerializer):
    """What a tier did for blobs of one size class."""

    size = serializers.ChoiceField(choices=SIZE_CLASSES, help_text="of the largest blob in the class")


class CacheBucketSerializer(serializers.Serializer[reporting.Bucket]):
    le_ms = serializers.FloatField(allow_null=True, help_text="the upper bound; null: more than 10 s")
    hits = serializers.IntegerField()


class CacheTierSerializer(CacheCountsSerializer):
    """What a tier did. Buckets and size classes in which nothing was counted are left out."""

    buckets = CacheBucketSerializer(many=True, help_text="hits by how long they took; 12 bounds to a decade, from 1 us")
    by_size = CacheSizeClassSerializer(many=True)


class CacheTiersSerializer(serializers.Serializer[Any]):
    """L1 the memory of a process, L2 Redis, L3 PostgreSQL, L4 the object storage."""

    l1 = CacheTierSerializer()
    l2 = CacheTierSerializer()
    l3 = CacheTierSerializer()
    l4 = CacheTierSerializer()


# --- How it is now


class CacheMemorySerializer(serializers.Serializer[reporting.MemoryReport]):
    bytes = serializers.IntegerField()
    budget = serializers.IntegerField()
    entries = serializers.IntegerField(help_text="segments")
    policy = serializers.ChoiceField(choices=POLICIES, help_text="who leaves first")


class CacheBreakerSerializer(serializers.Serializer[reporting.BreakerReport]):
    tier = serializers.ChoiceField(choices=TIERS)
    state = serializers.ChoiceField(choices=BREAKER_STATES, help_text="open: the process leaves the tier alone")
    since = serializers.DateTimeField()


class CacheProcessSerializer(serializers.Serializer[reporting.ProcessReport]):
    """A process that serves, as it described itself within the last half-minute."""

    name = serializers.CharField(help_text="host and process id")
    role = serializers.CharField(help_text="the program that it runs")
    started_at = serializers.DateTimeField()
    published_at = serializers.DateTimeField()
    l1 = CacheMemorySerializer()
    breakers = CacheBreakerSerializer(many=True)


class CacheRedisSerializer(serializers.Serializer[reporting.RedisReport]):
    """The server of L2. The numbers are null while it does not answer."""

    used_bytes = serializers.IntegerField(allow_null=True)
    limit_bytes = serializers.IntegerField(allow_null=True, help_text="its maxmemory; null: it has none")
    keys = serializers.IntegerField(allow_null=True, help_text="of everybody who uses the server")
    evicted = serializers.IntegerField(allow_null=True, help_text="keys that it dropped for others since it started")
    problem = serializers.CharField(help_text="why it does not answer; empty: it does")


class CacheStoredSerializer(serializers.Serializer[reporting.Stored]):
    blobs = serializers.IntegerField()
    bytes = serializers.IntegerField()


class CacheHeldSerializer(serializers.Serializer[reporting.Held]):
    kernels = serializers.IntegerField()
    bytes = serializers.IntegerField()


class CacheStorageSerializer(serializers.Serializer[Any]):
    """hot: may live in L1 and L2; warm: L3; cold: L4 alone; archive: L4, and not read until it is moved."""

    hot = CacheHeldSerializer()
    warm = CacheHeldSerializer()
    cold = CacheHeldSerializer()
    archive = CacheHeldSerializer()


class CacheOwedSerializer(serializers.Serializer[Any]):
    """Rows of each kind."""

    fill = serializers.IntegerField(help_text="bytes for L2")
    copy = serializers.IntegerField(help_text="bytes for L4")
    forget = serializers.IntegerField(help_text="bytes that no process and no fast tier may keep")
    changed = serializers.IntegerField(help_text="kernels of which the processes must hear")


class CacheQueueSerializer(serializers.Serializer[reporting.QueueReport]):
    """What committed writes still owe to the other tiers. Nothing of it is ever given up."""

    rows = CacheOwedSerializer()
    failing = serializers.IntegerField(help_text="of them, those that have failed; they are tried again")
    oldest_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField(help_text="of the row that has failed most often")


class CacheGaugesSerializer(serializers.Serializer[reporting.Gauges]):
    processes = CacheProcessSerializer(many=True)
    l2 = CacheRedisSerializer(allow_null=True, help_text="null: there is no L2")
    l3 = CacheStoredSerializer()
    l4 = CacheStoredSerializer()
    storage_tiers = CacheStorageSerializer()
    queue = CacheQueueSerializer()
    pinned = CacheHeldSerializer(help_text="what live runs hold")


class CacheStatsSerializer(serializers.Serializer[Any]):
    scope = serializers.ChoiceField(choices=reporting.SCOPES)
    window = serializers.ChoiceField(choices=reporting.WINDOWS)
    tiers = CacheTiersSerializer()
    now = CacheGaugesSerializer()


def told(scope: str, window: str) -> dict[str, Any]:
    """The answer, as JSON values. Raises Unavailable."""
    counted = reporting.counted(scope, window)
    tiers = {str(name): reporting.tier(counted, name) for name in TierName}
    answer = {"scope": scope, "window": window, "tiers": tiers, "now": reporting.gauges(scope)}
    return dict(CacheStatsSerializer(answer).data)


# --- Plans


class CachePlanSerializer(serializers.ModelSerializer[CachePlan]):
    """``done`` of ``move_count`` moves have been tried."""

    kind = serializers.ChoiceField(choices=CachePlanKind.choices, read_only=True)
    state = serializers.ChoiceField(choices=choices(CachePlanState), read_only=True)
    move_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = CachePlan
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "state",
            "move_count",
            "done",
            "problem",
            "expires_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class CacheMoveSerializer(serializers.Serializer[Any]):
    """``from`` and ``to`` are storage tiers, or l3 and l2 for what is to be loaded."""

    kernel = serializers.UUIDField()
    name = serializers.CharField()
    digest = serializers.CharField()
    bytes = serializers.IntegerField()
    reason = serializers.CharField()

    def get_fields(self) -> dict[str, Any]:
        """``from`` is a word of Python: it cannot be declared above."""
        places = [(name, serializers.ChoiceField(choices=PLACES)) for name in ("from", "to")]
        return {**super().get_fields(), **dict(places)}


class CacheStorageBytesSerializer(serializers.Serializer[Any]):
    """Bytes by storage tier."""

    hot = serializers.IntegerField()
    warm = serializers.IntegerField()
    cold = serializers.IntegerField()
    archive = serializers.IntegerField()


class CacheFactsSerializer(serializers.Serializer[Any]):
    """What the plan was made from, and what it would come to."""

    kernels = serializers.IntegerField(help_text="that have bytes")
    held = serializers.IntegerField(help_text="of them, those that live runs hold")
    bytes_before = CacheStorageBytesSerializer()
    bytes_after = CacheStorageBytesSerializer()


class CacheLeftSerializer(serializers.Serializer[Any]):
    kernel = serializers.UUIDField()
    name = serializers.CharField()
    reason = serializers.CharField()


class CacheResultSerializer(serializers.Serializer[Any]):
    moved = serializers.IntegerField()
    bytes = serializers.IntegerField()
    left = CacheLeftSerializer(many=True, help_text="what stayed where it was, and why")


class CachePlanDetail(CachePlanSerializer):
    """At most 500 moves: what is left is in the next plan. ``result`` is null until the plan was applied."""

    move_count = serializers.SerializerMethodField()  # type: ignore[assignment]
    moves = CacheMoveSerializer(many=True, read_only=True)
    facts = CacheFactsSerializer(read_only=True)
    result = serializers.SerializerMethodField()

    class Meta(CachePlanSerializer.Meta):
        fields = (*CachePlanSerializer.Meta.fields, "moves", "facts", "result")
        read_only_fields = fields

    def get_move_count(self, plan: CachePlan) -> int:
        return len(plan.moves)

    @extend_schema_field(CacheResultSerializer(allow_null=True))
    def get_result(self, plan: CachePlan) -> Any:
        return plan.result or None


class NewCachePlan(Reason):
    """``dry_run`` false, or ``plan``: it is carried out."""

    dry_run = Flag(required=False, help_text="true, unless `plan` is given: write the plan down, move nothing")
    kind = Choice(
        choices=CachePlanKind.choices,
        required=False,
        help_text="optimise (the default): kernels between storage tiers; warm: what is read most into L2 and L1",
    )
    plan = Identifier(required=False, help_text="carry out this one, that was made before")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "plan" in attrs and attrs.get("dry_run"):
            raise serializers.ValidationError({"dry_run": "a plan that is made already is only carried out"})
        if "plan" in attrs and "kind" in attrs:
            raise serializers.ValidationError({"kind": "the plan has its kind already"})
        return attrs
