"""Per-token numbers that can colour the strip: what they mean, and which of them a run has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from api.schemas import Quantity, Token
from api.schemas import Sequence as Recorded
from dashboard.shaping.colors import Scale, scale
from dashboard.shaping.text import words


@dataclass(frozen=True)
class Field:
    """A number of every token. ``key`` is its name in the URL."""

    key: str
    label: str
    meaning: str
    signed: bool
    read: Callable[[Token], float | None]


def _attribute(name: str, label: str, meaning: str, *, signed: bool = True) -> Field:
    return Field(name, label, meaning, signed, attrgetter(name))


_LEAST = 1e-6  # where a scale ends when all numbers are tiny
_LOUD = "how loudly the token speaks in the update: 0 silenced, 1 as it is"
LOG_RATIO = _attribute("log_ratio", "log-ratio r", "log p(teacher) − log π(student) of the sampled token, in nats")
RETURN = _attribute("return_", "return", "log-ratios of this token and all later ones, summed up, in nats")
VALUE = _attribute(
    "value", "value V", "the return that the critic expected at this state, discounted as the recipe says, in nats"
)
ADVANTAGE = _attribute("advantage", "advantage", "the credit that the recipe gives, after baseline or critic")
COEFFICIENT = _attribute(
    "coefficient",
    "coefficient",
    "weight of log π(token) in the update: above zero makes the token more likely here",
)
REALISED = Field(
    "realised",
    "realised change",
    "how far the update really moved this token's probability, in percentage points; probed states only",
    True,
    lambda token: next(
        (100 * moved.realised for moved in token.probe or [] if moved.id == token.id and moved.realised), None
    ),
)
_STATE = (
    _attribute("kl", "KL", "divergence of the two next-token distributions, in nats", signed=False),
    _attribute("entropy_student", "student entropy", "uncertainty of the student here, in nats", signed=False),
    _attribute("entropy_teacher", "teacher entropy", "uncertainty of the teacher here, in nats", signed=False),
)
_PARTS = {
    "log_ratio": "the log-ratio itself",
    "return": "the log-ratios from here on, as the recipe sums them",
    "baseline": "what was to be expected here anyway is taken off",
    "temporal": "credit for later tokens, as the critic sees it",
    "transfer": "what a suppressed token gives up to its alternatives",
    "reward": "the verifier's reward",
    "reward_sign": "the size of the log-ratio with the verifier's sign",
    "imitation": "a right answer is imitated",
    "golden": "a token from data is imitated",
    "trust_region": "the pull back to the policy that wrote this",
}


def all_gates(names: Sequence[str]) -> Field:
    """The product of the gates. A lone gate lends it its name."""
    label = "all gates" if len(names) > 1 else " ".join(["gate", *map(words, names)])
    return _attribute("gate", label, _LOUD, signed=False)


def one_gate(name: str) -> Field:
    """One gate by itself."""
    return Field(f"gate:{name}", f"gate {words(name)}", f"this gate alone: {_LOUD}", False, _entry("gates", name))


def one_part(name: str) -> Field:
    """One of the numbers that add up to the coefficient."""
    meaning = f"this part of the coefficient alone: {_PARTS.get(name, words(name))}"
    return Field(f"part:{name}", f"part {words(name)}", meaning, True, _entry("components", name))


def _entry(table: str, name: str) -> Callable[[Token], float | None]:
    def read(token: Token) -> float | None:
        numbers: Mapping[str, float | None] = getattr(token, table)
        return numbers.get(name)

    return read


def offered(sequences: Iterable[Recorded]) -> dict[str, Field]:
    """What these sequences can be coloured by, by key: only what their run has, in the order of the update."""
    tokens = [token for sequence in sequences for token in sequence.tokens]
    gates, parts = _names(token.gates for token in tokens), _names(token.components for token in tokens)
    return _listed(
        value=any(token.value is not None for token in tokens),
        credit=any(token.coefficient for token in tokens),
        gated=any(token.gate not in (1.0, None) for token in tokens),
        gates=gates,
        parts=parts,
        moved=any(token.probe for token in tokens),
    )


def offered_at(known: Mapping[str, Quantity]) -> dict[str, Field]:
    """What the sequences of a step can be coloured by, from what the step's tokens have, by name."""
    coefficient, gate = known.get("coefficient"), known.get("gate")
    return _listed(
        value="value" in known,
        credit=coefficient is not None and (coefficient.lowest, coefficient.highest) != (0.0, 0.0),
        gated=gate is not None and (gate.lowest, gate.highest) != (1.0, 1.0),
        gates=[name.removeprefix("gate:") for name in known if name.startswith("gate:")],
        parts=[name.removeprefix("part:") for name in known if name.startswith("part:")],
        moved="realised" in known,
    )


def _listed(
    *, value: bool, credit: bool, gated: bool, gates: Sequence[str], parts: Sequence[str], moved: bool
) -> dict[str, Field]:
    found = [LOG_RATIO, RETURN]
    if value:
        found.append(VALUE)
    # The direct route gives no credit to sampled tokens: zeros, and no parts.
    pushes = bool(parts) or credit
    if pushes:
        found.append(ADVANTAGE)
    if gates or gated:
        found.append(all_gates(gates))
    if len(gates) > 1:
        found += map(one_gate, gates)
    if pushes:
        found.append(COEFFICIENT)
    if len(parts) > 1:
        found += map(one_part, parts)
    return {field.key: field for field in (*found, *_STATE, *([REALISED] if moved else []))}


def _names(tables: Iterable[Mapping[str, float | None]]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in table))


def field_scale(field: Field, sequences: Iterable[Recorded]) -> Scale:
    """One scale for all sequences of a step, so that colours can be compared between them."""
    values = [field.read(token) for sequence in sequences for token in sequence.tokens]
    # A gate that is open everywhere must look open, not extreme: its scale starts at 1.
    return scale(values, signed=field.signed, at_least=1.0 if field.key.startswith("gate") else _LEAST)


def scale_at(field: Field, known: Mapping[str, Quantity]) -> Scale:
    """``field_scale`` of all sequences of a step, from what the API says of the step's tokens."""
    found = known.get(field.key.removesuffix("_"))
    if found is None:
        return scale([], signed=field.signed)
    return Scale(limit=max(found.limit, _LEAST), signed=field.signed, clamped=found.beyond)


def scale_note(field: Field, used: Scale) -> str:
    """Says what the colours mean, and that the ends are clamped."""
    clamp = (
        f" Clamped at the step's 98 % quantile, {used.clamped} token{'s' if used.clamped != 1 else ''} beyond it."
        if used.clamped
        else ""
    )
    sides = "Red = below zero, blue = above" if used.signed else "Stronger = more"
    return f"{field.label}: {field.meaning}. {sides}; one scale for all sequences of this step.{clamp}"
