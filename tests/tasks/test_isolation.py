"""The tasks isolate what they say, shown on their built models: minutes of schooling, so only in the long form.

The short forms, on the lessons that these models are taught, are test_synonyms.py and test_detours.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from opd_core.models import LanguageModel, load_model
from opd_core.objective.routing import counterfactual_route
from opd_core.rollout import Rollouts, uniform_noise, write
from opd_core.spec import ModelSpec, TaskSpec
from opd_core.tasks import Task, demo_models, detours, load_task, synonyms
from opd_core.tasks.demo_recipe import DETOURS, SYNONYMS, DemoRecipe
from opd_core.training.evaluation import completions, evaluate, recovery

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

PROBLEMS = 150
LONGEST = 52

Models = dict[str, LanguageModel]


def built(home: Path, recipe: DemoRecipe) -> Models:
    folder = demo_models.ensure(home, None, recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(home))
        return {
            one: load_model(ModelSpec(model=str(folder / one)), trainable=False, role=one) for one in recipe.schools
        }


def task_of(models: Models, name: str) -> Task:
    return load_task(TaskSpec(name=name, eval_examples=PROBLEMS), models["student"].tokenizer, seed=0)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return built(tmp_path_factory.mktemp("synonyms"), SYNONYMS)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return built(tmp_path_factory.mktemp("detours"), DETOURS)


def sampled(lm: LanguageModel, task: Task) -> Rollouts:
    noise = uniform_noise(0, 1, [(problem.id, 0) for problem in task.eval], LONGEST)
    prompts = [task.encode(problem) for problem in task.eval]
    return write(lm, prompts, max_new_tokens=LONGEST, noise=noise)


@torch.no_grad()
def log_probabilities(lm: LanguageModel, task: Task, written: Sequence[Sequence[int]]) -> Tensor:
    """[N, V] at every token of every completion."""
    rows = []
    for problem, completion in zip(task.eval, written, strict=True):
        prompt = task.encode(problem)
        logits = lm.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
        rows.append(logits.log_softmax(-1)[len(prompt) - 1 : -1])
    return torch.cat(rows)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.exp() * (student - teacher)).sum(-1)


def entropy(logp: Tensor) -> Tensor:
    return -(logp.exp() * logp).sum(-1)


def test_only_the_words_are_wrong(words: Models) -> None:
    """At every level; and the student finds them the seldomer the farther the level."""
    accuracy = {}
    for level in synonyms.LEVELS:
        task = task_of(words, level)
        for name, lm in words.items():
            found = evaluate(lm, task, max_new_tokens=LONGEST)
            assert found is not None
            texts = completions(lm, found.rollouts)
            ends = [text.split()[-2:] == str(p.answer).split() for text, p in zip(texts, task.eval, strict=True)]
            assert sum(ends) > 0.9 * PROBLEMS
            accuracy[name, level.removeprefix("demo/synonyms")] = found.accuracy
    assert min(accuracy["teacher", level] for level in ("-near", "", "-far")) > 0.9
    assert accuracy["student", "-near"] > 0.4 > 0.3 > accuracy["student", ""] > 0.1 > accuracy["student", "-far"]


def at_the_words(models: Models, level: str) -> dict[str, float]:
    """At the words of the student's own solutions, by the probabilities of both models: means over the words."""
    task, tokenizer = task_of(models, level), models["student"].tokenizer
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(synonyms.WORDS)))
    written = sampled(models["student"], task).completions()
    tokens = torch.tensor([token for completion in written for token in completion])
    things = [str(p.answer).split()[1] for p, one in zip(task.eval, written, strict=True) for _ in one]
    student, teacher = (log_probabilities(models[name], task, written) for name in ("student", "teacher"))
    at = torch.isin(tokens, ids)
    apart = kl(student, teacher)

    own = torch.zeros_like(student, dtype=torch.bool)
    for row, thing in enumerate(things):
        own[row, tokenizer.convert_tokens_to_ids(list(synonyms.belonging(thing)))] = True
    own, student, teacher, tokens = own[at], student[at], teacher[at], tokens[at]
    foreign = ids[None, :].expand(len(own), -1)
    belongs = own.gather(1, foreign)
    wrong = ~own.gather(1, tokens[:, None])[:, 0]
    route = counterfactual_route(
        student, teacher, tokens, student_top_k=16, teacher_top_k=8, weighting="teacher"
    )  # as recipe cr-opd
    routed = torch.zeros_like(student).scatter_add(1, route.ids, route.weights)
    alone = student.exp().scatter(1, tokens[:, None], 0.0)
    alone /= alone.sum(1, keepdim=True)
    found = {
        "apart": apart[at].mean() / apart[~at].mean(),
        "student wrong": (student.exp().gather(1, foreign) * ~belongs).sum(1).mean(),
        "student": (student.exp() * own).sum(1).mean(),
        "teacher": (teacher.exp() * own).sum(1).mean(),
        "said": (student.exp() > 0.01).sum(1).float().mean(),
        "no route": route.empty[wrong].float().mean(),
        "routed": (routed * own)[wrong].sum(1).mean(),
        "by softmax": (alone * own)[wrong].sum(1).mean(),
    }
    return {name: float(value) for name, value in found.items()}


def test_where_a_words_mass_goes_decides(words: Models) -> None:
    """The farther the level, the less of a wrong word's mass softmax sends where it belongs; routed, all of it."""
    found = {level.removeprefix("demo/synonyms"): at_the_words(words, level) for level in synonyms.LEVELS}
    for one in found.values():
        assert one["apart"] > 20  # times as much divergence as elsewhere
        assert one["student wrong"] > 0.6  # it prefers what is not supported
        assert one["teacher"] > 0.95  # the teacher supports nothing else
        assert one["student"] > 0.05  # and the student can reach it
        assert one["said"] > 8  # among many
        assert one["no route"] < 0.02
        assert one["routed"] > 0.95
    for measure in ("student", "by softmax"):
        near, middle, far = (found[level][measure] for level in ("-near", "", "-far"))
        assert near > 1.3 * middle > 1.3 * 1.3 * far
    assert found[""]["student"] > 0.1
    assert found[""]["by softmax"] < 0.35
    assert found["-near"]["by softmax"] < 0.4


def test_the_teacher_is_right_on_its_own_states_and_lost_on_the_students(ways: Models) -> None:
    task, models = task_of(ways, detours.TASK), ways
    found = {name: evaluate(lm, task, max_new_tokens=LONGEST) for name, lm in models.items()}
    accuracy = {name: one.accuracy for name, one in found.items() if one}
    assert min(accuracy["teacher"], accuracy["matched-teacher"]) > 0.95
    assert 0.3 < accuracy["student"] < 0.7

    def from_prefixes(teacher: str, writer: str) -> dict[int, float]:
        one = found[writer]
        assert one is not None
        return recovery(models[teacher], task, one.rollouts, problems=PROBLEMS, max_new_tokens=LONGEST).solved

    own, others = from_prefixes("teacher", "teacher"), from_prefixes("teacher", "student")
    matched = from_prefixes("matched-teacher", "student")
    assert min(own.values()) > 0.95
    assert others[40] < accuracy["student"] - 0.1  # it would make worse of it than the student does
    # After 80 % the rest is written or lost, for every teacher.
    assert all(matched[percent] > others[percent] + 0.3 for percent in (40, 60))
    assert matched[40] > accuracy["student"] + 0.15


def test_the_levels_differ_in_how_lost_the_teacher_is(ways: Models) -> None:
    """Behind the first 40 % of what the student writes: what the mismatched teacher loses against the matched one."""
    lost = {}
    for level in detours.LEVELS:
        task = task_of(ways, level)
        found = evaluate(ways["student"], task, max_new_tokens=LONGEST)
        assert found is not None
        solved = {
            name: recovery(ways[name], task, found.rollouts, problems=PROBLEMS, max_new_tokens=LONGEST).solved[40]
            for name in ("teacher", "matched-teacher")
        }
        lost[level.removeprefix("demo/detours")] = solved["matched-teacher"] - solved["teacher"]
        own = evaluate(ways["teacher"], task, max_new_tokens=LONGEST)
        assert own is not None
        assert own.accuracy > 0.95  # at every level it is right by itself
    assert 0.1 < lost["-few"] < lost[""] - 0.1
    assert lost[""] < lost["-many"] - 0.1


def test_what_differs_is_compatibility_on_the_students_states(ways: Models) -> None:
    """Divergence, shared mass and entropy gap: alike for both teachers on their own states, apart on the student's."""
    task, models = task_of(ways, detours.TASK), ways
    found = {}
    for writer in ("teacher", "student"):
        written = evaluate(models[writer], task, max_new_tokens=LONGEST)
        assert written is not None
        of = {name: log_probabilities(lm, task, written.rollouts.completions()) for name, lm in models.items()}
        for name in ("teacher", "matched-teacher"):
            found[writer, name] = {
                "kl": float(kl(of["student"], of[name]).mean()),
                "shared": float(torch.minimum(of["student"].exp(), of[name].exp()).sum(-1).mean()),
                "gap": float((entropy(of["student"]) - entropy(of[name])).abs().mean()),
            }
    far, near = found["student", "teacher"], found["student", "matched-teacher"]
    assert far["kl"] > 1.5 * near["kl"]
    assert far["shared"] < near["shared"] - 0.04
    assert far["gap"] > 1.2 * near["gap"]
    at_home = [found["teacher", name] for name in ("teacher", "matched-teacher")]
    assert abs(at_home[0]["shared"] - at_home[1]["shared"]) < 0.02


def test_the_student_finishes_a_detour_and_the_teacher_forbids_it(ways: Models) -> None:
    task, models = task_of(ways, detours.TASK), ways
    rest = models["student"].tokenizer.convert_tokens_to_ids(detours.REST)
    written = evaluate(models["student"], task, max_new_tokens=LONGEST)
    assert written is not None
    rows = written.rollouts.completions()
    at = torch.tensor([token == rest for row in rows for token in row])
    chance = {name: float(log_probabilities(lm, task, rows)[at, rest].exp().mean()) for name, lm in models.items()}
    assert chance["student"] > 0.6
    assert chance["matched-teacher"] > 0.9
    assert chance["teacher"] < 0.01
