"""All rules of the recommendations, with their limits: the table of docs/analysis.md."""

from apps.observability.recommendations import attention, capacity, growth
from apps.observability.recommendations.contracts import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        key="disk_full",
        about="a disk is nearly full, or will be by the trend of a week",
        limits={"full_ratio": 0.9, "within_days": 28, "urgent_days": 3},
        find=capacity.disk_full,
    ),
    Rule(
        key="database_full",
        about="the database has used its budget, or will have by the trend of a week",
        limits={"within_days": 28, "urgent_days": 3},
        find=capacity.database_full,
    ),
    Rule(
        key="cache_too_small",
        about="a tier of the kernel cache answers few of a day's reads while copies leave it for others",
        limits={"least_reads": 1_000, "hit_ratio": 0.8, "evictions_per_read": 0.05},
        find=capacity.cache_too_small,
    ),
    Rule(
        key="workers_short",
        about="the oldest message of a queue waits long, and ever longer",
        limits={"hours": 3, "wait_seconds": 60},
        find=capacity.workers_short,
    ),
    Rule(
        key="too_many_series",
        about="the number of series is near its cap, or most of them are unused",
        limits={"cap_ratio": 0.8, "unused_days": 7, "unused_ratio": 0.5, "least_series": 1_000},
        find=capacity.too_many_series,
    ),
    Rule(
        key="rollbacks",
        about="an operator's or a kernel's seeds of a week were rolled back too often, beyond chance",
        limits={"least_seeds": 10, "rollback_ratio": 0.1},
        find=growth.rollbacks,
    ),
    Rule(
        key="kernel_never_kept",
        about="a validated kernel was grafted often, and no run kept it",
        limits={"least_grafts": 5},
        find=growth.never_kept,
    ),
    Rule(
        key="plateau",
        about="a running run neither improves nor grows, and has free slots",
        limits={"least_epochs": 30},
        find=growth.plateaus,
    ),
    Rule(
        key="checkpoint_interval",
        about="saving costs too much of a run's time, or a crash would lose much that saving could keep for little",
        limits={
            "least_saves": 4,
            "overhead_ratio": 0.01,
            "auto_ratio": 0.005,
            "long_seconds": 2_700,
            "times_cheap": 4,
        },
        find=growth.checkpoint_interval,
    ),
    Rule(
        key="failing_deliveries",
        about="messages about alerts do not arrive",
        limits={"hours": 24, "attempts": 3},
        find=attention.deliveries,
    ),
    Rule(
        key="unacknowledged_alerts",
        about="alerts of severity warning or critical fire for long, and nobody has acknowledged",
        limits={"hours": 4},
        find=attention.unacknowledged,
    ),
    Rule(
        key="noisy_detector",
        about="the detector finds anomalies in one series all day",
        limits={"hours": 24, "anomalies": 20},
        find=attention.noisy_detector,
    ),
)
