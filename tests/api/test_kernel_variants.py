"""`/kernels` with a pipeline, and `/kernels/{id}/variants`: what it made, and its bytes."""

import hashlib
from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels import services
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelChunk, KernelVariant
from tests.support.factories import BlueprintVersionFactory, KernelFactory

pytestmark = pytest.mark.django_db
BYTES = b"the weights in bfloat16" * 100


@pytest.fixture
def variant() -> KernelVariant:
    """A variant of a validated kernel."""
    return KernelVariant.objects.create(
        kernel=KernelFactory(state=KernelState.VALIDATED),
        memory_format="contiguous",
        dtype="bfloat16",
        digest=KernelStore().put(BYTES),
        size=len(BYTES),
    )


def binary(variant: KernelVariant, digest: str = "") -> str:
    return f"/api/v1/kernels/{variant.kernel_id}/variants/{digest or variant.digest}/binary"


class TestPipeline:
    @pytest.mark.parametrize("pipeline", ["fast", "standard", "aggressive"])
    def test_a_kernel_may_be_ordered_with_a_pipeline(self, admin: Any, pipeline: str) -> None:
        body = {"blueprint": BlueprintVersionFactory().blueprint.name, "pipeline": pipeline}

        answer = admin.post("/api/v1/kernels", body, format="json")

        assert (answer.status_code, answer.json()["pipeline"]) == (201, pipeline)
        assert Kernel.objects.get().pipeline == pipeline

    def test_fast_is_what_is_meant_when_nothing_is_said(self, admin: Any) -> None:
        answer = admin.post("/api/v1/kernels", {"blueprint": BlueprintVersionFactory().blueprint.name}, format="json")

        assert answer.json()["pipeline"] == "fast"

    @pytest.mark.parametrize("pipeline", ["warm_up", "", None, 3, ["fast"], {"a": 1}])
    def test_another_pipeline_is_refused_by_its_field(self, admin: Any, pipeline: Any) -> None:
        body = {"blueprint": BlueprintVersionFactory().blueprint.name, "pipeline": pipeline}

        answer = admin.post("/api/v1/kernels", body, format="json")

        assert answer.status_code == 400
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/pipeline"]
        assert not Kernel.objects.exists()

    def test_a_grade_in_the_tags_is_refused_by_its_pointer(self, admin: Any) -> None:
        body = {"blueprint": BlueprintVersionFactory().blueprint.name, "tags": {"high_speed": True}}

        answer = admin.post("/api/v1/kernels", body, format="json")

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/tags/high_speed")


def test_a_kernel_shows_where_it_was_measured_and_its_signature(admin: Any) -> None:
    registered = services.register_kernel(version=BlueprintVersionFactory(), actor=SYSTEM)
    kernel = services.process_kernel(kernel=registered)

    shown = admin.get(f"/api/v1/kernels/{kernel.pk}").json()

    assert shown["hardware"]["profile"] == kernel.hardware["profile"]
    spec_digest = kernel.report["validation"]["spec_digest"]
    assert shown["signature"].startswith(f"{spec_digest[:12]}-{kernel.hardware['profile']}-fast-")
    assert shown["compile_ms"] == kernel.compile_ms


class TestVariants:
    def test_they_are_listed_with_their_digests(self, admin: Any, variant: KernelVariant) -> None:
        KernelVariant.objects.create(
            kernel=KernelFactory(), memory_format="contiguous", dtype="float16", digest="0" * 64, size=1
        )

        answer = admin.get(f"/api/v1/kernels/{variant.kernel_id}/variants").json()

        assert [row["digest"] for row in answer["results"]] == [variant.digest]
        assert (answer["results"][0]["dtype"], answer["results"][0]["size"]) == ("bfloat16", len(BYTES))

    def test_those_of_an_unknown_kernel_are_not_found(self, admin: Any) -> None:
        assert admin.get(f"/api/v1/kernels/{new_id()}/variants").status_code == 404

    def test_the_bytes_are_those_of_the_variant(self, admin: Any, variant: KernelVariant) -> None:
        answer = admin.get(binary(variant))

        data = b"".join(answer.streaming_content)
        assert (data, hashlib.sha256(data).hexdigest()) == (BYTES, variant.digest)
        assert answer["ETag"] == f'"sha256:{variant.digest}"'

    def test_a_range_of_them_too(self, admin: Any, variant: KernelVariant) -> None:
        answer = admin.get(binary(variant), HTTP_RANGE="bytes=4-10")

        assert (answer.status_code, b"".join(answer.streaming_content)) == (206, BYTES[4:11])

    @pytest.mark.parametrize("digest", ["0" * 64, "kernel", "x"])
    def test_another_digest_is_not_found(self, admin: Any, variant: KernelVariant, digest: str) -> None:
        assert admin.get(binary(variant, digest)).status_code == 404

    def test_the_kernels_own_digest_is_no_variant(self, admin: Any, variant: KernelVariant) -> None:
        assert admin.get(binary(variant, variant.kernel.digest or "")).status_code == 404

    def test_a_variant_is_given_out_only_as_long_as_its_kernel(self, admin: Any, variant: KernelVariant) -> None:
        services.quarantine_kernel(kernel=variant.kernel, reason="suspect", actor=SYSTEM)

        assert admin.get(binary(variant)).status_code == 409

    def test_nobody_uploads_one(self, admin: Any, variant: KernelVariant) -> None:
        assert admin.put(binary(variant), b"x", content_type="application/octet-stream").status_code == 405

    def test_a_corrupt_one_is_never_sent(self, admin: Any, variant: KernelVariant) -> None:
        KernelChunk.objects.filter(blob_id=variant.digest).update(data=b"\0" * len(BYTES))

        assert admin.get(binary(variant)).status_code == 503
        variant.kernel.refresh_from_db()
        assert variant.kernel.state == KernelState.QUARANTINED
