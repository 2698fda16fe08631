"""The strip and the detail of a token."""

from __future__ import annotations

import math

import pytest

from api.schemas import Job, RouteEntry, Said, Sequence, StudentChoice, TeacherChoice, Token
from dashboard.shaping import fields, token_detail
from dashboard.shaping import tokens as shape
from dashboard.shaping.colors import STEPS
from tests.dashboard.fake_api import DONE, HOSTILE, World, sequence


@pytest.fixture
def recorded() -> Sequence:
    """A sequence as the API sends it."""
    return Sequence.model_validate(sequence(7, 1))


def edited(token: Token, **changes: object) -> Token:
    return token.model_copy(update=changes)


def test_strip_shows_every_token_as_text(recorded: Sequence) -> None:
    shown = fields.offered([recorded])
    used = fields.field_scale(fields.LOG_RATIO, [recorded])
    drawn = shape.strip(recorded, fields.LOG_RATIO, used, shown.values(), place="p", selected=2)
    texts = [token["text"] for token in drawn["tokens"]]
    assert texts[3] == HOSTILE.replace(" ", "·")
    assert texts[4] == "‹U+202E›evil"
    assert texts[5] == "↵"
    assert drawn["tokens"][5]["newline"]
    assert drawn["tokens"][-1]["kind"] == "special"
    assert drawn["palette"] == "signed"
    assert all(len(token["numbers"]) == len(drawn["columns"]) for token in drawn["tokens"])
    for token, shown in zip(recorded.tokens, drawn["tokens"], strict=True):
        assert (shown["color"] > STEPS) == (token.log_ratio * STEPS / used.limit >= 0.5)


def test_strip_shows_what_an_environment_said_beside_the_token_before_it(recorded: Sequence) -> None:
    said = [Said(id=1, text=" =\n"), Said(id=2, text="17\n")]
    tokens = [edited(recorded.tokens[0], reply=said), *recorded.tokens[1:]]
    answered = recorded.model_copy(update={"tokens": tokens})
    used = fields.field_scale(fields.LOG_RATIO, [recorded])
    drawn = shape.strip(answered, fields.LOG_RATIO, used, [], place="p", selected=0)
    assert drawn["tokens"][0]["reply"] == ["·=↵", "17↵"]
    assert drawn["tokens"][0]["newline"]
    assert all(token["reply"] == [] for token in drawn["tokens"][1:])
    assert len(drawn["tokens"]) == len(recorded.tokens)  # it is none of the tokens that can be chosen


def test_chain_reads_from_feedback_to_update(recorded: Sequence) -> None:
    token = edited(recorded.tokens[0], log_ratio=-1.5, return_=-2.0, advantage=-1.75, gate=0.5, coefficient=-0.875)
    assert [link.value for link in token_detail.chain(token)] == ["-1.500", "-2.000", "-1.750", "0.500", "-0.875"]
    assert [link.value for link in token_detail.chain(edited(token, return_=None, gate=None))][1::2] == ["–", "–"]
    assert token_detail.parts(token) == []


def test_chain_names_value_gates_and_parts(recorded: Sequence) -> None:
    token = edited(
        recorded.tokens[0],
        value=-0.5,
        gates={"tip": 1.0, "ta_opd": 0.25},
        components={"log_ratio": -0.5, "temporal": None},
    )
    links = {link.label: link.value for link in token_detail.chain(token)}
    assert list(links) == [
        *("log-ratio r", "→ return", "value V", "→ advantage", "× gate tip", "× gate ta opd", "→ coefficient")
    ]
    assert (links["value V"], links["× gate tip"], links["× gate ta opd"]) == ("-0.500", "1.000", "0.250")
    assert [(link.label, link.value) for link in token_detail.parts(token)] == [
        ("= part log ratio", "-0.500"),
        ("+ part temporal", "–"),
    ]


def test_verdict(recorded: Sequence) -> None:
    token = edited(recorded.tokens[0], logp_student=math.log(0.5), logp_teacher=math.log(0.1), log_ratio=math.log(0.2))
    assert token_detail.verdict(token) == (
        "The student gave this token 50.0 %, the teacher 10.0 %: the teacher likes it less, by a factor of 5.00."
    )
    assert "agree" in token_detail.verdict(edited(token, log_ratio=0.001))
    assert "likes it better" in token_detail.verdict(edited(token, log_ratio=900.0))
    assert token_detail.verdict(edited(token, log_ratio=None)).endswith("the teacher 10.0 %.")


def test_top_tables_keep_the_columns_apart(recorded: Sequence) -> None:
    token = recorded.tokens[8]
    student, teacher = token_detail.top_table(token, "student"), token_detail.top_table(token, "teacher")
    first = token.teacher_top[0]
    assert student["student"][0] == pytest.approx(math.exp(token.student_top[0].logp))
    assert teacher["teacher"][0] == pytest.approx(math.exp(first.logp))
    assert teacher["student"][0] == pytest.approx(math.exp(first.student_logp))
    assert list(student[""]).count("◀ sampled") == 1


def test_a_sampled_token_outside_the_top_is_added(recorded: Sequence) -> None:
    token = edited(recorded.tokens[0], id=999, text="rare", logp_student=math.log(0.001), logp_teacher=None)
    table = token_detail.top_table(token, "student")
    last = table.iloc[-1]
    assert (last["token"], last[""]) == ("rare", "◀ sampled")
    assert last["student"] == pytest.approx(0.001)
    assert math.isnan(last["teacher"])


def test_route_and_probe_largest_first(recorded: Sequence) -> None:
    probed = next(token for token in recorded.tokens if token.probe and token.log_ratio < 0)
    probe = token_detail.probe_table(probed)
    assert list(probe["realised"].abs()) == sorted(probe["realised"].abs(), reverse=True)
    assert list(token_detail.route_table(probed)["weight"]) == [0.6, 0.3, 0.1]
    assert token_detail.route_table(edited(probed, route=[])) is None


def test_a_route_beside_what_softmax_alone_would_do(recorded: Sequence) -> None:
    token = edited(
        recorded.tokens[0],
        coefficient=-2.0,
        route=[RouteEntry(id=1, text="a", weight=0.5), RouteEntry(id=2, text="b", weight=1.5)],
        student_top=[],
        teacher_top=[TeacherChoice(id=2, text="b", logp=-0.1, student_logp=math.log(0.25))],
    )
    table = token_detail.route_table(token)
    assert list(table["token"]) == ["b", "a"]
    assert list(table["weight"]) == [1.5, 0.5]
    assert table["plain"][0] == pytest.approx(0.5)
    assert math.isnan(table["plain"][1])
    assert math.isnan(token_detail.route_table(edited(token, coefficient=None))["plain"][0])


def test_probes_are_where_states_were_probed(recorded: Sequence) -> None:
    probed = next(token for token in recorded.tokens if token.probe)
    assert token_detail.probe_table(edited(probed, probe=None)) is None


def test_nearest_step() -> None:
    assert shape.nearest([], 3) is None
    assert shape.nearest([5, 10, 20], None) == 20
    assert shape.nearest([5, 10, 20], 999) == 20
    assert shape.nearest([5, 10, 20], 11) == 10
    assert shape.nearest([5, 10, 20], 15) == 20


def test_sequence_label_holds_no_model_text(recorded: Sequence) -> None:
    label = shape.sequence_label(recorded)
    assert label.startswith("#1 · problem 120 · ✗ wrong · 27 tokens, mean r ")
    assert "img" not in label


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("job_1/20/3", (20, 3)),
        ("job_2/20/3", None),
        ("job_1/20", None),
        ("job_1/-1/3", None),
        ("job_1/20/3\n", None),
        ("job_1/9999999999/3", None),
    ],
)
def test_a_pick_says_where_it_was_made(name: str, where: tuple[int, int] | None) -> None:
    assert shape.read_place(name, "job_1") == where
    assert shape.read_place(shape.place("job_1", 20, 3), "job_1") == (20, 3)


def test_extremes_are_the_largest_values_first(recorded: Sequence) -> None:
    ratios = [0.0, -3.0, 0.02, 5.0, -0.1]
    tokens = [edited(token, log_ratio=r) for token, r in zip(recorded.tokens, ratios, strict=False)]
    known = recorded.model_copy(update={"tokens": tokens})
    # What is less than a fiftieth of the largest is nobody's extreme.
    assert shape.extremes(known, fields.LOG_RATIO) == [3, 1]
    used = fields.field_scale(fields.LOG_RATIO, [known])
    drawn = shape.strip(known, fields.LOG_RATIO, used, [], place="", selected=0)
    assert drawn["extremes"] == [3, 1]
    assert drawn["bar"] is None


def test_a_second_field_is_a_bar_on_a_scale_of_its_own(recorded: Sequence) -> None:
    by_kl = fields.offered([recorded])["kl"]
    used = fields.field_scale(by_kl, [recorded])
    first = fields.field_scale(fields.LOG_RATIO, [recorded])
    bar = shape.strip(recorded, fields.LOG_RATIO, first, [], place="", selected=0, second=(by_kl, used))["bar"]
    assert (bar["label"], bar["palette"]) == ("KL", "positive")
    assert bar["colors"] == [used.index(token.kl) for token in recorded.tokens]


def test_the_force_is_what_the_plan_pushes_a_logit_with(recorded: Sequence) -> None:
    token = recorded.tokens[0]
    top = [choice(1, "a", math.log(0.5)), choice(2, "b", math.log(0.25)), choice(3, "c", math.log(0.25))]
    route = [RouteEntry(id=2, text="b", weight=0.75)]
    pushed = edited(token, id=1, coefficient=-1.0, route=route, student_top=top, components={"transfer": -1.0})
    force = dict(zip(*(token_detail.top_table(pushed, "student")[name] for name in ("token", "force")), strict=True))
    # a = (-1, 0.75, 0), sum a = -0.25
    assert force == {"a": pytest.approx(-0.875), "b": pytest.approx(0.8125), "c": pytest.approx(0.0625)}
    assert "force" not in token_detail.top_table(edited(token, route=[], components={}), "student")


def choice(identifier: int, text: str, logp: float) -> StudentChoice:
    return StudentChoice(id=identifier, text=text, logp=logp, teacher_logp=logp)


@pytest.mark.parametrize(
    ("support", "ids"),
    [
        ({"kind": "student_top_k", "k": 2}, {1, 2}),
        ({"kind": "teacher_top_k", "k": 2}, {2, 3}),
        ({"kind": "union", "k": 2}, {1, 2, 3}),
        ({"kind": "intersection", "k": 2}, {2}),
        ({"kind": "adaptive", "k": 3, "mass": 0.3}, {2, 3}),
    ],
)
def test_what_a_support_compares(recorded: Sequence, support: dict[str, object], ids: set[int]) -> None:
    job = Job.model_validate(World().jobs[DONE])
    job.resolved_spec["method"]["support"] = support
    student = [choice(1, "a", math.log(0.5)), choice(2, "b", math.log(0.25)), choice(4, "d", math.log(0.1))]
    teacher = [
        TeacherChoice(id=identifier, text="", logp=-1.0, student_logp=math.log(p))
        for identifier, p in ((2, 0.25), (3, 0.1), (5, 0.05))
    ]
    token = edited(recorded.tokens[0], id=1, student_top=student, teacher_top=teacher)
    compared = token_detail.compared(token, job)
    assert compared.ids == ids
    table = token_detail.top_table(token, "student", compared)
    assert list(table["support"][:2]) == ["compared" if i in ids else "left out" for i in (1, 2)]


def test_a_whole_vocabulary_leaves_nothing_out(recorded: Sequence) -> None:
    assert token_detail.compared(recorded.tokens[0], Job.model_validate(World().jobs[DONE])) is None


@pytest.mark.parametrize(("current", "by", "target"), [(3, 1, 7), (3, -1, 1), (7, 1, None), (1, -1, None)])
def test_neighbours(current: int, by: int, target: int | None) -> None:
    assert shape.neighbour([1, 3, 7], current, by) == target
