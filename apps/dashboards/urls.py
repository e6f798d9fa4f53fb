"""Paths of the pages, without a trailing slash. Filters, ranges and searches are in the query string."""

from django.urls import path

from apps.dashboards.views import (
    alert_setup,
    alerts,
    anomalies,
    audit,
    cache,
    checkpoints,
    compare,
    fleet,
    library,
    live,
    metrics,
    recovery,
    reports,
    retention,
    run,
    runs,
    search,
    session,
    versions,
)
from apps.kernels.models import CachePlanKind

app_name = "dashboards"

urlpatterns = [
    path("", session.home, name="home"),
    path("login", session.LogIn.as_view(), name="login"),
    path("logout", session.log_out, name="logout"),
    path("search", search.results, name="search"),
    path("runs", runs.listing, name="runs"),
    path("runs/new", runs.new, name="new-run"),
    path("runs/compare", compare.overview, name="compare"),
    path("runs/compare.json", compare.points, name="compare-points"),
    path("runs/compare.csv", compare.csv_file, name="compare-csv"),
    path("runs/compare/<slug:chart>", compare.table, name="compare-table"),
    path("runs/<uuid:run_id>", run.detail, name="run"),
    path("runs/<uuid:run_id>/panels", run.panels, name="run-panels"),
    path("runs/<uuid:run_id>/stop", run.stop, name="run-stop"),
    path("runs/<uuid:run_id>/pause", run.pause, name="run-pause"),
    path("runs/<uuid:run_id>/resume", run.resume, name="run-resume"),
    path("runs/<uuid:run_id>/live.json", live.poll, name="run-live"),
    path("runs/<uuid:run_id>/recorded.json", live.recorded, name="run-recorded"),
    path("runs/<uuid:run_id>/charts/<slug:chart>", live.table, name="run-table"),
    path("runs/<uuid:run_id>/charts/<slug:chart>.csv", live.csv_file, name="run-csv"),
    path("library", library.listing, name="library"),
    path("library/kernels/<uuid:kernel_id>", library.kernel, name="kernel"),
    path("library/kernels/<uuid:kernel_id>/retention", retention.explain, name="kernel-retention"),
    path("library/retirement", retention.listing, name="retirement"),
    path("library/retirement/policies/<uuid:policy_id>/plan", retention.make, name="retention-make"),
    path("library/retirement/plans/<uuid:plan_id>", retention.review, name="retention-plan"),
    *(
        path(f"library/retirement/plans/<uuid:plan_id>/{step}", retention.take, {"step": step}, f"retention-{step}")
        for step in retention.STEPS
    ),
    path("library/blueprints/<uuid:blueprint_id>", versions.blueprint, name="blueprint"),
    path("library/blueprints/<uuid:blueprint_id>/diff", versions.diff, name="version-diff"),
    path("cache", cache.overview, name="cache"),
    path("cache/latencies/<slug:tier>", cache.table, name="cache-table"),
    path("cache/latencies/<slug:tier>.csv", cache.csv_file, name="cache-csv"),
    *(path(f"cache/{kind}", cache.make, {"kind": kind}, f"cache-{kind}") for kind in CachePlanKind.values),
    path("cache/plans/<uuid:plan_id>", cache.review, name="cache-plan"),
    *(
        path(f"cache/plans/<uuid:plan_id>/{step}", cache.take, {"step": step}, f"cache-plan-{step}")
        for step in cache.STEPS
    ),
    path("checkpoints", checkpoints.listing, name="checkpoints"),
    path("checkpoints.csv", checkpoints.csv_file, name="checkpoints-csv"),
    path("checkpoints/<uuid:checkpoint_id>", checkpoints.detail, name="checkpoint"),
    path("checkpoints/<uuid:checkpoint_id>/diff", checkpoints.diff, name="checkpoint-diff"),
    *(
        path(f"checkpoints/<uuid:checkpoint_id>/{step}", checkpoints.take, {"step": step}, f"checkpoint-{step}")
        for step in checkpoints.STEPS
    ),
    path("runs/<uuid:run_id>/save", checkpoints.save, name="run-save"),
    path("checkpoints/jobs/<uuid:job_id>/cancel", checkpoints.cancel, name="checkpoint-job-cancel"),
    path("recovery", recovery.listing, name="recovery"),
    path("fleet", fleet.overview, name="fleet"),
    path("charts/metrics.json", metrics.poll, name="metrics"),
    path("charts/metrics", metrics.table, name="metrics-table"),
    path("charts/metrics.csv", metrics.csv_file, name="metrics-csv"),
    path("alerts", alerts.listing, name="alerts"),
    path("alerts/anomalies", anomalies.listing, name="anomalies"),
    path("alerts/rules", alert_setup.rules, name="alert-rules"),
    path("alerts/rules/<uuid:rule_id>", alert_setup.edit_rule, name="rule-edit"),
    path("alerts/silences", alert_setup.silences, name="silences"),
    path("alerts/silences/new", alert_setup.new_silence, name="new-silence"),
    path("alerts/routes", alert_setup.routes, name="alert-routes"),
    *(path(f"alerts/{step.path}", alert_setup.take, {"step": name}, name) for name, step in alert_setup.STEPS.items()),
    path("alerts/<uuid:alert_id>", alerts.detail, name="alert"),
    path("alerts/<uuid:alert_id>/acknowledge", alerts.acknowledge, name="alert-acknowledge"),
    path("alerts/<uuid:alert_id>/silence", alerts.silence, name="alert-silence"),
    path("audit", audit.listing, name="audit"),
    path("audit/events/<uuid:event_id>", audit.event, name="audit-event"),
    path("audit/events/<uuid:event_id>/proof", audit.proof, name="audit-proof"),
    path("audit/reports", reports.listing, name="reports"),
    path("audit/reports/<uuid:report_id>/reproduce", reports.reproduce, name="report-reproduce"),
    path("library/kernels/<uuid:kernel_id>/statement", reports.statement, name="kernel-statement"),
]
