"""What was written after a batch of prompts: by the student, and where it has one, by an environment in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.tasks.environment import Transcript


@dataclass(frozen=True)
class Rollouts:
    """B completions of left-padded prompts.

    ``mask`` is the action mask: True on every token that the student wrote, its first end-of-sequence token included
    (even where the padding id is the same). ``present`` adds what an environment put between them: context for what
    comes after it, and nobody's action. ``truncated`` rows met the length cap: the episode did not end there.
    """

    prompts: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P] bool
    tokens: Tensor  # [B, T] right-padded
    mask: Tensor  # [B, T] bool
    behaviour_logp: Tensor  # [B, T] log-probability under which each token was sampled; 0 off the mask
    truncated: Tensor  # [B] bool
    present: Tensor  # [B, T] bool: every token of the completion, from the first to the last without a gap

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[B] number of actions: tokens that the student wrote."""
        return self.mask.sum(1)

    @property
    def spans(self) -> Tensor:
        """[B] number of tokens that a reader reads: the prompt, the student's and the environment's."""
        return self.prompt_mask.sum(1) + self.present.sum(1)

    def select(self, rows: slice) -> Rollouts:
        """Some rows, without the padding that only the others needed."""
        prompt_mask, present = self.prompt_mask[rows], self.present[rows]
        start = int((~prompt_mask.any(0)).sum())
        stop = int(present.any(0).sum())
        return Rollouts(
            self.prompts[rows, start:],
            prompt_mask[:, start:],
            self.tokens[rows, :stop],
            self.mask[rows, :stop],
            self.behaviour_logp[rows, :stop],
            self.truncated[rows],
            present[:, :stop],
        )

    def reorder(self, rows: Tensor) -> Rollouts:
        """The sequences at indices ``rows``, in that order."""
        return Rollouts(
            self.prompts[rows],
            self.prompt_mask[rows],
            self.tokens[rows],
            self.mask[rows],
            self.behaviour_logp[rows],
            self.truncated[rows],
            self.present[rows],
        )

    def completions(self) -> list[list[int]]:
        """The ids of each completion, what an environment put between them included."""
        pairs = zip(self.tokens.cpu(), self.present.cpu(), strict=True)
        return [tokens[present].tolist() for tokens, present in pairs]

    def acted(self) -> list[list[bool]]:
        """For each token of each completion, whether the student wrote it."""
        pairs = zip(self.mask.cpu(), self.present.cpu(), strict=True)
        return [mask[present].tolist() for mask, present in pairs]

    def transcripts(self) -> list[Transcript]:
        """Both of them together."""
        return [Transcript(ids, own) for ids, own in zip(self.completions(), self.acted(), strict=True)]

    def beginnings(self, actions: Sequence[int]) -> list[Transcript]:
        """Of each completion what comes before one of its actions (counted from 0): the state that it is taken at."""
        found = []
        for whole, action in zip(self.transcripts(), actions, strict=True):
            place = [place for place, own in enumerate(whole.own) if own][action]
            found.append(Transcript(whole.ids[:place], whole.own[:place]))
        return found

    def after(self, prompts: Sequence[Sequence[int]], pad_id: int) -> Rollouts:
        """The same completions after other prompts: what a teacher reads that knows more than the student."""
        ids, prompt_mask = left_padded(prompts, pad_id)
        return replace(self, prompts=ids.to(self.tokens.device), prompt_mask=prompt_mask.to(self.tokens.device))

    def sequences(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt and completion as one, padded on the right only: no wider than the longest sequence.

        Returns ids [B, W], attention mask [B, W], and a mask [B, W] of the positions whose logits predict an action
        (row-major, these are the N states of the action mask): logits[t] predicts token t + 1.
        """
        attention = torch.arange(int(self.spans.max()), device=self.tokens.device) < self.spans[:, None]
        held = torch.cat([self.prompt_mask, self.present], 1)
        # Padding is masked, so any id will do.
        ids = self.tokens.new_full(attention.shape, int(self.prompts[0, -1]))
        ids[attention] = torch.cat([self.prompts, self.tokens], 1)[held]
        acted = torch.zeros_like(attention)
        acted[attention] = torch.cat([torch.zeros_like(self.prompt_mask), self.mask], 1)[held]
        return ids, attention, acted.roll(-1, 1)  # no row begins with an action: before each there is a prompt


def imitated(
    prompts: Sequence[Sequence[int]],
    solutions: Sequence[Sequence[int]],
    lm: LanguageModel,
    acted: Sequence[Sequence[bool]] | None = None,
) -> Rollouts:
    """Given completions as rollouts. Nobody sampled them: their ``behaviour_logp`` is 0.

    ``acted`` says which tokens of a solution are actions; None = all. A solution that was cut before its end of
    sequence counts as truncated.
    """
    device = lm.head.weight.device
    ids, prompt_mask = left_padded(prompts, lm.pad_id)
    longest = max(len(solution) for solution in solutions)
    tokens = torch.full((len(solutions), longest), lm.pad_id)
    for row, solution in enumerate(solutions):
        tokens[row, : len(solution)] = torch.tensor(solution)
    present = torch.arange(longest) < torch.tensor([len(solution) for solution in solutions])[:, None]
    mask = present.clone()
    if acted is not None:
        mask[present] = torch.tensor([own for row in acted for own in row], dtype=torch.bool)
    return Rollouts(
        ids.to(device),
        prompt_mask.to(device),
        tokens.to(device),
        mask.to(device),
        torch.zeros(mask.shape, device=device),
        torch.tensor([solution[-1] not in lm.eos_ids for solution in solutions], device=device),
        present.to(device),
    )


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids [B, P] and mask [B, P] bool of prompts that end side by side."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    mask = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    return ids, mask


def join(parts: Sequence[Rollouts], pad_id: int) -> Rollouts:
    """Batches of different widths as one: prompts grow on the left, completions on the right."""
    left = max(part.prompts.shape[1] for part in parts)
    right = max(part.tokens.shape[1] for part in parts)
    pad = torch.nn.functional.pad

    def on_left(tensor: Tensor, value: float) -> Tensor:
        return pad(tensor, (left - tensor.shape[1], 0), value=value)

    def on_right(tensor: Tensor, value: float) -> Tensor:
        return pad(tensor, (0, right - tensor.shape[1]), value=value)

    return Rollouts(
        prompts=torch.cat([on_left(part.prompts, pad_id) for part in parts]),
        prompt_mask=torch.cat([on_left(part.prompt_mask, False) for part in parts]),
        tokens=torch.cat([on_right(part.tokens, pad_id) for part in parts]),
        mask=torch.cat([on_right(part.mask, False) for part in parts]),
        behaviour_logp=torch.cat([on_right(part.behaviour_logp, 0.0) for part in parts]),
        truncated=torch.cat([part.truncated for part in parts]),
        present=torch.cat([on_right(part.present, False) for part in parts]),
    )
