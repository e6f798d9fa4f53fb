"""From a blueprint to a VALIDATED kernel through the real sandbox, and every way of not getting there."""

from functools import partial
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.blueprints import services as blueprints
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.starter import starter_library
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, PayloadTooLarge
from apps.core.ids import new_id
from apps.kernels import compiler, services
from apps.kernels.cache import CorruptKernel, KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, Kernel, KernelBlob, KernelChunk
from apps.kernels.sandbox import Limits

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> BlueprintVersion:
    versions = blueprints.load_starter_library(actor=SYSTEM)
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


def test_the_starter_library_loads_once(version: BlueprintVersion) -> None:
    again = blueprints.load_starter_library(actor=SYSTEM)

    assert len(again) == len(starter_library()) == BlueprintVersion.objects.count()


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
