"""Writing a model as an ordinary Hugging Face directory, and reading its weights back."""

from __future__ import annotations

from pathlib import Path

import torch

from opd_core.models.language_model import LanguageModel
from opd_core.models.lora import CONFIG, merged_state, restore_adapter, save_adapter
from opd_core.models.quantized import is_quantized
from opd_core.models.shards import assign
from opd_core.spec import UserError


def save_model(lm: LanguageModel, directory: Path) -> None:
    """Write safetensors, configuration, generation configuration and tokenizer into ``directory``.

    The result loads with ``AutoModelForCausalLM.from_pretrained``; an adapter is merged into it. Tied weights are
    stored once. The configuration says dropout 0: that is how the model was trained.
    """
    lm.model.save_pretrained(directory, state_dict=None if lm.adapter is None else merged_state(lm))
    lm.tokenizer.save_pretrained(directory)


def save_student(lm: LanguageModel, directory: Path) -> None:
    """What a checkpoint keeps: the model, or of one with an adapter only that."""
    if lm.adapter is None:
        save_model(lm, directory)
    else:
        save_adapter(lm, directory)


def restore_weights(lm: LanguageModel, directory: Path) -> None:
    """Copy the weights that ``save_model`` or ``save_student`` wrote into ``lm`` in place, bit for bit.

    A whole model goes under an adapter; an adapter needs one of its shape. UserError if there is none.

    It goes through from_pretrained because some families are stored under other names than they have in memory
    (experts of a mixture are fused when loaded). Parameters keep their identity, so an optimizer may hold them.
    """
    if (directory / CONFIG).is_file():
        restore_adapter(lm, directory)
        return
    if is_quantized(lm.model):
        raise UserError(
            "from: that checkpoint has all weights of a model, and this job's (student.quantization) stay as they were "
            "rounded: start from an adapter, or from none",
            param="from",
        )
    saved, report = type(lm.model).from_pretrained(
        directory,
        config=lm.model.config,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise ValueError(f"{directory} lacks {sorted(report['missing_keys'])}")
    with torch.no_grad():
        own = {name.replace(".base_layer", ""): value for name, value in lm.model.state_dict().items()}
        for name, value in saved.state_dict().items():
            assign(own[name], value)
