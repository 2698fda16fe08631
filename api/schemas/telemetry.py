"""What a run recorded: scalars, token records, heatmaps."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from api.schemas.base import Page, Schema


class Metrics(Schema):
    """Scalars by step: every series has one value (or null) per entry of ``steps``."""

    object: Literal["metrics"] = "metrics"
    steps: list[int]
    series: dict[str, list[float | None]]


class StepSummary(Schema):
    """A step with recorded sequences."""

    step: int
    sequences: int
    tokens: int | None = Field(None, description="Recorded tokens; null while the step is in the live stream only.")


class SequenceSummary(Schema):
    """A recorded sequence without its tokens."""

    n: int
    problem: int
    prompt: str
    completion: str
    answer: str | None = None
    correct: bool | None = None
    truncated: bool
    length: int
    log_ratio_mean: float | None = None
    log_ratio_min: float | None = None


class SequenceList(Page[SequenceSummary]):
    """The recorded sequences of a step."""

    step: int


class StudentChoice(Schema):
    """One of the student's likeliest tokens, with both models' log-probabilities."""

    id: int
    text: str
    logp: float | None
    teacher_logp: float | None


class TeacherChoice(Schema):
    """One of the teacher's likeliest tokens, with both models' log-probabilities."""

    id: int
    text: str
    logp: float | None
    student_logp: float | None


class RouteEntry(Schema):
    """A token that the plan moves probability to (or from)."""

    id: int
    text: str
    weight: float | None


class ProbeEntry(Schema):
    """A token's change of probability: as the plan predicted, as the network did."""

    id: int
    text: str
    predicted: float | None
    realised: float | None


class Said(Schema):
    """A token that an environment put into the completion."""

    id: int
    text: str


class Token(Schema):
    """All that is recorded about one token that was written for the student. Natural logarithms."""

    model_config = ConfigDict(populate_by_name=True)

    pos: int
    id: int
    text: str
    logp_student: float | None
    logp_teacher: float | None
    log_ratio: float | None
    return_: float | None = Field(alias="return", description="Sum of the log-ratios from here to the end.")
    value: float | None = Field(None, description="What the critic expected of the return; null without a critic.")
    advantage: float | None = Field(description="The credit that was used; 0 where the method has none.")
    gate: float | None = Field(description="How loudly the token speaks: the product of all gates.")
    gates: dict[str, float | None] = Field({}, description="Each gate by itself.")
    coefficient: float | None = Field(description="Weight of log pi(token) in the update.")
    components: dict[str, float | None] = Field({}, description="What the coefficient is the sum of.")
    entropy_student: float | None
    entropy_teacher: float | None
    kl: float | None
    student_top: list[StudentChoice]
    teacher_top: list[TeacherChoice]
    route: list[RouteEntry]
    probe: list[ProbeEntry] | None = Field(description="null where the state was not probed.")
    reply: list[Said] = Field(
        [], description="What an environment (a tool, another speaker) said next: context without force and time."
    )


class Sequence(SequenceSummary):
    """A recorded sequence, token by token. ``length`` and positions count actions: what others said is between them."""

    object: Literal["sequence"] = "sequence"
    step: int
    tokens: list[Token]


class Quantity(Schema):
    """How large a number is over all recorded tokens of a step."""

    name: str = Field(description="As the token names it; gate:NAME, part:NAME (of components), realised (own probe).")
    tokens: int = Field(description="Tokens that have it.")
    lowest: float
    highest: float
    limit: float = Field(description="Where a colour scale ends: the 98 % quantile of its sizes; of gates at least 1.")
    beyond: int = Field(description="Tokens beyond the limit.")


class QuantityList(Page[Quantity]):
    """The numbers that tokens of a step have."""

    step: int


class HeatmapRow(Schema):
    """A suppressed sampled token and how many probed states show it."""

    id: int
    text: str
    count: int


class HeatmapColumn(Schema):
    """A destination token."""

    id: int
    text: str


class RouteBalance(Schema):
    """What the plan takes from suppressed tokens (negative log-ratio) and what it sends on, in nats per token."""

    suppressed: int = Field(description="Recorded tokens with a negative log-ratio in the range.")
    released: float = Field(description="Mean size of their negative coefficients (0 where it is not negative).")
    routed: float = Field(description="Mean weight that is sent to named destinations.")
    empty_rate: float = Field(description="Share of them without any destination.")


class Heatmap(Schema):
    """Mean change of probability per probed state: ``predicted[row][column]`` and ``realised[row][column]``.

    ``routed[row][column]`` is the mean weight that the plan sends from row to column, over all recorded suppressed
    tokens; it and ``balance`` are null where the plan sends nothing to named destinations.
    """

    object: Literal["heatmap"] = "heatmap"
    kind: Literal["routing"] = "routing"
    from_step: int
    to_step: int
    steps_read: int = Field(0, description="Recorded steps that were looked at: of a long range every k-th.")
    steps_recorded: int = Field(0, description="Recorded steps in the range.")
    states: int = Field(description="Probed states with a negative log-ratio in the range.")
    rows: list[HeatmapRow]
    columns: list[HeatmapColumn]
    predicted: list[list[float]]
    realised: list[list[float]]
    plain: list[list[float]] = Field(
        description="What softmax alone would make of the same loss: each row's predicted loss, spread over the other "
        "tokens in proportion to the student's probabilities (of recorded favourites; the rest is not shown)."
    )
    routed: list[list[float]] | None = None
    balance: RouteBalance | None = None


class Profile(Schema):
    """How a quantity of all tokens of a step was spread: by position and step, and in size. Null = no token there."""

    object: Literal["profile"] = "profile"
    field: str = Field("", description="The quantity, in nats; gates are weights from 0 (silent) on.")
    fields: list[str] = Field([], description="All quantities that this run has profiles of.")
    steps: list[int] = Field(description="First step of each column.")
    to_steps: list[int] = Field(description="Last step of each column.")
    positions: list[int] = Field(description="First token position of each row, counted from 0.")
    position_width: int = Field(description="Positions per row.")
    tokens: list[list[int]] = Field(description="[position][step] tokens.")
    mean: list[list[float | None]] = Field(description="[position][step] mean over those tokens.")
    average: list[float | None] = Field(description="[step] mean over all positions.")
    levels: list[float]
    quantiles: list[list[float | None]] = Field(description="[level][step]; of several steps the mean of theirs.")
    edges: list[float]
    histogram: list[int] = Field(description="Tokens between the edges, over all these steps.")


class SilencedToken(Schema):
    """A token that a gate often silences."""

    id: int
    text: str
    seen: int
    silenced: int
    lift: float = Field(description="Share silenced, as a multiple of what a random gate of the same budget would.")


class GateSummary(Schema):
    """What gates did to the recorded tokens of a range of steps; silenced = weight below one half."""

    tokens: int = Field(description="Recorded tokens that were looked at.")
    silenced: float = Field(description="Share of them that was silenced.")
    mean: float | None = Field(description="Mean weight.")
    most_silenced: list[SilencedToken]
    gates: list[str]
    overlap: list[list[float | None]] = Field(
        description="[gate][gate] of the tokens that one of them silences, the share that both do."
    )
    chance: list[list[float | None]] = Field(description="The same for independent random gates of the same budgets.")


class Gates(Schema):
    """Gates of a run over a range of steps: by position and step, and token by token."""

    object: Literal["gates"] = "gates"
    profile: Profile
    summary: GateSummary
    steps_read: int = Field(description="Recorded steps that the summary looked at.")
    steps_recorded: int = Field(description="Recorded steps in the range.")


class Occurrence(Schema):
    """A place where a token was written."""

    step: int
    sequence: int = Field(description="``n`` of the sequence within its step.")
    pos: int
    log_ratio: float | None
    coefficient: float | None
    probed: bool = Field(description="Whether the state was probed, so that its realised change is known.")


class Occurrences(Schema):
    """Places where one token was suppressed, the most negative log-ratio first."""

    object: Literal["occurrences"] = "occurrences"
    token: int
    total: int = Field(description="How many there are among the recorded tokens that were looked at.")
    data: list[Occurrence]
