from django.urls import path

from apps.checkpoints.api import policies, transfer, views

urlpatterns = [
    path("checkpoints", views.CheckpointListView.as_view()),
    path("checkpoints/<uuid:id>", views.CheckpointView.as_view()),
    path("checkpoints/<uuid:id>/verify", views.VerifyView.as_view()),
    path("checkpoints/<uuid:id>/restore", views.RestoreView.as_view()),
    path("checkpoints/<uuid:id>/replay", views.ReplayView.as_view()),
    path("checkpoints/<uuid:id>/archive", views.ArchiveView.as_view()),
    path("checkpoints/<uuid:id>/recall", views.RecallView.as_view()),
    path("checkpoints/<uuid:id>/pin", views.PinView.as_view()),
    path("checkpoints/<uuid:id>/unpin", views.UnpinView.as_view()),
    path("checkpoints/<uuid:id>/diff", views.DiffView.as_view()),
    path("checkpoints/<uuid:id>/manifest", transfer.ManifestView.as_view()),
    path("checkpoints/<uuid:id>/objects/<slug:digest>", transfer.ObjectView.as_view()),
    path("checkpoint-policies", policies.PolicyListView.as_view()),
    path("checkpoint-policies/<uuid:id>", policies.PolicyView.as_view()),
    path("checkpoint-policies/<uuid:id>/preview", policies.PreviewView.as_view()),
]
