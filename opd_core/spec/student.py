"""Who learns: a model with all of its weights, or with a low-rank adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from opd_core.spec.base import Spec
from opd_core.spec.model import ModelSpec


class Lora(Spec):
    """Low-rank adapters (arXiv 2106.09685) on frozen weights: W + alpha / rank x B A. Dropout is always 0."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32.0, gt=0.0, le=4096.0, description="The update is scaled by alpha / rank.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear",
        description="Ends of module names, such as [q_proj, v_proj]; all-linear = every linear layer but the head.",
    )
    merge: bool = Field(
        True, description="The exported student is an ordinary model with the adapter merged in; false = the adapter."
    )

    @field_validator("targets")
    @classmethod
    def _names(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and not (value and all(name.replace("_", "a").isalnum() for name in value)):
            raise ValueError("name at least one module, by letters, digits and underscores")
        return value


class StudentSpec(ModelSpec):
    """The model that learns."""

    lora: Lora | None = Field(None, description="Train an adapter; null = all weights.")
    quantization: Literal["none", "nf4"] = Field(
        "none",
        description="nf4 = hold the weights below an adapter in 4 bits (QLoRA, arXiv 2305.14314); adapter, embedding "
        "and head stay float32. For lora with merge: false; needs bitsandbytes where the job runs (pip install "
        "'opd[quantization]').",
    )
    compile: bool = Field(
        False,
        description="The passes of training run through torch.compile: a minute or more at the start, less time and "
        "memory in each of them. It needs a C++ compiler where the job runs. Writing is not compiled.",
    )
