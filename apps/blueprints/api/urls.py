from django.urls import path

from apps.blueprints.api import views

urlpatterns = [
    path("blueprints", views.BlueprintListView.as_view()),
    path("blueprints/<uuid:id>", views.BlueprintView.as_view()),
    path("blueprints/<uuid:id>/versions", views.VersionListView.as_view()),
    path("blueprints/<uuid:id>/versions/<int:number>", views.VersionView.as_view()),
]
