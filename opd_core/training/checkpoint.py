"""Checkpoints: everything a resume needs, in safetensors and JSON.

    student/                       a Hugging Face directory (weights, tokenizer), a PEFT one where an adapter is trained
    optimizer.safetensors          AdamW moments by parameter name, and the random generators' states
    critic.safetensors             the critic's weights, where the method has one
    critic_optimizer.safetensors   its AdamW moments
    teacher.safetensors            the weights of a teacher that moves with the student
    replay.safetensors             rows of earlier steps, where they are used again
    trainer.json                   step, prompt cursor, budget, statistics, accuracies, fingerprint

A checkpoint is written to a temporary directory and published at once; it exists when its manifest does. The learning
rate, the sampling noise and the random gates are functions of the step, so they need no state.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from opd_core.models import LanguageModel, restore_weights, save_student
from opd_core.runs.artifacts import CorruptArtifact, RunFiles
from opd_core.training.learner import Learner

PutBack = Mapping[str, Callable[[dict[str, Tensor]], None]]

_FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{6,})\.a(\d+)")


@dataclass(frozen=True)
class Progress:
    """The trainer's own numbers at a step, as JSON."""

    step: int
    cursor: int
    budget: dict[str, Any]
    accuracy: dict[str, float | None]
    self_check: dict[str, Any] | None
    warnings: list[str]
    fingerprint: dict[str, Any]
    running: dict[str, float]  # PlanState's averages
    health: dict[str, Any]  # of the length alarms
    findings: list[dict[str, Any]]  # what they found
    tally: dict[str, list[float]]
    scalars: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # of the newest steps


def save(
    files: RunFiles,
    progress: Progress,
    student: LanguageModel,
    moments: Mapping[str, Tensor],
    critic: Learner | None,
    kept: Mapping[str, dict[str, Tensor]],
    *,
    attempt: int,
) -> tuple[str, dict[str, Any]]:
    """Publish a checkpoint; returns its name (without folder) and manifest.

    ``moments``: those of the student's ``Learner``. ``kept``: what else moves during a run (teacher, replay), by the
    name of its file; what is empty gets none.
    """
    name = f"step-{progress.step:06d}.a{attempt}"
    staging = Path(tempfile.mkdtemp(prefix="opd-checkpoint-"))
    save_student(student, staging / "student")
    save_file({**_rng(), **moments}, staging / "optimizer.safetensors")
    if critic is not None:
        save_file(critic.module.state_dict(), staging / "critic.safetensors")
        save_file(critic.moments(), staging / "critic_optimizer.safetensors")
    for owner, tensors in kept.items():
        if tensors:
            save_file(
                {label: tensor.contiguous() for label, tensor in tensors.items()}, staging / f"{owner}.safetensors"
            )
    (staging / "trainer.json").write_text(json.dumps(vars(progress), indent=1), encoding="utf-8")
    manifest = {"step": progress.step, "attempt": attempt, "kind": "training"}
    return name, files.publish(staging, f"{_FOLDER}/{name}", manifest=manifest)


def names(files: RunFiles) -> list[str]:
    """Complete checkpoints, newest step first (the later attempt first within a step)."""
    found = []
    for name in files.list(_FOLDER):
        match = _NAME.fullmatch(name)
        if match and files.exists(f"{_FOLDER}/{name}/manifest.json"):
            found.append((int(match[1]), int(match[2]), name))
    return [name for _, _, name in sorted(found, reverse=True)]


def sweep(files: RunFiles) -> None:
    """Remove what a trainer that was killed while it saved left behind."""
    files.sweep(_FOLDER)


def remove(files: RunFiles, name: str) -> None:
    """Delete a checkpoint."""
    files.remove(f"{_FOLDER}/{name}")


def restore(
    files: RunFiles, student: LanguageModel, learner: Learner, critic: Learner | None, put_back: PutBack
) -> tuple[Progress | None, list[str]]:
    """Load the newest sound checkpoint into student, critic and their optimizers, in place.

    ``put_back``: who takes what ``save`` was given as ``kept``, by the same names.

    Returns (its progress, or None when there is none; a sentence for each damaged checkpoint that was passed over).
    """
    damaged = []
    for name, before in pairwise([*names(files), None]):
        assert name is not None
        with tempfile.TemporaryDirectory(prefix="opd-restore-") as folder:
            local = Path(folder)
            try:
                files.fetch(f"{_FOLDER}/{name}", local)
            except CorruptArtifact as error:
                instead = f"{before}, the one before it, is tried" if before else "none is left, the run starts anew"
                damaged.append(f"checkpoint {name} is damaged ({error.detail}); {instead}")
                continue
            progress = Progress(**json.loads((local / "trainer.json").read_text(encoding="utf-8")))
            restore_weights(student, local / "student")
            learner.restore(_set_rng(load_file(local / "optimizer.safetensors")))
            if critic is not None:
                critic.module.load_state_dict(load_file(local / "critic.safetensors"))
                critic.restore(load_file(local / "critic_optimizer.safetensors"))
            _put_back(local, put_back)
            return progress, damaged
    return None, damaged


def read_weights(
    files: RunFiles, name: str, student: LanguageModel, critic: nn.Module | None, put_back: PutBack
) -> Progress:
    """The weights of one checkpoint, to look at; returns its progress.

    Raises CorruptArtifact, or FileNotFoundError when it is gone: a trainer removes its older ones.
    """
    with tempfile.TemporaryDirectory(prefix="opd-look-") as folder:
        local = Path(folder)
        files.fetch(f"{_FOLDER}/{name}", local)
        restore_weights(student, local / "student")
        if critic is not None:
            critic.load_state_dict(load_file(local / "critic.safetensors"))
        _put_back(local, put_back)
        return Progress(**json.loads((local / "trainer.json").read_text(encoding="utf-8")))


def _put_back(folder: Path, put_back: PutBack) -> None:
    for owner, take in put_back.items():
        if (file := folder / f"{owner}.safetensors").is_file():
            take(load_file(file))


def _rng() -> dict[str, Tensor]:
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _set_rng(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the random generators back; returns the other tensors."""
    tensors = dict(tensors)
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda = tensors.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    return tensors
