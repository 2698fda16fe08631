"""A plan: what is compared, at which budget, and which differences are tested. Written before the first run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from opd_core.recipes import names
from opd_core.spec import UserError, validated
from opd_core.spec.base import Spec
from opd_core.spec.job import Until

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]{0,39}$")]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Control = Literal["sft", "off-policy-kd", "verifier-rl", "random-gate"]
Levels = Annotated[tuple[str, str], Field(description="Level and the level that it is compared with.")]

UNTRAINED, TEACHER = "untrained", "teacher"
RESERVED = (UNTRAINED, TEACHER)
TESTED_FROM = 10
"""Fewer seeds give an interval, never a test."""


class Arm(Spec):
    """One way to train: a recipe, and what it changes in the base."""

    name: Name
    recipe: str
    set: dict[str, Any] = Field(default_factory=dict, description="Laid over the base, mapping by mapping.")
    seeds: list[Seed] | None = Field(None, description="Instead of the plan's.")
    factors: dict[str, str] = Field(
        default_factory=dict, description="Where the arm stands in a factorial plan: factor -> level."
    )


class Task(Spec):
    """One setting in which all arms are run."""

    name: Name
    set: dict[str, Any] = Field(default_factory=dict, description="Laid over the base: task, student, teacher...")


class Contrast(Spec):
    """A difference of accuracies that was named before the runs: of two arms, or of the levels of factors."""

    name: str = Field(max_length=96)
    arm: str | None = Field(None, description="With against: two arms.")
    against: str | None = None
    effect: dict[str, Levels] | None = Field(
        None, description="One factor: its main effect. Two factors: their interaction."
    )
    task: str | None = Field(None, description="Default: all tasks together.")

    @model_validator(mode="after")
    def _one_kind(self) -> Contrast:
        pair = self.arm is not None and self.against is not None
        if pair == (self.effect is not None) or (self.arm is None) != (self.against is None):
            raise ValueError("give either arm and against, or effect")
        if self.effect is not None and len(self.effect) not in (1, 2):
            raise ValueError(f"effect names one factor or two, not {len(self.effect)}")
        return self


class Peer(Spec):
    """A system beside ours. Its own script writes its records into the output directory."""

    name: Name
    summary: str = Field("", max_length=512)


class Plan(Spec):
    """A comparison."""

    name: Name
    summary: str = Field("", max_length=2048, description="What it asks, and at which scale.")
    base: dict[str, Any] = Field(description="A job spec without name, recipe, seed and metadata.")
    arms: list[Arm] = Field(min_length=1, max_length=256)
    seeds: list[Seed] = Field(min_length=1, max_length=1000)
    tasks: list[Task] = Field(default_factory=lambda: [Task(name="base")], min_length=1, max_length=64)
    budget: Until | None = Field(
        None, description="What every run may spend; schedule.steps of the base is the cap. null: equal steps."
    )
    contrasts: list[Contrast] = Field(default_factory=list, max_length=64)
    controls: list[Control] = Field(
        ["sft", "off-policy-kd", "verifier-rl", "random-gate"],
        description="Arms that are added; the untrained student and the teacher are in every table.",
    )
    peers: list[Peer] = Field(default_factory=list)
    resamples: int = Field(2000, ge=200, le=100_000, description="Of every bootstrap.")
    expected_step_s: float | None = Field(None, gt=0.0, description="Seconds of a step, for the estimate of a dry run.")

    @field_validator("base")
    @classmethod
    def _base(cls, base: dict[str, Any]) -> dict[str, Any]:
        for field in ("name", "recipe", "seed", "metadata"):
            if field in base:
                raise ValueError(f"leave {field} out: the plan fills it in for every run")
        if "until" in (base.get("schedule") or {}):
            raise ValueError("leave schedule.until out: it is the plan's budget")
        return base

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: list[int]) -> list[int]:
        return _distinct(seeds, "seed")

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        known = [*(arm.name for arm in self.arms), *(peer.name for peer in self.peers)]
        _distinct(known, "arm")
        _distinct([task.name for task in self.tasks], "task")
        _distinct([contrast.name for contrast in self.contrasts], "contrast")
        for arm in self.arms:
            if arm.name in (*RESERVED, *(c for c in self.controls if c != "random-gate")):
                raise ValueError(f"arm '{arm.name}' has the name of a control: choose another one, or edit controls")
            if arm.recipe not in names():
                raise ValueError(
                    f"arm '{arm.name}': there is no recipe '{arm.recipe}'; choose one of {', '.join(names())}"
                )
        for contrast in self.contrasts:
            self._check(contrast)
        return self

    def _check(self, contrast: Contrast) -> None:
        if contrast.task is not None and contrast.task not in [task.name for task in self.tasks]:
            raise ValueError(f"contrast '{contrast.name}': there is no task '{contrast.task}'")
        if contrast.effect is not None and not weights(contrast, self.arms):
            raise ValueError(
                f"contrast '{contrast.name}': no arms differ in these levels alone; look at the factors of the arms"
            )


def weights(contrast: Contrast, arms: list[Arm]) -> dict[str, float]:
    """The contrast as weights of arms: they add up to 0. Empty where no arms have the levels.

    A main effect is averaged over all settings of the other factors in which both levels were run, an interaction (the
    difference of differences) over those in which all four were.
    """
    if contrast.effect is None:
        assert contrast.arm is not None
        assert contrast.against is not None
        return {contrast.arm: 1.0, contrast.against: -1.0}
    return effect_weights(contrast.effect, arms)


def effect_weights(effect: Mapping[str, tuple[str, str]], arms: list[Arm]) -> dict[str, float]:
    """The weights of a main effect (one factor) or an interaction (two)."""
    corners: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for arm in arms:
        if not all(arm.factors.get(factor) in levels for factor, levels in effect.items()):
            continue
        rest = tuple(sorted((name, level) for name, level in arm.factors.items() if name not in effect))
        sign = 1.0
        for factor, (_, reference) in effect.items():
            sign = -sign if arm.factors[factor] == reference else sign
        corners.setdefault(rest, {})[arm.name] = sign
    whole = [corner for corner in corners.values() if len(corner) == 2 ** len(effect)]
    return {name: sign / len(whole) for corner in whole for name, sign in corner.items()}


def read(data: dict[str, Any]) -> Plan:
    """The plan in a parsed file. Raises UserError that names the field."""
    return validated(Plan, data, prefix="PLAN")


def overlay(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``change`` laid over ``base``, mapping by mapping; lists and values are replaced as a whole."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = overlay(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def factors(arms: list[Arm]) -> Iterator[tuple[str, list[str]]]:
    """Each factor with its levels, in the order of the arms: the first level is what others are compared with."""
    for factor in dict.fromkeys(factor for arm in arms for factor in arm.factors):
        yield factor, list(dict.fromkeys(arm.factors[factor] for arm in arms if factor in arm.factors))


def _distinct(values: list[Any], what: str) -> list[Any]:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"{what} {twice!r} is there twice")
    return values


__all__ = ["Arm", "Contrast", "Peer", "Plan", "Task", "UserError", "read", "weights"]
