from django.urls import path

from apps.kernels.api import binary, views

urlpatterns = [
    path("kernels", views.KernelListView.as_view()),
    path("kernels/<uuid:id>", views.KernelView.as_view()),
    path("kernels/<uuid:id>/binary", binary.BinaryView.as_view()),
    path("field-reports", views.FieldReportListView.as_view()),
]
