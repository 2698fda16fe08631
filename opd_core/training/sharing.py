"""How several processes share a step, so that each of them then holds the whole of it.

The student writes for a share of the prompts on each process; scores, verdicts and gradients are of a share of the
rows. Shares are contiguous, so the whole is what the processes have one after the other, in the order of a single one.
With one process everything is passed through as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from opd_core.models import is_shard
from opd_core.objective.shared import Shared, TranslatedTarget
from opd_core.objective.targets import HiddenTarget, MixtureTarget, Target
from opd_core.rollout import Rollouts, join
from opd_core.tasks import Problem
from opd_core.teachers import Scored, Scores
from opd_core.training.ranks import Ranks
from opd_core.training.states import Writer, Written


def share(rollouts: Rollouts, ranks: Ranks) -> slice:
    """The rows of this process: contiguous, about as many tokens for each process, one row at least."""
    if ranks.count == 1:
        return slice(0, len(rollouts))
    spans = rollouts.spans.tolist()
    return cuts(spans, ranks.count)[ranks.number]


def cuts(sizes: Sequence[int], parts: int) -> list[slice]:
    """``parts`` contiguous slices of about the same summed size, none of them empty. Needs ``parts`` sizes at least."""
    upto = list(accumulate(sizes))
    bounds = [0]
    for part in range(1, parts):
        wanted = next(i for i, size in enumerate(upto) if size * parts >= upto[-1] * part) + 1
        bounds.append(min(max(wanted, bounds[-1] + 1), len(sizes) - (parts - part)))
    return [slice(start, stop) for start, stop in zip(bounds, [*bounds[1:], len(sizes)], strict=True)]


def write_together(writer: Writer, problems: Sequence[Problem], ranks: Ranks, *, step: int, progress: float) -> Written:
    """``Writer.fresh`` of all problems. What is drawn depends on problem and sample, not on the process."""
    if ranks.count == 1:
        return writer.fresh(problems, step=step, progress=progress)
    start, stop = (len(problems) * number // ranks.count for number in (ranks.number, ranks.number + 1))
    device = writer.student.head.weight.device
    own = writer.fresh(problems[start:stop], step=step, progress=progress) if stop > start else _nothing(device)
    rollouts = own.rollouts
    left, right = map(int, ranks.most(rollouts.prompts.shape[1], rollouts.tokens.shape[1]))
    wide = join([rollouts, _no_rows(left, right, device)], writer.student.pad_id)
    samples = writer.spec.samples_per_prompt
    repeated = [problem for problem in problems for _ in range(samples)]
    lengths = ranks.gather(torch.tensor([len(ids) for ids in own.begun], dtype=torch.long, device=device))
    begun = ranks.gather(torch.tensor([token for ids in own.begun for token in ids], dtype=torch.long, device=device))
    group = torch.arange(len(repeated), device=device) // samples
    return Written(
        repeated,
        Rollouts(*(ranks.gather(getattr(wide, field.name)) for field in fields(Rollouts))),
        group,
        ranks.gather(own.origin),
        torch.zeros_like(group),
        [ids.tolist() for ids in begun.split(lengths.tolist())],
        int(ranks.total(own.teacher_begun)[0]),
    )


def whole_scores(scores: Scores, ranks: Ranks) -> Scores:
    """The scores of all rows, from those of each process's share."""
    return scores if ranks.count == 1 else Scores(_whole(scores.rows, ranks), _whole(scores.ends, ranks))


def whole_scored(scored: Scored, ranks: Ranks) -> Scored:
    """The same with its price: what all processes have spent."""
    if ranks.count == 1:
        return scored
    tokens, flops, *of_each = ranks.total(scored.tokens, scored.flops, *scored.of_each)
    return Scored(whole_scores(scored.scores, ranks), int(tokens), flops, tuple(map(int, of_each)))


def whole_verdicts(own: Sequence[bool | None], ranks: Ranks) -> list[bool | None]:
    """Right, wrong or unknown for all rows. A verifier need not say the same twice, so nobody else asks it again."""
    if ranks.count == 1:
        return list(own)
    coded = torch.tensor([-1 if right is None else int(right) for right in own], device=ranks.device)
    return [None if code < 0 else bool(code) for code in ranks.gather(coded).tolist()]


@dataclass(frozen=True)
class Group:
    """What one forward and backward sees: pieces of this process's rows, and passes that only the others need."""

    pieces: Sequence[Rollouts]
    idle: int = 0
    silent: bool = False  # there only for the others' sake: one row, without a completion token

    @property
    def passes(self) -> int:
        """Of the trunk."""
        return len(self.pieces) + self.idle


def even(groups: Sequence[Sequence[Rollouts]], ranks: Ranks) -> list[Group]:
    """As many groups and passes on each process: a layer whose parts they fetch from one another waits for all."""
    (count,) = map(int, ranks.most(len(groups)))
    row = groups[0][0].select(slice(0, 1))
    silent = Group([replace(row, mask=torch.zeros_like(row.mask))], silent=True)  # every weight's gradient is zero
    filled = [*map(Group, groups), *[silent] * (count - len(groups))]
    passes = ranks.most(*(group.passes for group in filled))
    return [replace(group, idle=int(most) - group.passes) for group, most in zip(filled, passes, strict=True)]


def add_gradients(module: nn.Module, ranks: Ranks) -> None:
    """Each parameter's gradient becomes the sum over all processes; what none of them touched keeps none.

    Those of sharded weights were added up in the backward pass.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad and not is_shard(parameter)]
    if ranks.count == 1 or not parameters:
        return
    touched = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=ranks.device)
    ranks.add([touched])
    moved = [parameter for parameter, times in zip(parameters, touched.tolist(), strict=True) if times]
    for parameter in moved:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    ranks.add([parameter.grad for parameter in moved if parameter.grad is not None])


def check_same(module: nn.Module, ranks: Ranks, step: int) -> None:
    """All processes hold the same weights, or training ends here: RuntimeError."""
    held = [p.detach() for p in module.parameters() if p.requires_grad and not is_shard(p)]
    if ranks.count == 1 or not held:
        return
    norms = torch.stack(torch._foreach_norm(held))
    of_all = ranks.gather(norms[None])
    if not torch.equal(of_all, of_all[:1].expand_as(of_all)):
        raise RuntimeError(f"after step {step} the processes of this job hold different weights")


def _whole(target: Target, ranks: Ranks) -> Target:
    match target:
        case HiddenTarget():
            return HiddenTarget(ranks.gather(target.hidden), target.head)
        case MixtureTarget():
            return MixtureTarget(ranks.gather(target.weights), tuple(_whole(part, ranks) for part in target.parts))
        case TranslatedTarget():
            shared = Shared(ranks.gather(target.shared.rows), target.shared.absent)
            return replace(target, teacher=_whole(target.teacher, ranks), shared=shared)
    raise TypeError(f"{type(target).__name__} cannot be shared by processes")


def _nothing(device: torch.device) -> Written:
    """Of a process without a prompt."""
    none: Tensor = torch.zeros(0, dtype=torch.long, device=device)
    return Written([], _no_rows(0, 0, device), none, none, none, [])


def _no_rows(left: int, right: int, device: torch.device) -> Rollouts:
    ids, logp = torch.zeros((0, left), dtype=torch.long, device=device), torch.zeros((0, right), device=device)
    nobody = torch.zeros(0, dtype=torch.bool, device=device)
    return Rollouts(ids, ids.bool(), logp.long(), logp.bool(), logp, nobody, logp.bool())
