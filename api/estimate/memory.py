"""What one process of a job holds: weights and optimizer to the byte, caches and activations of a usual decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil, prod

from api.estimate.checkpoints import Checkpoint
from opd_core.spec import JobSpec
from opd_core.spec.model import Quantization
from opd_core.spec.student import Lora

_FLOAT32 = 4.0
# Bytes of one weight as a code: NF4 has a float32 scale for every 64.
_CODES = {"int8": 1.0, "nf4": 0.5 + _FLOAT32 / 64}
_GRADIENT_AND_MOMENTS = 3 * _FLOAT32
_ROWS_TOGETHER = 512


def memory(spec: JobSpec, found: Mapping[str, Checkpoint]) -> Iterator[tuple[str, float]]:
    """(what, bytes) of each part. ``found``: the checkpoint of every model of the spec, by the path of its field."""
    student = found["student.model"]
    lora = spec.student.lora
    computed = 2.0 if in_bfloat16(spec) else _FLOAT32
    processes = spec.resources.processes if spec.resources.sharding == "fsdp2" else 1
    trained = float(student.parameters if lora is None else _adapter(student, lora))
    whole = _weights(student, _FLOAT32, spec.student.quantization) + (0.0 if lora is None else trained * _FLOAT32)
    yield "student: weights", whole / processes
    yield "student: gradients and AdamW", trained * _GRADIENT_AND_MOMENTS / processes
    if processes > 1 or (computed < _FLOAT32 and spec.rollout.endpoint is None and spec.rollout.cache != "growing"):
        yield "student: a copy to write with", student.parameters * computed
    for path, voice in spec.voices():
        if voice.model is not None:
            yield f"{path}: weights", _weights(found[f"{path}.model"], computed, voice.quantization)
        elif voice.self_ is not None and voice.self_.weights == "ema":
            yield f"{path}: the student's moving average", student.parameters * _FLOAT32
        elif voice.self_ is not None and voice.self_.weights == "initial" and (lora is None or spec.from_ is not None):
            yield f"{path}: the student at its start", student.parameters * computed
    if "reference" in spec.method_spec().needs:
        yield "reference: the student at its start", student.parameters * computed
    rollout = spec.rollout
    rows = ceil(rollout.prompts_per_step * rollout.samples_per_prompt / spec.resources.processes)
    if rollout.endpoint is None:
        together = min(rows, _ROWS_TOGETHER) * rollout.max_new_tokens
        yield "rollout: key-value cache", together * 2 * student.layers * student.key_value * computed
    tokens = min(spec.batching.tokens, rows * rollout.max_new_tokens)
    yield (
        "update: activations of a micro-batch",
        max(tokens, rollout.max_new_tokens) * _activations(student, computed, spec.batching.gradient_checkpointing),
    )


def in_bfloat16(spec: JobSpec) -> bool:
    """Whether frozen models and activations are: where precision is left to the device, queue cpu is taken for one."""
    asked = spec.resources.precision
    return asked == "bfloat16" or (asked == "auto" and spec.resources.queue != "cpu")


def _weights(model: Checkpoint, each: float, quantization: Quantization) -> float:
    if quantization == "none":
        return model.parameters * each
    coded = sum(map(prod, model.linear.values()))
    return (model.parameters - coded) * each + coded * _CODES[quantization]


def _adapter(model: Checkpoint, lora: Lora) -> int:
    """Weights of A [rank, in] and B [out, rank] of every layer that the targets name."""
    named = {
        name: shape
        for name, shape in model.linear.items()
        if lora.targets == "all-linear" or any(f".{name}".endswith(f".{end}") for end in lora.targets)
    }
    return sum(lora.rank * (rows + columns) for rows, columns in named.values())


def _activations(model: Checkpoint, each: float, recomputed: bool) -> float:
    """Bytes that one token leaves for the backward pass in a decoder without dropout, about: in each layer ten vectors
    of the residual stream's width, which stays float32, keys and values, and four of the inner width. Recomputed: every
    layer's input, and the inside of one.
    """
    inside = 10 * model.hidden * _FLOAT32 + (2 * model.key_value + 4 * model.intermediate) * each
    if recomputed:
        return model.layers * model.hidden * _FLOAT32 + inside
    return model.layers * inside
