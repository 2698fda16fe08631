"""The student writes: batched sampling, token by token, from which finished rows are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.rollout.decoders import Decoder, GrowingDecoder
from opd_core.rollout.fixed import FixedEngine
from opd_core.rollout.sampling import behaviour_log_probs, mixed, sample


@dataclass(frozen=True)
class Rollouts:
    """B completions of left-padded prompts.

    ``mask`` is the action mask: True on every token that the student wrote, its first end-of-sequence token included
    (even where the padding id is the same). ``truncated`` rows met the length cap: the episode did not end there.
    """

    prompts: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P] bool
    tokens: Tensor  # [B, T] right-padded
    mask: Tensor  # [B, T] bool
    behaviour_logp: Tensor  # [B, T] log-probability under which each token was sampled; 0 off the mask
    truncated: Tensor  # [B] bool

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[B] number of completion tokens."""
        return self.mask.sum(1)

    def select(self, rows: slice) -> Rollouts:
        """Some rows, without the padding that only the others needed."""
        prompt_mask, mask = self.prompt_mask[rows], self.mask[rows]
        start = int((~prompt_mask.any(0)).sum())
        stop = int(mask.any(0).sum())
        return Rollouts(
            self.prompts[rows, start:],
            prompt_mask[:, start:],
            self.tokens[rows, :stop],
            mask[:, :stop],
            self.behaviour_logp[rows, :stop],
            self.truncated[rows],
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
        )

    def completions(self) -> list[list[int]]:
        """The ids of each completion."""
        pairs = zip(self.tokens.cpu(), self.mask.cpu(), strict=True)
        return [tokens[mask].tolist() for tokens, mask in pairs]

    def after(self, prompts: Sequence[Sequence[int]], pad_id: int) -> Rollouts:
        """The same completions after other prompts: what a teacher reads that knows more than the student."""
        ids, prompt_mask = left_padded(prompts, pad_id)
        return replace(self, prompts=ids.to(self.tokens.device), prompt_mask=prompt_mask.to(self.tokens.device))

    def sequences(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt and completion as one, padded on the right only: no wider than the longest sequence.

        Returns ids [B, W], attention mask [B, W], and a mask [B, W] of the positions whose logits predict a completion
        token (row-major, these are the N states of the action mask): logits[t] predicts token t + 1.
        """
        before, written = self.prompt_mask.sum(1, keepdim=True), self.mask.sum(1, keepdim=True)
        position = torch.arange(int((before + written).max()), device=self.tokens.device)
        attention = position < before + written
        # Padding is masked, so any id will do.
        ids = self.tokens.new_full(attention.shape, int(self.prompts[0, -1]))
        ids[attention] = torch.cat([self.prompts, self.tokens], 1)[torch.cat([self.prompt_mask, self.mask], 1)]
        return ids, attention, (position >= before - 1) & (position < before + written - 1)


@dataclass(frozen=True)
class Companion:
    """A second model that has a say in each token: sampling is from share x it + (1 - share) x the student."""

    lm: LanguageModel
    share: float


@torch.no_grad()
def write(
    student: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    noise: Tensor | None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    companion: Companion | None = None,
    engine: FixedEngine | None = None,
    batch_rows: int = 512,
) -> Rollouts:
    """Complete each prompt (token ids) with up to ``max_new_tokens`` tokens.

    ``noise`` [B, max_new_tokens] of uniform numbers drives the sampling (noise.py); None decodes greedily, where
    ``behaviour_logp`` is that of the untempered student. At most ``batch_rows`` rows run together. ``engine`` is the
    student's, where it writes with a cache of fixed size.
    """
    if not prompts:
        raise ValueError("no prompts to complete")
    parts = [
        _write_batch(
            student,
            prompts[start : start + batch_rows],
            max_new_tokens=max_new_tokens,
            noise=None if noise is None else noise[start : start + batch_rows],
            temperature=temperature,
            top_p=top_p,
            companion=companion,
            engine=engine,
        )
        for start in range(0, len(prompts), batch_rows)
    ]
    return parts[0] if len(parts) == 1 else join(parts, student.pad_id)


def imitated(prompts: Sequence[Sequence[int]], solutions: Sequence[Sequence[int]], lm: LanguageModel) -> Rollouts:
    """Given completions as rollouts. Nobody sampled them: their ``behaviour_logp`` is 0.

    A solution that was cut before its end of sequence counts as truncated.
    """
    device = lm.head.weight.device
    ids, prompt_mask = left_padded(prompts, lm.pad_id)
    longest = max(len(solution) for solution in solutions)
    tokens = torch.full((len(solutions), longest), lm.pad_id)
    for row, solution in enumerate(solutions):
        tokens[row, : len(solution)] = torch.tensor(solution)
    mask = torch.arange(longest) < torch.tensor([len(solution) for solution in solutions])[:, None]
    return Rollouts(
        ids.to(device),
        prompt_mask.to(device),
        tokens.to(device),
        mask.to(device),
        torch.zeros(mask.shape, device=device),
        torch.tensor([solution[-1] not in lm.eos_ids for solution in solutions], device=device),
    )


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids [B, P] and mask [B, P] bool of prompts that end side by side."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    mask = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    return ids, mask


def _write_batch(
    student: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    noise: Tensor | None,
    temperature: float,
    top_p: float,
    companion: Companion | None,
    engine: FixedEngine | None,
) -> Rollouts:
    device = student.head.weight.device
    ids, prompt_mask = (tensor.to(device) for tensor in left_padded(prompts, student.pad_id))
    rows = len(prompts)
    noise = None if noise is None else noise.to(device)
    stops = torch.tensor(student.eos_ids, device=device)

    # What the rows that still write have written, in the order of ``alive``; ``out`` takes them when they leave.
    alive = torch.arange(rows, device=device)
    tokens = torch.full((rows, max_new_tokens), student.pad_id, dtype=torch.long, device=device)
    mask = torch.zeros((rows, max_new_tokens), dtype=torch.bool, device=device)
    behaviour_logp = torch.zeros((rows, max_new_tokens), device=device)
    out = [torch.empty_like(each) for each in (tokens, mask, behaviour_logp)]
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    decoder: Decoder = (
        GrowingDecoder(student, ids, prompt_mask) if engine is None else engine.begin(ids, prompt_mask, max_new_tokens)
    )
    other = None if companion is None else GrowingDecoder(companion.lm, ids, prompt_mask)
    decoders = [decoder] if other is None else [decoder, other]

    def log_probs(of: Decoder) -> Tensor:
        if noise is None:
            return of.logits().float().log_softmax(-1)
        return behaviour_log_probs(of.logits(), temperature=temperature, top_p=top_p)

    for t in range(max_new_tokens):
        logp = log_probs(decoder)
        if companion is not None and other is not None:
            logp = mixed(logp, log_probs(other), companion.share)
        chosen = logp.argmax(-1) if noise is None else sample(logp, noise[:, t])
        mask[:, t] = ~done
        tokens[:, t] = torch.where(done, student.pad_id, chosen)
        behaviour_logp[:, t] = torch.where(done, 0.0, logp.gather(1, chosen[:, None])[:, 0])
        done = done | torch.isin(chosen, stops)
        finished = int(done.sum())  # the one time in a step that a GPU is waited for
        if finished == len(alive) or t + 1 == max_new_tokens:
            break
        for each in decoders:
            each.append(chosen)
        # Copying the cache costs about one decoding step, so finished rows leave in batches.
        if finished * 4 >= len(alive):
            _put(out, alive, (tokens, mask, behaviour_logp))
            stay = (~done).nonzero()[:, 0]
            for each in decoders:
                each.keep(stay)
            alive, done, tokens, mask, behaviour_logp = (
                each[stay] for each in (alive, done, tokens, mask, behaviour_logp)
            )
            noise = None if noise is None else noise[stay]
    _put(out, alive, (tokens, mask, behaviour_logp))

    tokens, mask, behaviour_logp = out
    ended = (torch.isin(tokens, stops) & mask).any(1)
    longest = int(mask.any(0).sum())
    return Rollouts(
        ids, prompt_mask, tokens[:, :longest], mask[:, :longest], behaviour_logp[:, :longest], truncated=~ended
    )


def _put(out: Sequence[Tensor], rows: Tensor, written: Sequence[Tensor]) -> None:
    for whole, part in zip(out, written, strict=True):
        whole[rows] = part


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
    )
