"""From a blueprint to a VALIDATED kernel through the real sandbox, and every way of not getting there."""

import subprocess
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.blueprints import services as blueprints
from apps.blueprints import spec as grammar
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.starter import core_library
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, PayloadTooLarge
from apps.core.ids import new_id
from apps.kernels import compiler, hardware, risk, sandbox_worker, services, variants
from apps.kernels.cache import CorruptKernel, KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, Kernel, KernelBlob, KernelChunk
from apps.kernels.sandbox import InfrastructureFault, Limits, Passed
from apps.kernels.services import pipeline
from apps.kernels.variants import VariantOutcome
from apps.morphogenesis.artefact import read_variant
from tests.support.factories import residual_spec

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> BlueprintVersion:
    versions = blueprints.load_core_library(actor=SYSTEM)
    return next(version for version in versions if version.blueprint.name == "residual_mlp")


def register(version: BlueprintVersion, **changes: Any) -> Kernel:
    return services.register_kernel(version=version, bindings={"D": 8, "H": 4}, actor=SYSTEM, **changes)


def test_a_registered_kernel_is_compiled_stored_and_validated(version: BlueprintVersion) -> None:
    kernel = services.process_kernel(kernel=register(version))

    assert (kernel.state, kernel.rejection) == (KernelState.VALIDATED, "")
    assert len(KernelStore().get(kernel.digest or "")) == kernel.size
    version.refresh_from_db()
    assert version.state == VersionState.CHARACTERIZED
    types = AuditEvent.objects.filter(subject_id=str(kernel.pk)).order_by("id").values_list("type", flat=True)
    assert list(types) == ["kernel.registered", "kernel.compiled", "kernel.transition", "kernel.validated"]


def test_processing_a_validated_kernel_again_changes_nothing(version: BlueprintVersion) -> None:
    kernel = services.process_kernel(kernel=register(version))
    events = AuditEvent.objects.count()

    assert services.process_kernel(kernel=kernel).row_version == kernel.row_version
    assert AuditEvent.objects.count() == events


def test_the_core_library_loads_once(version: BlueprintVersion) -> None:
    again = blueprints.load_core_library(actor=SYSTEM)

    assert len(again) == len(core_library()) == BlueprintVersion.objects.count()


def test_a_contract_has_one_kernel(version: BlueprintVersion) -> None:
    register(version)

    with pytest.raises(Conflict):
        register(version)


def test_a_binding_that_does_not_fit_names_the_symbol(version: BlueprintVersion) -> None:
    with pytest.raises(Invalid) as caught:
        services.register_kernel(version=version, bindings={"D": -1}, actor=SYSTEM)

    assert "/bindings" in caught.value.errors[0].pointer
    assert not Kernel.objects.exists()


def test_an_uploaded_artefact_is_validated_before_it_counts(version: BlueprintVersion) -> None:
    artefact = KernelStore().get(services.process_kernel(kernel=register(version)).digest or "")
    other = services.register_kernel(version=version, bindings={"D": 6, "H": 4}, actor=SYSTEM, awaits_upload=True)

    uploaded = services.upload_binary(kernel=other, data=artefact, actor=SYSTEM)

    assert uploaded.state == KernelState.UPLOADED
    assert services.process_kernel(kernel=uploaded).state == KernelState.REJECTED


def test_an_uploaded_artefact_that_is_no_kernel_is_rejected_with_the_reason(version: BlueprintVersion) -> None:
    kernel = services.upload_binary(kernel=register(version, awaits_upload=True), data=b"not a kernel", actor=SYSTEM)

    rejected = services.process_kernel(kernel=kernel)

    assert rejected.state == KernelState.REJECTED
    assert rejected.rejection


def test_bad_bytes_that_were_uploaded_do_not_condemn_the_version_that_is_being_compiled(
    version: BlueprintVersion,
) -> None:
    kernel = services.upload_binary(kernel=register(version, awaits_upload=True), data=b"not a kernel", actor=SYSTEM)
    BlueprintVersion.objects.filter(pk=version.pk).update(state=VersionState.COMPILING)

    services.process_kernel(kernel=kernel)

    assert BlueprintVersion.objects.get(pk=version.pk).state == VersionState.COMPILING


def test_a_corrupt_chunk_quarantines_the_kernel_instead_of_validating_it(version: BlueprintVersion) -> None:
    artefact = KernelStore().get(services.process_kernel(kernel=register(version)).digest or "")
    kernel = services.register_kernel(version=version, bindings={"D": 8, "H": 5}, actor=SYSTEM, awaits_upload=True)
    kernel = services.upload_binary(kernel=kernel, data=artefact + b"", actor=SYSTEM)
    KernelChunk.objects.filter(blob_id=kernel.digest).update(data=b"\0" * len(artefact))

    assert services.process_kernel(kernel=kernel).state == KernelState.QUARANTINED


def test_a_field_report_may_lack_an_ablation(version: BlueprintVersion) -> None:
    report = services.record_field_report(
        kernel=register(version),
        run_id=new_id(),
        seed_number=1,
        actor=SYSTEM,
        task="digits",
        host="mlp",
        site="layers.0",
        verdict="CANCELLED",
        parameters=10,
        train_flops=100,
        loss_before=1.0,
        loss_after=1.1,
        contribution=None,
        rent=0.0,
    )

    assert report.contribution is None


def test_the_store_gives_back_what_was_put_in_whole_and_in_ranges() -> None:
    data = bytes(range(256)) * 4096 + b"tail"  # two chunks and a bit
    store = KernelStore()

    digest = store.put(data)

    assert store.get(digest) == data
    assert b"".join(store.stream(digest, 10, CHUNK_BYTES + 7)) == data[10 : CHUNK_BYTES + 7]
    assert b"".join(store.stream(digest, len(data) - 3)) == data[-3:]
    assert KernelChunk.objects.filter(blob_id=digest).count() == 3


def test_the_same_bytes_are_stored_once() -> None:
    assert KernelStore().put(b"abc") == KernelStore().put(b"abc")
    assert KernelBlob.objects.count() == 1


@pytest.mark.parametrize(("data", "error"), [(b"", Invalid), (b"x" * (MAX_KERNEL_BYTES + 1), PayloadTooLarge)])
def test_the_store_refuses_sizes_out_of_bounds(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        KernelStore().put(data)


@pytest.mark.parametrize("damage", ["flip", "drop"])
def test_the_store_never_returns_wrong_bytes(damage: str) -> None:
    digest = KernelStore().put(b"weights" * 1000)
    chunk = KernelChunk.objects.get(blob_id=digest)
    if damage == "flip":
        KernelChunk.objects.filter(pk=chunk.pk).update(data=b"W" + bytes(chunk.data)[1:])
    else:
        chunk.delete()

    with pytest.raises(CorruptKernel):
        KernelStore().get(digest)


@pytest.mark.parametrize("damage", [{"data": b"wrong"}, {"data": None}, {"sha256": b"wrong"}, {}])
def test_bytes_that_went_wrong_are_right_again_once_they_are_put_again(damage: dict[str, bytes | None]) -> None:
    digest = KernelStore().put(b"weights")
    chunk = KernelChunk.objects.filter(blob_id=digest)
    chunk.update(**damage) if damage else chunk.delete()

    KernelStore().put(b"weights")

    assert KernelStore().get(digest) == b"weights"


def test_a_kernel_that_goes_over_a_limit_of_the_sandbox_is_an_alert(
    version: BlueprintVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = partial(compiler.compile, limits=Limits(wall_s=0.001))
    monkeypatch.setattr(compiler, "compile", impatient)

    kernel = services.process_kernel(kernel=register(version))

    assert kernel.state == KernelState.REJECTED
    alert = AuditEvent.objects.get(type="alert.threshold")
    assert (alert.subject_type, alert.subject_id, alert.reason) == ("kernel", str(kernel.pk), kernel.rejection)
    assert alert.payload == {"limit": "wall_s", "threshold": repr(Limits().wall_s)}


class TestThoroughPipelines:
    def test_a_kernel_is_measured_as_its_pipeline_says(self, version: BlueprintVersion) -> None:
        kernel = services.process_kernel(kernel=register(version, pipeline="standard"))

        assert kernel.state == KernelState.VALIDATED
        assert {kernel.report[job]["pipeline"] for job in ("compile", "validation")} == {"standard"}
        assert not kernel.variants.exists()

    def test_an_aggressive_one_gets_variants_each_with_bytes_of_its_own(self, version: BlueprintVersion) -> None:
        kernel = services.process_kernel(kernel=register(version, pipeline="aggressive"))

        variants = list(kernel.variants.all())
        assert [(variant.memory_format, variant.dtype) for variant in variants] == [
            ("contiguous", "bfloat16"),
            ("contiguous", "float16"),
        ]
        assert len({kernel.digest, *(variant.digest for variant in variants)}) == 3
        for variant in variants:
            header, _ = read_variant(KernelStore().get(variant.digest))
            assert (header.memory_format, header.dtype) == (variant.memory_format, variant.dtype)
            assert variant.report["metrics"]["speedup"] > 0
        event = AuditEvent.objects.get(type="kernel.variants_made")
        assert [told["digest"] for told in event.payload["variants"]] == [variant.digest for variant in variants]
        assert not AuditEvent.objects.filter(type="audit.unattributed").exists()

    def test_a_variant_that_fails_is_left_out_with_the_reason_and_the_kernel_stands(
        self, version: BlueprintVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left_out = VariantOutcome(memory_format="contiguous", dtype="float16", reason="a node differs")
        monkeypatch.setattr(pipeline, "make_variants", lambda data, **about: [left_out])

        kernel = services.process_kernel(kernel=register(version, pipeline="aggressive"))

        assert kernel.state == KernelState.VALIDATED
        assert kernel.report["variants"] == [
            {"memory_format": "contiguous", "dtype": "float16", "reason": "a node differs"}
        ]
        assert not kernel.variants.exists()

    def test_a_sandbox_that_gives_another_variant_than_ordered_is_not_believed(self) -> None:
        spec = grammar.bind(residual_spec())
        job = {"spec": spec, "seed": 0, "pipeline": "warm_up"}
        _, artefact = sandbox_worker.compile_job(job, b"", lambda stage: None)

        class Lying:
            def run(self, job: Any, data: bytes = b"") -> Passed:
                return Passed(report={}, data=data)

        outcome = variants._make(Lying(), artefact, spec, "", "fast", "contiguous", "bfloat16")  # type: ignore[arg-type]

        assert outcome.artefact is None
        assert "the sandbox gave no variant" in outcome.reason

    def test_a_sandbox_that_fails_decides_nothing(
        self, version: BlueprintVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(data: bytes, **about: Any) -> list[VariantOutcome]:
            raise InfrastructureFault("killed from outside")

        kernel = register(version, pipeline="aggressive")
        monkeypatch.setattr(pipeline, "make_variants", failing)
        with pytest.raises(InfrastructureFault):
            services.process_kernel(kernel=kernel)
        monkeypatch.undo()
        kernel.refresh_from_db()
        assert kernel.state == KernelState.BENCHMARKING

        assert services.process_kernel(kernel=kernel).variants.count() == 2


class TestProvenance:
    def test_a_kernel_says_where_by_what_and_how_long_it_was_compiled(self, version: BlueprintVersion) -> None:
        kernel = services.process_kernel(kernel=register(version))

        assert kernel.hardware == hardware.profile(kernel.toolchain)
        assert kernel.hardware["torch"] == kernel.toolchain["torch"]
        assert (kernel.compile_ms or 0) > 0

    def test_a_rejected_one_says_so_too(self, version: BlueprintVersion, monkeypatch: pytest.MonkeyPatch) -> None:
        impatient = partial(compiler.compile, limits=Limits(wall_s=0.001))
        monkeypatch.setattr(compiler, "compile", impatient)

        kernel = services.process_kernel(kernel=register(version))

        assert (kernel.compile_ms or 0) > 0
        assert kernel.report["rejected_at"]


class TestOutcomes:
    def report(self, kernel: Kernel, verdict: str, contribution: float | None = None, **changes: Any) -> Kernel:
        values = {
            "task": "digits",
            "host": "mlp",
            "site": "layers.0",
            "parameters": 10,
            "train_flops": 100,
            "loss_before": 1.0,
            "loss_after": 0.9,
            "rent": 0.0,
            "verdict": verdict,
            "contribution": contribution,
            **changes,
        }
        services.record_field_report(
            kernel=kernel, run_id=values.pop("run_id", new_id()), seed_number=1, actor=SYSTEM, **values
        )
        kernel.refresh_from_db()
        return kernel

    def test_before_the_first_outcome_nothing_is_known(self, version: BlueprintVersion) -> None:
        kernel = self.report(register(version), "CANCELLED")

        assert (kernel.risk, kernel.risk_confidence, kernel.metrics) == (None, None, {"grafts": 0})

    def test_each_outcome_moves_risk_and_gain(self, version: BlueprintVersion) -> None:
        kernel = register(version)
        for contribution in (0.1, 0.2, 0.3):
            kernel = self.report(kernel, "FOSSILIZED", contribution)
        kept = kernel.risk

        kernel = self.report(kernel, "CULLED", -0.2)

        assert 0 < (kept or 0) < (kernel.risk or 0) < 1
        assert kernel.metrics["gain_mean"] == pytest.approx(0.1)
        assert kernel.metrics["gain_low"] < kernel.metrics["gain_mean"]
        assert (kernel.metrics["grafts"], kernel.metrics["kept_rate"]) == (4, 0.75)

    def test_measurements_of_the_pipeline_stay(self, version: BlueprintVersion) -> None:
        kernel = services.process_kernel(kernel=register(version))
        before = kernel.metrics

        kernel = self.report(kernel, "FOSSILIZED", 0.1, contribution_low=0.05)

        assert before.items() <= kernel.metrics.items()
        assert kernel.metrics["gain_low"] == 0.05

    def test_a_kernel_learns_from_its_blueprints_others(self, version: BlueprintVersion) -> None:
        sibling = services.register_kernel(version=version, bindings={"D": 6, "H": 4}, actor=SYSTEM)
        for _ in range(6):
            self.report(sibling, "CULLED")

        kernel = self.report(register(version), "FOSSILIZED")

        alone = risk.assess(risk.Outcomes(failed=0, kept=1))
        assert (kernel.risk or 0) > alone.value + 0.1

    def test_the_same_outcome_again_changes_nothing(self, version: BlueprintVersion) -> None:
        run_id = new_id()
        kernel = self.report(register(version), "FOSSILIZED", run_id=run_id)
        version_then, events = kernel.row_version, AuditEvent.objects.count()

        kernel = self.report(kernel, "FOSSILIZED", run_id=run_id)

        assert (kernel.row_version, AuditEvent.objects.count()) == (version_then, events)

    def test_its_event_tells_what_changed(self, version: BlueprintVersion) -> None:
        kernel = self.report(register(version), "FOSSILIZED")

        event = AuditEvent.objects.get(type="kernel.field_report")
        assert {change["path"] for change in event.diff} >= {"/risk", "/risk_confidence"}
        assert kernel.usage_count == 1


class TestCompileMetrics:
    def test_latency_has_quantiles_by_pipeline(self, client: Client, version: BlueprintVersion) -> None:
        for number, milliseconds in enumerate((100, 200, 300)):
            kernel = services.register_kernel(version=version, bindings={"D": 8, "H": 5 + number}, actor=SYSTEM)
            Kernel.objects.filter(pk=kernel.pk).update(compile_ms=milliseconds)

        body = client.get("/metrics").content.decode()

        assert 'esper_kernel_compile_seconds{pipeline="fast",quantile="0.5"} 0.2' in body
        assert 'esper_kernel_compile_seconds_count{pipeline="fast"} 3.0' in body
        assert 'esper_kernel_compile_seconds_sum{pipeline="fast"} 0.6' in body

    def test_what_is_older_than_a_day_is_in_no_quantile(self, client: Client, version: BlueprintVersion) -> None:
        kernel = register(version)
        long_ago = timezone.now() - timedelta(hours=25)
        Kernel.objects.filter(pk=kernel.pk).update(compile_ms=100, created_at=long_ago)

        body = client.get("/metrics").content.decode()

        assert "quantile=" not in body
        assert 'esper_kernel_compile_seconds_count{pipeline="fast"} 1.0' in body

    def test_rejections_are_counted_by_stage(self, client: Client, version: BlueprintVersion) -> None:
        kernel = services.upload_binary(kernel=register(version, awaits_upload=True), data=b"no kernel", actor=SYSTEM)
        services.process_kernel(kernel=kernel)

        body = client.get("/metrics").content.decode()

        assert 'esper_kernel_rejections{stage="format"} 1.0' in body
        assert 'esper_kernel_outcomes{pipeline="fast",state="REJECTED"} 1.0' in body

    @pytest.mark.promtool
    def test_promtool_has_nothing_to_say_about_them(self, client: Client, version: BlueprintVersion) -> None:
        Kernel.objects.filter(pk=register(version).pk).update(compile_ms=100)
        body = client.get("/metrics").content

        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False
        )

        assert [line for line in checked.stdout.decode().splitlines() if line.startswith("esper_kernel")] == []
