from django.urls import path

from apps.kernels.api import aliases, binary, lineage, retention, search, variants, views

urlpatterns = [
    path("kernels", views.KernelListView.as_view()),
    path("kernels/search", search.KernelSearchView.as_view()),
    path("kernels/<uuid:id>", views.KernelView.as_view()),
    path("kernels/<uuid:id>/deprecate", views.DeprecateView.as_view()),
    path("kernels/<uuid:id>/quarantine", views.QuarantineView.as_view()),
    path("kernels/<uuid:id>/binary", binary.BinaryView.as_view()),
    path("kernels/<uuid:id>/blob", binary.KernelBlobView.as_view()),
    path("blobs/<slug:digest>", binary.BlobView.as_view()),
    path("kernels/<uuid:id>/aliases/<slug:name>", aliases.KernelAliasView.as_view()),
    path("kernels/<uuid:id>/lineage", lineage.KernelLineageView.as_view()),
    path("blueprints/<uuid:id>/aliases", aliases.AliasListView.as_view()),
    path("blueprints/<uuid:id>/aliases/<slug:name>", aliases.AliasView.as_view()),
    path("blueprints/<uuid:id>/aliases/<slug:name>/history", aliases.AliasHistoryView.as_view()),
    path("kernels/<uuid:id>/variants", variants.VariantListView.as_view()),
    path("kernels/<uuid:id>/variants/<slug:digest>/binary", variants.VariantBinaryView.as_view()),
    path("kernels/<uuid:id>/retire", retention.RetireView.as_view()),
    path("kernels/<uuid:id>/restore", retention.RestoreView.as_view()),
    path("kernels/<uuid:id>/tier", retention.TierView.as_view()),
    path("kernels/<uuid:id>/retention/explain", retention.ExplainView.as_view()),
    path("retention/policies", retention.PolicyListView.as_view()),
    path("retention/policies/<uuid:id>", retention.PolicyView.as_view()),
    path("retention/plans", retention.PlanListView.as_view()),
    path("retention/plans/<uuid:id>", retention.PlanView.as_view()),
    path("retention/plans/<uuid:id>/items", retention.PlanItemsView.as_view()),
    path("retention/plans/<uuid:id>/approve", retention.ApproveView.as_view()),
    path("retention/plans/<uuid:id>/apply", retention.ApplyView.as_view()),
    path("retention/plans/<uuid:id>/discard", retention.DiscardView.as_view()),
    path("field-reports", views.FieldReportListView.as_view()),
]
