"""The student writes: batched sampling with a key-value cache that drops finished rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.models import LanguageModel, position_ids
from opd_core.rollout.sampling import behaviour_log_probs, sample


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

    def sequences(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt and completion as one, padded on the right only: no wider than the longest sequence.

        Returns ids [B, W], attention mask [B, W], and a mask [B, W] of the positions whose logits predict a completion
        token (row-major, these are the N states of the action mask): logits[t] predicts token t + 1.
        """
        before, written = self.prompt_mask.sum(1, keepdim=True), self.mask.sum(1, keepdim=True)
        position = torch.arange(int((before + written).max()), device=self.tokens.device)
        attention = position < before + written
        # Padding is masked, so any id will do.
        ids = self.tokens.new_full(attention.shape, int(self.tokens[0, 0]))
        ids[attention] = torch.cat([self.prompts, self.tokens], 1)[torch.cat([self.prompt_mask, self.mask], 1)]
        return ids, attention, (position >= before - 1) & (position < before + written - 1)


@torch.no_grad()
def write(
    student: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    noise: Tensor | None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_rows: int = 512,
) -> Rollouts:
    """Complete each prompt (token ids) with up to ``max_new_tokens`` tokens.

    ``noise`` [B, max_new_tokens] of uniform numbers drives the sampling (noise.py); None decodes greedily, where
    ``behaviour_logp`` is that of the untempered student. At most ``batch_rows`` rows run together.
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
        )
        for start in range(0, len(prompts), batch_rows)
    ]
    return parts[0] if len(parts) == 1 else _stack(parts, student.pad_id)


def _write_batch(
    student: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    noise: Tensor | None,
    temperature: float,
    top_p: float,
) -> Rollouts:
    device = student.head.weight.device
    rows, width = len(prompts), max(len(prompt) for prompt in prompts)
    ids = torch.full((rows, width), student.pad_id, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    prompt_mask = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    ids, prompt_mask = ids.to(device), prompt_mask.to(device)
    noise = None if noise is None else noise.to(device)
    stops = torch.tensor(student.eos_ids, device=device)

    tokens = torch.full((rows, max_new_tokens), student.pad_id, dtype=torch.long, device=device)
    mask = torch.zeros((rows, max_new_tokens), dtype=torch.bool, device=device)
    behaviour_logp = torch.zeros((rows, max_new_tokens), device=device)
    alive = torch.arange(rows, device=device)  # rows still in the cache
    done = torch.zeros(rows, dtype=torch.bool, device=device)  # of the rows in ``alive``
    attention, positions, inputs, cache = prompt_mask.long(), position_ids(prompt_mask), ids, None

    for t in range(max_new_tokens):
        output = student.trunk(
            input_ids=inputs,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits = student.head(output.last_hidden_state[:, -1])
        if noise is None:
            logp = logits.float().log_softmax(-1)
            chosen = logp.argmax(-1)
        else:
            logp = behaviour_log_probs(logits, temperature=temperature, top_p=top_p)
            chosen = sample(logp, noise[alive, t])
        writing = alive[~done]
        tokens[writing, t] = chosen[~done]
        behaviour_logp[writing, t] = logp.gather(1, chosen[:, None])[~done, 0]
        mask[writing, t] = True
        done = done | torch.isin(chosen, stops)
        if bool(done.all()) or t + 1 == max_new_tokens:
            break
        attention = torch.cat([attention, attention.new_ones((len(alive), 1))], 1)
        positions = positions[:, -1:] + 1
        inputs = chosen[:, None]
        # Copying the cache costs about one decoding step, so finished rows leave in batches.
        if int(done.sum()) * 4 >= len(alive):
            stay = (~done).nonzero()[:, 0]
            cache.batch_select_indices(stay)
            alive, attention, positions, inputs = alive[stay], attention[stay], positions[stay], inputs[stay]
            done = done[stay]

    ended = (torch.isin(tokens, stops) & mask).any(1)
    longest = int(mask.any(0).sum())
    return Rollouts(
        ids, prompt_mask, tokens[:, :longest], mask[:, :longest], behaviour_logp[:, :longest], truncated=~ended
    )


def _stack(parts: list[Rollouts], pad_id: int) -> Rollouts:
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
