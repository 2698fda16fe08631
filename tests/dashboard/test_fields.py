"""What the strip can be coloured by."""

from __future__ import annotations

import pytest

from api.schemas import ProbeEntry, Quantity, Sequence, Token
from dashboard.shaping import fields
from dashboard.shaping.colors import STEPS, Scale
from tests.dashboard.fake_api import sequence
from tests.quantities import quantities


@pytest.fixture
def recorded() -> Sequence:
    """A sequence as the API sends it."""
    return Sequence.model_validate(sequence(7, 1))


@pytest.fixture
def whole() -> Sequence:
    """One of a run with a critic, two gates and three parts."""
    return Sequence.model_validate(sequence(7, 1, whole=True))


def edited(token: Token, **changes: object) -> Token:
    return token.model_copy(update=changes)


def every(sequence: Sequence, **changes: object) -> Sequence:
    """The sequence with the same changes to all of its tokens."""
    return sequence.model_copy(update={"tokens": [edited(token, **changes) for token in sequence.tokens]})


STATE = ["kl", "entropy_student", "entropy_teacher"]


def test_a_run_offers_what_it_has(recorded: Sequence, whole: Sequence) -> None:
    assert list(fields.offered([whole])) == [
        *("log_ratio", "return_", "value", "advantage", "gate", "gate:tip", "gate:prefix_weight", "coefficient"),
        *("part:log_ratio", "part:baseline", "part:temporal", *STATE, "realised"),
    ]
    known = ["log_ratio", "return_", "advantage", "gate", "coefficient", *STATE, "realised"]
    assert list(fields.offered([recorded])) == known
    direct = every(recorded, gate=1.0, advantage=0.0, coefficient=0.0, probe=None)
    assert list(fields.offered([direct])) == ["log_ratio", "return_", *STATE]
    assert list(fields.offered([direct, whole])) == list(fields.offered([whole]))
    assert list(fields.offered([])) == ["log_ratio", "return_", *STATE]


def test_the_realised_change_is_that_of_the_token_itself(whole: Sequence) -> None:
    probe = [ProbeEntry(id=i, text="b", predicted=0.1, realised=change) for i, change in ((9, 1.0), (7, 0.25))]
    token = edited(whole.tokens[4], id=7, probe=probe)
    assert fields.REALISED.read(token) == 25.0
    assert fields.REALISED.read(edited(token, probe=None)) is None


def test_fields_read_their_own_number(whole: Sequence) -> None:
    offered, token = fields.offered([whole]), whole.tokens[4]
    assert offered["value"].read(token) == token.value
    assert offered["gate:prefix_weight"].read(token) == token.gates["prefix_weight"]
    assert offered["part:temporal"].read(token) == token.components["temporal"]
    assert offered["part:temporal"].read(edited(token, components={})) is None
    assert [field.key for field in offered.values() if not field.signed] == [
        *("gate", "gate:tip", "gate:prefix_weight", *STATE)
    ]


def test_a_lone_gate_or_part_is_not_offered_twice(whole: Sequence) -> None:
    one = every(whole, gates={"ta_opd": 0.5}, components={"return": 1.0})
    offered = fields.offered([one])
    assert offered["gate"].label == "gate ta opd"
    assert not [key for key in offered if ":" in key]
    assert fields.offered([whole])["gate"].label == "all gates"


def test_scale_is_shared_by_all_sequences(recorded: Sequence) -> None:
    louder = recorded.model_copy(update={"tokens": [edited(token, log_ratio=-50.0) for token in recorded.tokens]})
    assert fields.field_scale(fields.LOG_RATIO, [recorded, louder]).limit == 50.0


def test_open_gates_do_not_look_extreme(recorded: Sequence) -> None:
    halves = recorded.model_copy(update={"tokens": [edited(token, gate=0.5) for token in recorded.tokens]})
    used = fields.field_scale(fields.all_gates([]), [halves])
    assert used.limit == 1.0
    assert used.index(0.5) == STEPS // 2


def test_note_says_that_it_clamps() -> None:
    field = fields.LOG_RATIO
    assert "Clamped at the step's 98 % quantile, 3 tokens beyond it." in fields.scale_note(field, Scale(1.0, True, 3))
    assert "Clamped" not in fields.scale_note(field, Scale(1.0, True, 0))


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_is_offered_and_scaled_as_its_sequences_are(whole: bool) -> None:
    rows = [sequence(7, n, whole) for n in range(4)]
    known = {one["name"]: Quantity.model_validate(one) for one in quantities(rows)}
    sequences = [Sequence.model_validate(row) for row in rows]
    offered = fields.offered_at(known)
    assert list(offered) == list(fields.offered(sequences))
    for field in offered.values():
        assert fields.scale_at(field, known) == fields.field_scale(field, sequences)


def test_a_direct_step_offers_no_credit() -> None:
    rows = [sequence(7, 1)]
    for token in rows[0]["tokens"]:
        token |= {"gate": 1.0, "advantage": 0.0, "coefficient": 0.0, "probe": None}
    known = {one["name"]: Quantity.model_validate(one) for one in quantities(rows)}
    assert list(fields.offered_at(known)) == ["log_ratio", "return_", *STATE]
    assert list(fields.offered_at({})) == ["log_ratio", "return_", *STATE]
    assert fields.scale_at(fields.RETURN, {}) == fields.field_scale(fields.RETURN, [])
