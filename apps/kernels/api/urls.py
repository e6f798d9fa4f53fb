from django.urls import path

from apps.kernels.api import aliases, binary, lineage, variants, views

urlpatterns = [
    path("kernels", views.KernelListView.as_view()),
    path("kernels/<uuid:id>", views.KernelView.as_view()),
    path("kernels/<uuid:id>/binary", binary.BinaryView.as_view()),
    path("kernels/<uuid:id>/aliases/<slug:name>", aliases.KernelAliasView.as_view()),
    path("kernels/<uuid:id>/lineage", lineage.KernelLineageView.as_view()),
    path("blueprints/<uuid:id>/aliases", aliases.AliasListView.as_view()),
    path("blueprints/<uuid:id>/aliases/<slug:name>", aliases.AliasView.as_view()),
    path("blueprints/<uuid:id>/aliases/<slug:name>/history", aliases.AliasHistoryView.as_view()),
    path("kernels/<uuid:id>/variants", variants.VariantListView.as_view()),
    path("kernels/<uuid:id>/variants/<slug:digest>/binary", variants.VariantBinaryView.as_view()),
    path("field-reports", views.FieldReportListView.as_view()),
]
