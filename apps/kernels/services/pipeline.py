"""The life of a kernel: registered from a blueprint, compiled in a sandbox, stored, validated as that artefact.

The slow steps (compile, validate) run outside transactions; each state change is one transaction with its audit event.
"""

import time
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.blueprints import spec as grammar
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.services import move_version
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.flat import flat_object
from apps.core.queue import enqueue_after_commit
from apps.kernels import compiler, hardware, validator
from apps.kernels.cache import CorruptKernel, KernelStore
from apps.kernels.compiler import CompileOutcome
from apps.kernels.effort import EFFORTS
from apps.kernels.grading import given_tags, without_grades
from apps.kernels.lifecycle import ENDED, KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import Kernel, KernelAlias, KernelVariant, Pipeline
from apps.kernels.sandbox import Limits
from apps.kernels.selectors import holders
from apps.kernels.services.grading import grade_kernels
from apps.kernels.tags import as_declared, check_tags
from apps.kernels.validator import ValidationOutcome
from apps.kernels.variants import VariantOutcome, make_variants
from apps.morphogenesis.artefact import read_kernel

COMPILE_TASK = "apps.kernels.tasks.compile_kernel"


class DuplicateContract(Conflict):
    """A live kernel has this contract already: ``kernel``."""

    code = "duplicate_contract"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(f"kernel {kernel.pk} has this contract already")
        self.kernel = kernel


@transaction.atomic
def register_kernel(
    *,
    version: BlueprintVersion,
    actor: Actor,
    bindings: Mapping[str, int] | None = None,
    tags: Mapping[str, Any] | None = None,
    awaits_upload: bool = False,
    pipeline: str = Pipeline.FAST,
) -> Kernel:
    """A kernel of ``version`` with its symbols bound, to be compiled (or to receive an uploaded binary).

    It inherits the blueprint's tags, but for those that are not as they were declared since.
    ``pipeline`` is how thoroughly it is measured.

    Raises:
        Invalid: the bindings do not fit the spec. DuplicateContract: the contract has a live kernel already.
        Conflict: the version cannot be compiled any more.
    """
    if version.state not in {VersionState.SUBMITTED, VersionState.COMPILING, VersionState.CHARACTERIZED}:
        raise Conflict(f"{version} is {version.state}: only a submitted or characterized version makes kernels")
    spec, graph = _bound(version, bindings or {})
    BlueprintVersion.objects.select_for_update().get(pk=version.pk)  # one registration of a contract at a time
    twin = holders(version.pk, spec["symbols"]).first()
    if twin is not None:
        raise DuplicateContract(twin)
    sizes = "-".join(f"{name.lower()}{size}" for name, size in sorted(graph.symbols.items()))
    kernel = Kernel(
        blueprint_version=version,
        workspace_id=version.blueprint.workspace_id,
        name=f"{version.blueprint.name}-v{version.number}-{sizes}"[:160],
        bindings=dict(graph.symbols),
        operator=graph.operator,
        parameters=graph.parameters,
        compat={"operator": graph.operator, "input": list(graph.input_shape), "output": list(graph.output_shape)},
        tags={
            # A tag that was declared after the blueprint got it must not keep runs from their kernels.
            **as_declared(without_grades(version.blueprint.tags)),
            **given_tags("/tags", flat_object("/tags", tags or {})),
        },
        awaits_upload=awaits_upload,
        pipeline=pipeline,
    )
    check_tags("/tags", kernel.tags)
    kernel.full_clean()
    kernel.save(force_insert=True)
    audit.record(type="kernel.registered", subject=kernel, actor=actor, after=image(kernel))
    if not awaits_upload:
        enqueue_after_commit(COMPILE_TASK, str(kernel.pk))
    return kernel


def _bound(version: BlueprintVersion, bindings: Mapping[str, int]) -> tuple[dict[str, Any], grammar.Graph]:
    try:
        symbols = {**version.spec.get("symbols", {}), **bindings}
        graph = grammar.parse({**version.spec, "symbols": symbols})
    except grammar.SpecError as error:
        raise Invalid(str(error), code=error.code, pointer=error.pointer.replace("/symbols", "/bindings")) from error
    return {**version.spec, "symbols": dict(graph.symbols)}, graph


@transaction.atomic
def ensure_kernel(*, version: BlueprintVersion, bindings: Mapping[str, int], actor: Actor) -> Kernel:
    """The kernel of this contract, registered now if there is none yet."""
    _, graph = _bound(version, bindings)
    existing = (
        Kernel.objects.filter(blueprint_version=version, bindings=dict(graph.symbols))
        .exclude(state__in=(KernelState.RETIRED, KernelState.PURGED))
        .order_by("-id")
        .first()
    )
    try:
        return existing or register_kernel(version=version, bindings=bindings, actor=actor)
    except DuplicateContract as duplicate:  # another run was faster
        return duplicate.kernel


def process_kernel(*, kernel: Kernel, actor: Actor = SYSTEM) -> Kernel:
    """Take a kernel as far as it goes: compile what is registered, validate what has bytes. Safe to repeat.

    Raises:
        InfrastructureFault: the sandbox itself failed; nothing is decided about the kernel and the task may retry.
    """
    if kernel.state == KernelState.REGISTERED and not kernel.awaits_upload:
        kernel = _compile(kernel, actor)
    if kernel.state in {KernelState.COMPILED, KernelState.UPLOADED}:
        kernel = _move(kernel=kernel, to=KernelState.BENCHMARKING, actor=actor, reason="validation started")
    if kernel.state == KernelState.BENCHMARKING:
        kernel = _validate(kernel, actor)
    return kernel


def _compile(kernel: Kernel, actor: Actor) -> Kernel:
    version = kernel.blueprint_version
    with transaction.atomic():
        if _locked_version(kernel).state == VersionState.SUBMITTED:
            move_version(version=version, to=VersionState.COMPILING, actor=actor, reason=f"compiling {kernel.name}")
    began = time.monotonic()
    outcome = compiler.compile({**version.spec, "symbols": kernel.bindings}, pipeline=kernel.pipeline)
    changes = {
        "report": {"compile": dict(outcome.report)},
        "compile_ms": _milliseconds_since(began),
        **_measured_by(outcome.report),
    }
    if outcome.artefact is None:
        return _reject(kernel=kernel, reason=outcome.reason, refusal=outcome, actor=actor, changes=changes)
    with transaction.atomic():
        digest = KernelStore().put(outcome.artefact)
        return _move(
            kernel=kernel,
            to=KernelState.COMPILED,
            actor=actor,
            reason="compiled",
            event="kernel.compiled",
            digest=digest,
            size=len(outcome.artefact),
            **changes,
        )


def _validate(kernel: Kernel, actor: Actor) -> Kernel:
    try:
        data = KernelStore().get(kernel.digest or "")
    except (CorruptKernel, NotFound) as error:
        return quarantine_kernel(kernel=kernel, reason=str(error), actor=actor)
    began = time.monotonic()
    reference = kernel.report.get("compile", {}).get("reference", {})  # an upload has none: nothing to compare with
    outcome = validator.validate(
        data, expected_digest=kernel.digest or "", reference=reference, pipeline=kernel.pipeline
    )
    reason = outcome.reason if not outcome.valid else _contract_fault(kernel, data)
    made = [] if reason else _variants(kernel, data)
    changes = {
        "report": {**kernel.report, "validation": dict(outcome.report)},
        "compile_ms": (kernel.compile_ms or 0) + _milliseconds_since(began),
        **_measured_by(outcome.report),
    }
    if reason:
        return _reject(kernel=kernel, reason=reason, refusal=outcome, actor=actor, changes=changes)
    if made:
        changes["report"]["variants"] = [_told(variant) for variant in made]
    with transaction.atomic():
        validated = _move(
            kernel=kernel,
            to=KernelState.VALIDATED,
            actor=actor,
            reason="every check passed",
            event="kernel.validated",
            metrics=outcome.report.get("metrics", {}),
            **changes,
        )
        _keep_variants(validated, made, actor)
        _settle_version(kernel, VersionState.CHARACTERIZED, actor)
        return next(iter(grade_kernels(kernel=validated, actor=actor)), validated)


def _variants(kernel: Kernel, data: bytes) -> list[VariantOutcome]:
    """Those of the aggressive pipeline, made before the kernel is VALIDATED: a worker that dies makes them again."""
    if not EFFORTS[kernel.pipeline].makes_variants:
        return []
    return make_variants(
        data, digest=kernel.digest or "", pipeline=kernel.pipeline, is_upload="compile" not in kernel.report
    )


def _keep_variants(kernel: Kernel, made: list[VariantOutcome], actor: Actor) -> None:
    """Store what passed, in the transaction that validates the kernel."""
    good = [variant for variant in made if variant.artefact is not None]
    for variant in good:
        row = KernelVariant(
            kernel=kernel,
            memory_format=variant.memory_format,
            dtype=variant.dtype,
            digest=KernelStore().put(variant.artefact or b""),
            size=len(variant.artefact or b""),
            report=dict(variant.report),
        )
        row.full_clean()
        row.save(force_insert=True)
    if good:
        audit.record(
            type="kernel.variants_made",
            subject=kernel,
            actor=actor,
            payload={"variants": [_told(variant) for variant in made]},
        )


def _told(variant: VariantOutcome) -> dict[str, Any]:
    """A variant in the kernel's report: its digest, or why it was left out."""
    names = {"memory_format": variant.memory_format, "dtype": variant.dtype}
    return {**names, "digest": variant.digest} if variant.artefact is not None else {**names, "reason": variant.reason}


def _measured_by(report: Mapping[str, Any]) -> dict[str, Any]:
    """The toolchain of a report and the profile of the machine; nothing when the sandbox did not come to tell."""
    toolchain = report.get("toolchain")
    return {"toolchain": toolchain, "hardware": hardware.profile(toolchain)} if toolchain else {}


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _contract_fault(kernel: Kernel, data: bytes) -> str:
    """What is wrong when good bytes are those of another kernel (an upload may be anything); empty if nothing."""
    packed, _ = read_kernel(data)
    wanted = grammar.bind({**kernel.blueprint_version.spec, "symbols": kernel.bindings})
    if grammar.digest(packed) == grammar.digest(wanted):
        return ""
    return f"the artefact's spec is not that of {kernel.blueprint_version} with {kernel.bindings}"


@transaction.atomic
def _reject(
    *,
    kernel: Kernel,
    reason: str,
    refusal: CompileOutcome | ValidationOutcome,
    actor: Actor,
    changes: Mapping[str, Any],
) -> Kernel:
    """A refusal that went over a limit of the sandbox is an alert too."""
    if refusal.exceeded:
        limit = getattr(Limits(), refusal.exceeded)
        audit.record(
            type="alert.threshold",
            subject=("kernel", str(kernel.pk)),
            actor=actor,
            reason=reason,
            outcome="failure",
            payload={"limit": refusal.exceeded, "threshold": limit},
        )
    rejected = _move(
        kernel=kernel,
        to=KernelState.REJECTED,
        actor=actor,
        reason=reason,
        event="kernel.rejected",
        rejection=reason,
        **{**changes, "report": {**changes["report"], "rejected_at": refusal.stage or "contract"}},
    )
    if "compile" in changes["report"]:  # bytes that a client brought say nothing about the spec
        _settle_version(kernel, VersionState.INVALID, actor)
    return rejected


def _locked_version(kernel: Kernel) -> BlueprintVersion:
    """The version as it is now: several workers may compile kernels of one version."""
    return BlueprintVersion.objects.select_for_update(of=("self",)).get(pk=kernel.blueprint_version_id)


def _settle_version(kernel: Kernel, to: VersionState, actor: Actor) -> None:
    """The first kernel of a version decides what the version is."""
    version = _locked_version(kernel)
    if version.state == VersionState.COMPILING:
        move_version(version=version, to=to, actor=actor, reason=f"{kernel.name} was {kernel.state.lower()}")


def _move(
    *, kernel: Kernel, to: KernelState, actor: Actor, reason: str, event: str = "kernel.transition", **changes: Any
) -> Kernel:
    return move(
        kernel,
        lifecycle=KERNEL_LIFECYCLE,
        to=to,
        event=event,
        actor=actor,
        reason=reason,
        changes=changes,
    )


@transaction.atomic
def quarantine_kernel(*, kernel: Kernel, reason: str, actor: Actor) -> Kernel:
    """Take a kernel out of use at once, e.g. because its bytes are not what their digest says.

    Raises:
        DuplicateContract: it is out of use already, and another kernel has its contract now.
    """
    if kernel.state in ENDED:
        _locked_version(kernel)  # one registration of a contract at a time
        twin = holders(kernel.blueprint_version_id, kernel.bindings).exclude(pk=kernel.pk).first()
        if twin is not None:
            raise DuplicateContract(twin)
    return _move(kernel=kernel, to=KernelState.QUARANTINED, actor=actor, reason=reason, event="kernel.quarantined")


@transaction.atomic
def deprecate_kernel(*, kernel: Kernel, reason: str, actor: Actor) -> Kernel:
    """New runs no longer get this kernel; runs that hold it keep it.

    Raises:
        Conflict: a protected alias points at it.
    """
    Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)  # no alias is pointed at it meanwhile
    alias = KernelAlias.objects.select_related("blueprint").filter(kernel=kernel, is_protected=True).first()
    if alias is not None:
        raise Conflict(f"the protected alias {alias} points at this kernel: move it first", code="protected")
    return _move(kernel=kernel, to=KernelState.DEPRECATED, actor=actor, reason=reason)
