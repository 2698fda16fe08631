"""How the student's weights may be held and computed: what cannot be had together, and what is given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opd_core.spec.errors import UserError

if TYPE_CHECKING:
    from opd_core.spec.job import JobSpec


def check_weights(spec: JobSpec) -> None:
    """Raise UserError where two ways of holding or computing the student's weights exclude each other."""
    student, sharding = spec.student, spec.resources.sharding
    if student.compile and sharding != "none":
        raise UserError(
            f"student.compile: true is not possible with resources.sharding '{sharding}', whose layers are fetched in "
            "between: choose one of them",
            param="student.compile",
        )
    if student.compile and spec.batching.gradient_checkpointing:
        raise UserError(
            "student.compile: true is not possible with batching.gradient_checkpointing: a compiled pass decides by "
            "itself what it computes again; choose one of them",
            param="student.compile",
        )
    if student.quantization == "none":
        return
    asked = f"student.quantization: '{student.quantization}'"
    if student.lora is None or student.lora.merge:
        raise UserError(
            f"{asked} trains an adapter on weights that stay as they are, and exports that alone: it needs "
            "student.lora with merge: false",
            param="student.quantization",
        )
    if sharding != "none":
        raise UserError(
            f"{asked} is not possible with resources.sharding '{sharding}', which spreads float32 weights: choose one "
            "of them",
            param="student.quantization",
        )
    if student.compile:
        raise UserError(
            f"{asked} is not possible with student.compile, which does not know its layers: choose one of them",
            param="student.quantization",
        )


def weights_warnings(spec: JobSpec) -> Iterator[str]:
    """What a job gives up by how its models are held."""
    if spec.student.compile:
        yield (
            "the student's passes of training are compiled (student.compile): a resumed run is not promised to end bit "
            "for bit like an uninterrupted one"
        )
    for path, voice in spec.voices():
        if voice.quantization != "none":
            yield (
                f"{path}.quantization: the student learns from the teacher as {voice.quantization} rounds it, and the "
                "reported accuracy is that of the rounded one"
            )
