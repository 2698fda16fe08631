"""The student writes: batched sampling, token by token, from which finished rows are dropped.

Where an environment answers it, what that says is read like a token of its own, and sampled by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.models import LanguageModel
from opd_core.rollout.answers import Answers
from opd_core.rollout.decoders import Decoder, GrowingDecoder
from opd_core.rollout.fixed import FixedEngine
from opd_core.rollout.rollouts import Rollouts, join, left_padded
from opd_core.rollout.sampling import behaviour_log_probs, mixed, sample
from opd_core.tasks.environment import Environment


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
    environment: Environment | None = None,
    begun: Sequence[list[int]] | None = None,
    batch_rows: int = 512,
) -> Rollouts:
    """Complete each prompt (token ids) with up to ``max_new_tokens`` tokens of the student's own.

    ``noise`` [B, max_new_tokens] of uniform numbers drives the sampling (noise.py), one for each position: with an
    ``environment`` there are ``environment.room(max_new_tokens)`` of them. None decodes greedily, where
    ``behaviour_logp`` is that of the untempered student. At most ``batch_rows`` rows run together. ``engine`` is the
    student's, where it writes with a cache of fixed size. ``begun`` is the end of each prompt that belongs to what the
    environment is asked; None = nothing.
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
            environment=environment,
            begun=[[]] * len(prompts) if begun is None else begun[start : start + batch_rows],
        )
        for start in range(0, len(prompts), batch_rows)
    ]
    return parts[0] if len(parts) == 1 else join(parts, student.pad_id)


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
    environment: Environment | None,
    begun: Sequence[list[int]],
) -> Rollouts:
    device = student.head.weight.device
    ids, prompt_mask = (tensor.to(device) for tensor in left_padded(prompts, student.pad_id))
    rows = len(prompts)
    room = max_new_tokens if environment is None else environment.room(max_new_tokens)
    answers = None if environment is None else Answers(environment, rows, max_new_tokens, device, begun)
    noise = None if noise is None else noise.to(device)
    stops = torch.tensor(student.eos_ids, device=device)

    # What the rows that still write have written, in the order of ``alive``; ``out`` takes them when they leave.
    alive = torch.arange(rows, device=device)
    tokens = torch.full((rows, room), student.pad_id, dtype=torch.long, device=device)
    mask = torch.zeros((rows, room), dtype=torch.bool, device=device)
    behaviour_logp = torch.zeros((rows, room), device=device)
    present, ended = mask.clone(), mask[:, 0].clone()
    out = [torch.empty_like(each) for each in (tokens, mask, behaviour_logp, present, ended)]
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    decoder: Decoder = (
        GrowingDecoder(student, ids, prompt_mask) if engine is None else engine.begin(ids, prompt_mask, room)
    )
    other = None if companion is None else GrowingDecoder(companion.lm, ids, prompt_mask)
    decoders = [decoder] if other is None else [decoder, other]

    def log_probs(of: Decoder) -> Tensor:
        if noise is None:
            return of.logits().float().log_softmax(-1)
        return behaviour_log_probs(of.logits(), temperature=temperature, top_p=top_p)

    for t in range(room):
        logp = log_probs(decoder)
        if companion is not None and other is not None:
            logp = mixed(logp, log_probs(other), companion.share)
        chosen = logp.argmax(-1) if noise is None else sample(logp, noise[:, t])
        acts = ~done
        if answers is not None:
            said, speaks = answers.at(t)
            chosen, acts = torch.where(speaks, said, chosen), acts & ~speaks
        mask[:, t] = acts
        present[:, t] = ~done
        tokens[:, t] = torch.where(done, student.pad_id, chosen)
        behaviour_logp[:, t] = torch.where(acts, logp.gather(1, chosen[:, None])[:, 0], 0.0)
        stopped = acts & torch.isin(chosen, stops)
        if answers is not None:
            answered, spent = answers.hear(tokens, t, acts)
            stopped = stopped & ~answered
            done = done | spent
        ended = ended | stopped
        done = done | stopped
        finished = int(done.sum())  # the one time in a step that a GPU is waited for
        if finished == len(alive) or t + 1 == room:
            break
        for each in decoders:
            each.append(chosen)
        # Copying the cache costs about one decoding step, so finished rows leave in batches.
        if finished * 4 >= len(alive):
            _put(out, alive, (tokens, mask, behaviour_logp, present, ended))
            stay = (~done).nonzero()[:, 0]
            for each in [*decoders, *([] if answers is None else [answers])]:
                each.keep(stay)
            alive, done, tokens, mask, behaviour_logp, present, ended = (
                each[stay] for each in (alive, done, tokens, mask, behaviour_logp, present, ended)
            )
            noise = None if noise is None else noise[stay]
    _put(out, alive, (tokens, mask, behaviour_logp, present, ended))

    tokens, mask, behaviour_logp, present, ended = out
    longest = int(present.any(0).sum())
    return Rollouts(
        ids,
        prompt_mask,
        tokens[:, :longest],
        mask[:, :longest],
        behaviour_logp[:, :longest],
        truncated=~ended,
        present=present[:, :longest],
    )


def _put(out: Sequence[Tensor], rows: Tensor, written: Sequence[Tensor]) -> None:
    for whole, part in zip(out, written, strict=True):
        whole[rows] = part
