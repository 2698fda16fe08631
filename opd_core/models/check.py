"""Does the split model compute what the model computes? Asked once per run, on one small left-padded batch."""

from __future__ import annotations

import inspect
import re

import torch
from torch import Tensor

from opd_core.models.language_model import LanguageModel
from opd_core.models.positions import position_ids
from opd_core.spec import UserError

TOLERANCE = 1e-4
DECODING_TOLERANCE = 1e-3
_INT8_NOISE = 0.05  # of the largest logit
_LOGIT_FIELD = re.compile("logit|soft_?cap|lm_head|output_mult|mup")


@torch.no_grad()
def check_trunk_and_head(lm: LanguageModel) -> float:
    """Largest absolute difference between trunk + head and the model's own logits; UserError if above 1e-4.

    Coarser weights than float32 round coarser: there the bound is four of their steps at the largest logit.

    Also refuses a model that looks ahead (an encoder that was given a language-model head): its scores of a token
    would have seen that token.
    """
    ids, mask = left_padded_batch(lm)
    positions = position_ids(mask)
    ours = _logits(lm, ids, mask)
    accepted = inspect.signature(lm.model.forward).parameters
    extra = {"position_ids": positions} if "position_ids" in accepted else {}
    own = lm.model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
    own = own[..., : lm.vocab_size].float()
    real = mask.bool()
    difference = _largest(ours[real], own[real])
    tolerance = _tolerance(lm, own[real])
    if not difference <= tolerance:
        raise UserError(
            f"model '{lm.name}' ({lm.model.config.model_type}) transforms its logits in a way that is not supported: "
            f"trunk and head differ from its own logits by {difference:.2g}{_suspects(lm)}",
            code="unsupported_model",
        )

    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % lm.vocab_size
    before_last = real[:, :-1]
    leak = _largest(_logits(lm, changed, mask)[:, :-1][before_last], ours[:, :-1][before_last])
    if not leak <= tolerance:
        raise UserError(
            f"model '{lm.name}' ({lm.model.config.model_type}) is not causal: a later token changes the logits of "
            f"earlier ones by {leak:.2g}",
            code="not_a_causal_lm",
        )
    return difference


@torch.no_grad()
def check_decoding(lm: LanguageModel) -> float:
    """Largest difference between decoding a left-padded batch with the cache and scoring each row alone, unpadded.

    Rollouts do the first, losses the second: a family for which they differ would be trained on states whose
    recorded probabilities are wrong. UserError if above 1e-3 (float32 accumulates differently in the two), or what
    coarser weights come to.
    """
    ids, mask = left_padded_batch(lm)
    try:
        decoded = _decode_last(lm, ids, mask, count=3)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"model '{lm.name}' ({lm.model.config.model_type}) cannot write token by token with a key-value cache "
            f"({str(error)[:200]})",
            code="unsupported_model",
        ) from error
    worst, bound = 0.0, max(DECODING_TOLERANCE, _tolerance(lm, decoded))
    for row in range(ids.shape[0]):
        alone = ids[row : row + 1, mask[row].bool()]
        scored = _logits(lm, alone, torch.ones_like(alone))
        worst = max(worst, _largest(decoded[row], scored[0, -decoded.shape[1] :]))
    if not worst <= bound:
        raise UserError(
            f"model '{lm.name}' ({lm.model.config.model_type}) writes and scores differently: logits of a left-padded, "
            f"cached batch differ from those of a single row by {worst:.2g}",
            code="unsupported_model",
        )
    return worst


def _decode_last(lm: LanguageModel, ids: Tensor, mask: Tensor, count: int) -> Tensor:
    """Logits [B, count + 1, V] after the last positions: prefill, then ``count`` tokens one by one."""
    positions = position_ids(mask)
    prefix = ids.shape[1] - count
    out = lm.trunk(ids[:, :prefix], mask[:, :prefix], positions[:, :prefix], use_cache=True)
    if getattr(out, "past_key_values", None) is None:
        raise ValueError("its base model returns none")
    logits = [lm.head(out.last_hidden_state[:, -1:])]
    for t in range(prefix, ids.shape[1]):
        new = slice(t, t + 1)
        out = lm.trunk(
            ids[:, new], mask[:, : t + 1], positions[:, new], past_key_values=out.past_key_values, use_cache=True
        )
        logits.append(lm.head(out.last_hidden_state))
    return torch.cat(logits, dim=1)


def _logits(lm: LanguageModel, ids: Tensor, mask: Tensor) -> Tensor:
    return lm.head(lm.trunk(ids, mask, position_ids(mask)).last_hidden_state)


def _tolerance(lm: LanguageModel, logits: Tensor) -> float:
    if any(parameter.dtype == torch.int8 for parameter in lm.model.parameters()):
        return _INT8_NOISE * float(logits.abs().max())  # which depends on all rows of a pass (quantized.py)
    dtype = lm.head.weight.dtype
    return TOLERANCE if dtype == torch.float32 else 4 * torch.finfo(dtype).eps * float(logits.abs().max())


def left_padded_batch(lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """Ids and mask [3, 12] with 0, 3 and 7 positions of padding; the same tokens every time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(lm.vocab_size, (3, 12), generator=generator)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 7)):
        ids[row, :padding] = lm.pad_id
        mask[row, :padding] = 0
    device = lm.head.weight.device
    return ids.to(device), mask.to(device)


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _suspects(lm: LanguageModel) -> str:
    """Configuration fields that look like the cause, for the message."""
    config = lm.model.config.get_text_config()
    fields = [
        f"{name} = {value}"
        for name, value in vars(config).items()
        if _LOGIT_FIELD.search(name)
        and not name.startswith("attn")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]
    return f" (see {', '.join(sorted(fields))} in its config.json)" if fields else ""
