from django.urls import path

from apps.audit.api import export, proofs, reports, views

urlpatterns = [
    path("audit/events", views.AuditEventListView.as_view()),
    path("audit/events/<uuid:id>", views.AuditEventView.as_view()),
    path("audit/export", export.AuditExportView.as_view()),
    path("audit/proofs/inclusion", proofs.InclusionProofView.as_view()),
    path("audit/proofs/consistency", proofs.ConsistencyProofView.as_view()),
    path("audit/checkpoints", proofs.CheckpointNoteListView.as_view()),
    path("audit/keys", proofs.KeyListView.as_view()),
    path("audit/state", proofs.TrailStateView.as_view()),
    path("audit/verifier", proofs.VerifierView.as_view()),
    path("audit/reports", reports.ReportListView.as_view()),
    path("audit/reports/<uuid:id>", reports.ReportView.as_view()),
    path("audit/reports/<uuid:id>/content", reports.ReportContentView.as_view()),
    path("audit/reports/<uuid:id>/note", reports.ReportNoteView.as_view()),
    path("audit/reports/<uuid:id>/reproduce", reports.ReproduceView.as_view()),
]
