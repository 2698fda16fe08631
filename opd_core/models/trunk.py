"""The trunk: everything below the output projection, behind one calling convention for all families."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput


def base_model(model: PreTrainedModel) -> nn.Module | None:
    """The part of a causal language model below its head; None if there is no such part."""
    if model.base_model is not model:
        return model.base_model
    # Llama 4 declares one name for it and uses another.
    return getattr(model, "model", None)


class Trunk(nn.Module):
    """The base model of a causal language model, ids -> ``last_hidden_state``.

    Families differ in what their base model accepts (Bloom takes no position ids: its ALiBi biases come from the
    attention mask), so arguments that it has no name for are left out here, and nowhere else.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.accepts = frozenset(inspect.signature(base.forward).parameters)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> ModelOutput:
        """Run the base model; ``.last_hidden_state`` is [B, T, H], ``.past_key_values`` the cache if asked for.

        ``input_ids`` [B, T] are the new tokens only; ``attention_mask`` [B, past + T] covers the cache as well;
        ``position_ids`` [B, T] are those of the new tokens (``opd_core.models.position_ids``).
        """
        # The cache is called ``cache`` since transformers 5.24, ``past_key_values`` before.
        optional: dict[str, Any] = {
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "cache": past_key_values,
        }
        known = {name: value for name, value in optional.items() if name in self.accepts and value is not None}
        return self.base(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, return_dict=True, **known
        )
