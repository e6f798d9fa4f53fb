from django.urls import path

from apps.training.api import catalogue, external, recoveries, uploads, views

urlpatterns = [
    path("catalogue", catalogue.CatalogueView.as_view()),
    path("runs", views.RunListView.as_view()),
    path("runs/<uuid:id>", views.RunView.as_view()),
    path("runs/<uuid:id>/pause", views.PauseView.as_view()),
    path("runs/<uuid:id>/resume", views.ResumeView.as_view()),
    path("runs/<uuid:id>/stop", views.StopView.as_view()),
    path("runs/<uuid:id>/heartbeat", external.HeartbeatView.as_view()),
    path("runs/<uuid:id>/events", external.EventsView.as_view()),
    path("runs/<uuid:id>/finish", external.FinishView.as_view()),
    path("runs/<uuid:id>/metrics", views.RunMetricsView.as_view()),
    path("runs/<uuid:id>/seeds", views.RunSeedsView.as_view()),
    path("runs/<uuid:id>/checkpoints", views.RunCheckpointsView.as_view()),
    path("runs/<uuid:id>/checkpoints/uploads", uploads.UploadsView.as_view()),
    path("runs/<uuid:id>/checkpoints/uploads/<uuid:upload>/commit", uploads.CommitView.as_view()),
    path(
        "runs/<uuid:id>/checkpoints/uploads/<uuid:upload>/objects/<slug:digest>", uploads.UploadedObjectView.as_view()
    ),
    path("recoveries", recoveries.RecoveryListView.as_view()),
    path("recoveries/<uuid:id>", recoveries.RecoveryView.as_view()),
    path("seeds", views.SeedListView.as_view()),
    path("seeds/<uuid:id>", views.SeedView.as_view()),
    path("decisions", views.DecisionListView.as_view()),
    path("decisions/<uuid:id>", views.DecisionView.as_view()),
]
