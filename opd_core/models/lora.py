"""Low-rank adapters inside a student (PEFT): put in, looked past, saved as PEFT does, merged for export.

PEFT takes half a second to import, so only what has adapters does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from opd_core.models.language_model import LanguageModel
from opd_core.models.shards import assign
from opd_core.spec import UserError
from opd_core.spec.student import Lora

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of PEFT's names in a file


def add_lora(lm: LanguageModel, spec: Lora, *, seed: int) -> None:
    """Put adapters into ``lm`` in place, to train. They start as nothing (B = 0), A drawn from ``seed`` alone."""
    from peft import LoraConfig, inject_adapter_in_model

    targets: Any = spec.targets if spec.targets == "all-linear" else list(spec.targets)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]
        target_modules=targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.name,
        inference_mode=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, lm.model)
        except ValueError as error:
            raise UserError(
                f"student.lora.targets: {spec.targets!r} names no linear layer of {lm.name!r} ({error})",
                param="student.lora.targets",
            ) from error
    lm.adapter = config


def without_adapter(lm: LanguageModel) -> LanguageModel:
    """The same model as it was before the adapter, sharing every weight: no second copy is held."""
    return replace(lm, trunk=_Bare(lm.trunk), adapter=None)


class _Bare(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self._trunk = [trunk]  # in a list: it is not a part of this module but the student's

    def forward(self, *arguments: Any, **named: Any) -> Any:
        trunk = self._trunk[0]
        with _disabled(trunk):
            return trunk(*arguments, **named)


@contextmanager
def _disabled(trunk: nn.Module) -> Iterator[None]:
    layers = [layer for _, layer in _layers(trunk)]
    trainable = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for layer in layers:
            layer.requires_grad_(False)
        for parameter in trainable:  # enabling made them all trainable, also in a model that is only looked at
            parameter.requires_grad_(True)


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers with an adapter, by name."""
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def adapter_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """The adapters' own parameters by their name in the model."""
    return {name: value for name, value in lm.model.named_parameters() if ".lora_" in name}


def save_adapter(lm: LanguageModel, directory: Path) -> None:
    """Write what ``peft.PeftModel.from_pretrained(base, directory)`` reads, and the tokenizer."""
    write_adapter(lm, directory)
    lm.tokenizer.save_pretrained(directory)


def write_adapter(lm: LanguageModel, directory: Path) -> None:
    """The adapter alone, in PEFT's format."""
    from peft import get_peft_model_state_dict

    assert lm.adapter is not None
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(lm.model)  # type: ignore[no-untyped-call]
    save_file({_PREFIX + name: value.contiguous() for name, value in state.items()}, directory / _WEIGHTS)
    lm.adapter.save_pretrained(str(directory))


@torch.no_grad()
def restore_adapter(lm: LanguageModel, directory: Path) -> None:
    """Copy what ``save_adapter`` wrote into ``lm`` in place. UserError where the adapters are not of one shape."""
    stored = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    saved = load_file(directory / _WEIGHTS)
    own = {_PREFIX + name.replace(".default", ""): value for name, value in adapter_weights(lm).items()}
    if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in saved.items()}:
        raise UserError(
            f"student.lora: the saved student has an adapter of rank {stored['r']} on "
            f"{stored['target_modules']}, this job asks for another (or for none)",
            param="student.lora",
        )
    for name, value in own.items():
        assign(value, saved[name])


@torch.no_grad()
def merged_state(lm: LanguageModel) -> dict[str, Tensor]:
    """The state dict of an ordinary model: adapters added to the weights they sit on. ``lm`` is not changed."""
    assert lm.adapter is not None
    state = {
        name.replace(".base_layer", ""): value for name, value in lm.model.state_dict().items() if ".lora_" not in name
    }
    for name, layer in _layers(lm.model):
        weight = f"{name}.weight"
        state[weight] = state[weight] + layer.get_delta_weight("default")
    return state
