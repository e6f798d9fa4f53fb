from django.urls import path

from apps.audit.api import views

urlpatterns = [
    path("audit/events", views.AuditEventListView.as_view()),
    path("audit/events/<uuid:id>", views.AuditEventView.as_view()),
]
