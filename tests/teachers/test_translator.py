"""A teacher that reads the student's text in tokens of its own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from opd_core.models import load_model, token_bytes
from opd_core.objective.feedback import Feedback
from opd_core.objective.targets import DenseTarget
from opd_core.rollout import imitated
from opd_core.spec import ModelSpec, TaskSpec, UserError
from opd_core.tasks import load_task
from opd_core.teachers import Asked, Voice, score_with_ends
from opd_core.teachers.translator import Translator
from tests.tokenizers import other_model, sentence_piece, shuffled_model

TEXTS = [" 12 + 3 = 15", "7", " 3", " 4 + 5 = é 9", ""]
TEMPLATE = "{% for m in messages %}<start>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}model:"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Student and teacher with one tokenizer, the teacher with shuffled ids, a teacher with another tokenizer."""
    root = tmp_path_factory.mktemp("others")
    common = {"corpus": ["12 + 3 = 15", "7 + 8"] * 3, "tokens": 265, "eos": "<eos>"}
    student, teacher = (other_model(root / name, width=w, **common) for name, w in (("student", 32), ("teacher", 48)))
    corpus = ["12 + 12 = 24", "model: 12 + 3 = 15"] * 3
    return (
        student,
        teacher,
        shuffled_model(teacher, root / "shuffled"),
        other_model(root / "other", corpus=corpus, tokens=270),
    )


@pytest.fixture
def spec(tiny_world):
    return TaskSpec(dataset=str(tiny_world.problems), prompt_column="question", answer_column="answer", eval_examples=4)


@pytest.fixture
def world(folders, tiny_spec, monkeypatch, spec):
    """Student, teacher, the same teacher with shuffled ids, a teacher of another kind; in float64. And the task."""
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(folders[0].parent))
    models = [
        load_model(ModelSpec(model=str(path)), device="cpu", trainable=False, role="teacher", dtype=torch.float64)
        for path in folders
    ]
    return SimpleNamespace(models=models, task=load_task(spec, models[0].tokenizer, seed=0))


def asked(world, texts, *, ends=True):
    """Rollouts of these texts, as the student's tokenizer would write them."""
    student, task = world.models[0], world.task
    problems = list(task.train[: len(texts)])
    written = [task.imitate(text)[: None if ends else -1] for text in texts]
    rollouts = imitated([task.encode(problem) for problem in problems], written, student)
    return Asked(rollouts, problems, [None] * len(texts))


def feedback(world, asked, scores):
    student = world.models[0]
    own = score_with_ends(student, asked.rollouts, micro_tokens=10_000).rows
    return Feedback.from_rows(own, scores.rows, asked.rollouts.tokens, asked.rollouts.mask)


def translated(world, teacher, spec, **options):
    return Voice("teacher", teacher, translator=Translator(world.models[0], teacher, spec, param="p"), **options)


def test_shuffled_ids_change_nothing_that_a_teacher_says(world, spec):
    student, teacher, shuffled, _ = world.models
    question = asked(world, TEXTS)
    voice = translated(world, shuffled, spec)
    special = torch.tensor([student.tokenizer.pad_token_id, student.tokenizer.bos_token_id])  # tokens of no text
    assert voice.translator.shared_tokens == student.vocab_size - len(special)
    scores, read = voice.score(question, world.task, micro_tokens=60)
    assert bool(scores.rows.shared.rows.all())
    found = feedback(world, question, scores)
    plain = score_with_ends(teacher, question.rollouts, micro_tokens=10_000)
    # The same two models without what is not shared.
    kept = torch.ones(student.vocab_size, dtype=torch.bool)
    kept[special] = False
    own = score_with_ends(student, question.rollouts, micro_tokens=10_000).rows.log_probs(1.0)
    without = [logp.masked_fill(~kept, -1e9) for logp in (own, plain.rows.log_probs(1.0))]
    expected = Feedback.from_rows(*map(DenseTarget, without), question.rollouts.tokens, question.rollouts.mask)
    for field in ("log_ratio", "kl", "student_entropy", "teacher_entropy"):
        # Norms are computed in float32 whatever the weights' precision, and the batches differ in their padding.
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), atol=2e-6, rtol=0)
    assert read == int(question.rollouts.mask.sum() + question.rollouts.prompt_mask.sum())


def test_rows_are_those_of_a_forward_over_its_own_prompt_and_ids(world, spec):
    """Another tokenizer with BOS: each aligned row comes from the state before the same bytes."""
    *_, other = world.models
    question = asked(world, TEXTS)
    voice = translated(world, other, spec)
    scores, read = voice.score(question, world.task, micro_tokens=40)
    ours, theirs = scores.rows.shared, other.tokenizer
    start, count = 0, 0
    own_bytes, their_bytes = (token_bytes(lm.tokenizer, lm.vocab_size, param="p") for lm in (world.models[0], other))
    for row, text in enumerate(TEXTS):
        prompt = theirs(str(question.problems[row].raw))["input_ids"]
        assert prompt[0] == theirs.bos_token_id
        assert prompt.count(theirs.bos_token_id) == 1
        assert voice.encode(world.task, question.problems[row]) == prompt
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[*prompt, *ids, theirs.eos_token_id]])
        count += whole.numel()
        with torch.no_grad():
            hidden = other.trunk(whole, torch.ones_like(whole)).last_hidden_state[0, len(prompt) - 1 : -1]
        mine = world.task.imitate(text)
        positions = []
        for place in range(len(mine)):
            before = b"".join(own_bytes[i] for i in mine[:place])
            read_so_far = (b"".join(their_bytes[i] for i in ids[:p]) for p in range(len(ids) + 1))
            positions.append(next((p for p, told in enumerate(read_so_far) if told == before), None))
        assert positions[-1] == len(ids)  # the end of sequence, by its role
        for place, position in enumerate(positions):
            if bool(ours.rows[start + place]):
                torch.testing.assert_close(scores.rows.teacher.hidden[start + place], hidden[position])
        assert bool(ours.rows[start + len(mine) - 1])
        start += len(mine)
    assert start == len(ours.rows)
    assert 0 < int(ours.rows.sum()) < start
    assert read == count


def test_a_chat_template_is_the_teachers_own(world, spec):
    *_, other = world.models
    other.tokenizer.chat_template = TEMPLATE
    voice = translated(world, other, spec.model_copy(update={"system_prompt": "Add."}))
    problem = world.task.train[0]
    ids = voice.encode(world.task, problem)
    assert other.tokenizer.decode(ids) == f"<start>system: Add.\n<start>user: {problem.raw}\nmodel:"
    assert ids[0] == other.tokenizer.bos_token_id != ids[1]  # the template has written it
    shown = replace(voice, context="{answer} = {prompt}").encode(world.task, problem)
    assert other.tokenizer.decode(shown).endswith(f"user: {problem.answer} = {problem.raw}\nmodel:")
    other.tokenizer.chat_template = None
    with pytest.raises(UserError, match="which the teacher's tokenizer does not have") as raised:
        translated(world, other, spec.model_copy(update={"template": "chat"}))
    assert raised.value.param == "task.template"


def test_what_an_environment_said_is_read_and_takes_no_row(world, spec):
    student, _, shuffled, _ = world.models
    question = asked(world, TEXTS[:2])
    acted = [[place % 2 == 0 or place + 1 == len(ids) for place in range(len(ids))] for ids in
             question.rollouts.completions()]  # fmt: skip
    prompts = [world.task.encode(problem) for problem in question.problems]
    holed = replace(question, rollouts=imitated(prompts, question.rollouts.completions(), student, acted))
    voice = translated(world, shuffled, spec)
    (whole, _), (some, _) = (voice.score(one, world.task, micro_tokens=60) for one in (question, holed))
    kept = torch.tensor([own for row in acted for own in row])
    assert torch.equal(some.rows.shared.rows, whole.rows.shared.rows[kept])
    torch.testing.assert_close(some.rows.teacher.hidden, whole.rows.teacher.hidden[kept])


@pytest.mark.parametrize("field", [{"tool": {}}, {"messages_column": "talk"}])
def test_a_teacher_of_other_tokens_does_not_follow_a_chat_of_several_turns(world, spec, field):
    with pytest.raises(UserError, match="makes several turns of it") as raised:
        translated(world, world.models[3], TaskSpec.model_validate({**spec.model_dump(), **field}))
    assert raised.value.code == "several_turns"


def test_the_state_after_a_cut_completion(world, spec):
    """Where a rollout would have gone on, the teacher is read too; not where it ended or broke off within a letter."""
    student, _, shuffled, _ = world.models
    translator = translated(world, shuffled, spec).translator
    written = world.task.imitate(" 12 é")
    assert translator.read(written).end == -1
    whole = translator.read(written[:-1])
    assert whole.end == len(whole.ids) - 1 == len(written) - 1
    broken = translator.read(written[:-2])
    assert broken.end == -1
    assert broken.rows == [*range(len(written) - 3), -1]
    scores, _ = translator.score([[5]], imitated([[5]], [written[:-1]], student), micro_tokens=100)
    assert scores.ends.shared.rows.tolist() == [True]
    torch.testing.assert_close(
        scores.ends.teacher.hidden[0],
        shuffled.trunk(torch.tensor([[5, *whole.ids[:-1]]]), torch.ones(1, len(whole.ids))).last_hidden_state[0, -1],
    )
    assert student is not shuffled


def reader(ours, theirs, *, eos=None):
    """A translator between two tokenizers, without models."""
    student, teacher = (
        SimpleNamespace(
            tokenizer=one,
            vocab_size=len(one),
            eos_ids=(one.eos_token_id,),
            name="x",
            head=SimpleNamespace(weight=torch.zeros(1)),
        )
        for one in (ours, theirs)
    )
    if eos is not None:
        student.eos_ids = eos
    return Translator(student, teacher, TaskSpec(name="demo/word-problems"), param="p")


@pytest.fixture
def byte_level(folders):
    return AutoTokenizer.from_pretrained(folders[0])


def test_merged_tokens_by_hand(byte_level):
    """The teacher writes 12 as one token, and sets a blank before a text that has none."""
    piece, ids = sentence_piece(), byte_level.convert_tokens_to_ids
    reading = reader(byte_level, piece).read(ids(["1", "2", "+", "1", "3", "<eos>"]))
    assert piece.convert_ids_to_tokens(reading.ids) == ["\u2581", "12", "+", "1", "3", "</s>"]
    assert reading.rows == [-1, -1, 2, 3, 4, 5]
    assert reading.end == -1
    # The blank is in the text: nothing is added, and the first token of either side is that blank.
    reading = reader(byte_level, piece).read(ids(["\u0120", "1", "3"]))
    assert piece.convert_ids_to_tokens(reading.ids) == ["\u2581", "1", "3", "</s>"]
    assert reading.rows == [0, 1, 2]
    assert reading.end == 3


def test_letters_in_pieces_are_aligned_piece_by_piece(byte_level):
    piece, ids = sentence_piece(), byte_level.convert_tokens_to_ids
    reading = reader(byte_level, piece).read([*ids(["3", "\u00c3", "\u00a9"]), byte_level.eos_token_id])
    assert piece.convert_ids_to_tokens(reading.ids) == ["\u2581", "3", "<0xC3>", "<0xA9>", "</s>"]
    assert reading.rows == [1, 2, 3, 4]


def test_the_same_bytes_by_an_unusual_token_are_not_aligned():
    """The student writes a blank as a single byte: in its vocabulary that is another token than the blank."""
    piece = sentence_piece()
    reading = reader(piece, piece).read(piece.convert_tokens_to_ids(["<0x20>", "1", "</s>"]))
    assert piece.convert_ids_to_tokens(reading.ids) == ["\u2581", "1", "</s>"]
    assert reading.rows == [-1, 1, 2]


def test_a_prompt_with_tokens_that_the_teacher_has_no_embedding_for_is_refused(world, spec):
    *_, other = world.models
    voice = translated(world, other, spec)
    other.vocab_size = 100
    with pytest.raises(UserError, match=r"for which .* has no embedding") as raised:
        voice.encode(world.task, world.task.train[0])
    assert raised.value.code == "different_vocabularies"


def test_what_is_no_text_ends_the_reading(byte_level):
    piece, ids = sentence_piece(), byte_level.convert_tokens_to_ids
    translator = reader(byte_level, piece)
    hole = translator.read(ids(["1", "<hole>", "3", "<eos>"]))
    assert piece.convert_ids_to_tokens(hole.ids) == ["\u2581", "1", "</s>"]
    assert hole.rows == [1, -1, -1, -1]
    broken = translator.read(ids(["1", "\xa9", "3", "<eos>"]))
    assert broken.rows == [1, -1, -1, -1]
    # Words that are the teacher's special token are not read as that token.
    spelled = translator.read(ids([*"+</s>+", "<eos>"]))
    assert spelled.ids[-1] == piece.eos_token_id
    assert spelled.ids.count(piece.eos_token_id) == 1
    assert spelled.rows == [1, *[-1] * 6]
    # A text that the student's own special tokens stand in is no end of it.
    assert translator.read([byte_level.eos_token_id]).rows == [0]


def test_only_the_token_that_both_end_by_is_matched(byte_level):
    piece = sentence_piece()
    other = byte_level.convert_tokens_to_ids("<hole>")
    translator = reader(byte_level, piece, eos=(byte_level.eos_token_id, other))
    assert translator.read([byte_level.convert_tokens_to_ids("3"), other]).rows == [1, -1]
    assert translator.read([byte_level.convert_tokens_to_ids("3"), byte_level.eos_token_id]).rows == [1, 2]
    assert translator.read([other]).ids == [piece.eos_token_id]
