"""What student and teachers can do on the held-out problems of a run, at the run's cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opd_core.models import LanguageModel
from opd_core.teachers import RemoteTeacher
from opd_core.training import messages
from opd_core.training.evaluation import Evaluation, Sampled, evaluate, evaluate_samples, recovery, verify
from opd_core.training.messages import Emit
from opd_core.training.step import Trainer


class Examiner:
    """Seconds, tokens and operations of every examination go to the budget, apart from training's."""

    def __init__(self, t: Trainer, emit: Emit, warn: Callable[..., None]) -> None:
        self._t, self._emit, self._warn = t, emit, warn

    def student(self) -> Evaluation | None:
        """Greedy, on all held-out problems; None where nothing can tell right from wrong."""
        return self._examined(self._t.student)

    def sampled(self) -> Sampled | None:
        """What several samples of each held-out problem come to, where the job asks for pass@k."""
        t = self._t
        with t.budget.phase("evaluation"), t.autocast:
            found = evaluate_samples(t.student, t.task, t.spec, engine=t.writer.engine)
        if found:
            self._pay(t.student, found.spent, found.tokens)
        return found

    def teachers(self) -> dict[int, bool] | None:
        """Right or wrong by problem: each is solved by the heaviest teacher that speaks for it, in its own context."""
        t = self._t
        if isinstance(t.teacher, RemoteTeacher):
            return self._server(t.teacher)
        speakers = {problem.id: t.teacher.speaker(problem) for problem in t.task.eval}
        solved: dict[int, bool] = {}
        for voice in t.teacher.voices:
            own = [problem for problem in t.task.eval if speakers[problem.id] is voice]
            if not own:
                continue
            found = self._examined(voice.lm, problems=own, encode=lambda problem, v=voice: v.encode(t.task, problem))
            if found is None:
                return None
            solved |= zip(found.problems, found.correct, strict=True)
            if len(t.teacher.voices) > 1:
                sentence = f"{voice.lm.name} ({voice.path}) solves {found.accuracy:.1%} of its {len(own)} problems"
                self._emit(messages.event("teacher", sentence, accuracy=found.accuracy, problems=len(own)))
        return solved or None

    def beyond(self, written: Evaluation) -> dict[str, float]:
        """Metrics beside the accuracy: how often the teacher ends well what the student has ``written``, up to 80 % of
        it; and the student on longer problems than any of training.
        """
        metrics = self._recovery(written)
        if longer := self._examined(self._t.student, problems=self._t.task.ood):
            metrics["ood_accuracy"] = longer.accuracy
        return metrics

    def _examined(self, lm: LanguageModel, **options: Any) -> Evaluation | None:
        t = self._t
        with t.budget.phase("evaluation"), t.autocast:
            found = evaluate(
                lm,
                t.task,
                max_new_tokens=t.spec.rollout.max_new_tokens,
                engine=t.writer.engine if lm is t.student else None,
                **options,
            )
        if found:
            self._pay(lm, found.spent, found.tokens)
        return found

    def _server(self, teacher: RemoteTeacher) -> dict[int, bool] | None:
        t = self._t
        if t.task.verify is None or not t.task.eval:
            return None
        if t.task.environment is not None:
            self._warn(
                "the teacher server is not asked to solve problems: it cannot be answered by the tool (task.tool)"
            )
            return None
        with t.budget.phase("evaluation"):
            texts = teacher.solve(t.task.eval, t.spec.rollout.max_new_tokens)
        right = verify(t.task, t.task.eval, texts)
        return {problem.id: bool(correct) for problem, correct in zip(t.task.eval, right, strict=True)}

    def _recovery(self, written: Evaluation) -> dict[str, float]:
        t = self._t
        problems = t.spec.telemetry.recovery_problems
        if not problems or not t.teacher.voices:  # a server only scores
            return {}
        heaviest = max(t.teacher.voices, key=lambda voice: voice.weight)
        helper = heaviest.lm  # it takes over, reading the bare prompt
        if helper is t.student or heaviest.translator is not None:  # it could not go on within the student's tokens
            return {}
        with t.budget.phase("evaluation"), t.autocast:
            found = recovery(
                helper,
                t.task,
                written.rollouts,
                problems=problems,
                max_new_tokens=t.spec.rollout.max_new_tokens,
            )
        self._pay(helper, found.spent)
        return {f"recovery_{percent}": share for percent, share in found.solved.items()}

    def _pay(self, lm: LanguageModel, spent: int, tokens: int = 0) -> None:
        """``tokens`` were written, ``spent`` were read with the prompts."""
        self._t.budget.eval_tokens += tokens
        self._t.budget.eval_flops += 2.0 * lm.flop_parameters * spent
