from django.urls import path

from apps.blueprints.api import breeding, lineage, views

urlpatterns = [
    path("blueprints", views.BlueprintListView.as_view()),
    path("blueprints/<uuid:id>", views.BlueprintView.as_view()),
    path("blueprints/<uuid:id>/versions", views.VersionListView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>", views.VersionView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>/diff", breeding.DiffView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>/clone", breeding.CloneView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>/mutate", breeding.MutateView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>/cross", breeding.CrossView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>/lineage", lineage.VersionLineageView.as_view()),
    path("blueprints/<uuid:id>/lineage", lineage.BlueprintLineageView.as_view()),
]
