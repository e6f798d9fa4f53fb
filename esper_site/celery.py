"""The Celery application: three queues (default, train, compile) and the beat schedule.

Nothing is computed with torch in a process that forks: `train` imports it in the forked child only.
"""

import os

from celery import Celery
from django.conf import settings
from django_structlog.celery.steps import DjangoStructLogInitStep

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "esper_site.settings.dev")

app = Celery("esper")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)


STALE_SECONDS = 1_800
"""After which a message of what is asked for often is not worth doing any more. Much longer than until the next one:
in a queue in which each message waits longer than it is good for, nothing would ever be done, and nobody be told of it;
nor where the clocks of beat and worker differ. One that comes late costs little. (``expires``, as Celery's own
scheduler has it, is passed over by the one that keeps the schedule in the database.)"""


def _often(task: str, seconds: float) -> dict[str, object]:
    return {"task": task, "schedule": seconds, "options": {"expire_seconds": STALE_SECONDS}}


app.conf.beat_schedule = {
    "recover-orphans": {"task": "apps.training.tasks.recover_orphans", "schedule": settings.ORPHAN_SCAN_SECONDS},
    "dispatch-queued-runs": {"task": "apps.training.tasks.dispatch_queued", "schedule": 15.0},
    "load-library": {"task": "apps.blueprints.tasks.load_library", "schedule": 60.0},
    "retry-stuck-compiles": {"task": "apps.kernels.tasks.retry_stuck", "schedule": 30.0},
    "grade-kernels": {"task": "apps.kernels.tasks.grade_kernels", "schedule": 300.0},
    "plan-retention": {"task": "apps.kernels.tasks.plan_retention", "schedule": 86_400.0},
    "settle-retention-plans": {"task": "apps.kernels.tasks.settle_plans", "schedule": 300.0},
    "purge-retired-kernels": {"task": "apps.kernels.tasks.purge_retired", "schedule": 3_600.0},
    "relay-cache": {"task": "apps.kernels.tasks.relay_cache", "schedule": 5.0},
    "flush-accesses": {"task": "apps.kernels.tasks.flush_accesses", "schedule": 30.0},
    "rebalance-cache": {"task": "apps.kernels.tasks.rebalance_cache", "schedule": 300.0},
    "warm-cache": {"task": "apps.kernels.tasks.warm_cache", "schedule": 300.0},
    "continue-cache-plans": {"task": "apps.kernels.tasks.continue_cache_plans", "schedule": 120.0},
    "seal-audit": {"task": "apps.audit.tasks.seal", "schedule": settings.AUDIT_SEAL_SECONDS},
    "archive-audit": {"task": "apps.audit.tasks.archive", "schedule": 86_400.0},
    "index-audit-text": {"task": "apps.audit.tasks.index_text", "schedule": 86_400.0},
    "verify-audit-wholly": {"task": "apps.audit.tasks.verify_all", "schedule": 604_800.0},
    "verify-audit": {"task": "apps.audit.tasks.verify", "schedule": 86_400.0},
    "write-waiting-reports": {"task": "apps.audit.tasks.write_waiting_reports", "schedule": 15.0},
    "make-audit-partitions": {"task": "apps.audit.tasks.make_partitions", "schedule": 3_600.0},
    "expire-idempotency-keys": {"task": "apps.core.tasks.expire_idempotency_keys", "schedule": 3_600.0},
    "keep-checkpoints": {"task": "apps.checkpoints.tasks.keep_checkpoints", "schedule": 3_600.0},
    "collect-checkpoints": {"task": "apps.checkpoints.tasks.collect_checkpoints", "schedule": 1_800.0},
    "archive-checkpoints": {"task": "apps.checkpoints.tasks.archive_checkpoints", "schedule": 300.0},
    "scrub-checkpoints": {"task": "apps.checkpoints.tasks.scrub_checkpoints", "schedule": 3_600.0},
    "collect": _often("apps.observability.tasks.collect", 15.0),
    "scan-anomalies": _often("apps.observability.tasks.scan_anomalies", 15.0),
    "evaluate-alerts": _often("apps.observability.tasks.evaluate_alerts", 15.0),
    "roll-up": _often("apps.observability.tasks.roll_up", 60.0),
    "deliver": _often("apps.observability.tasks.deliver", 5.0),
    "continue-checkpoint-jobs": {"task": "apps.checkpoints.tasks.continue_jobs", "schedule": 60.0},
}
