"""Writing a model as an ordinary Hugging Face directory, and reading its weights back."""

from __future__ import annotations

from pathlib import Path

import torch

from opd_core.models.language_model import LanguageModel


def save_model(lm: LanguageModel, directory: Path) -> None:
    """Write safetensors, configuration, generation configuration and tokenizer into ``directory``.

    The result loads with ``AutoModelForCausalLM.from_pretrained``. Tied weights are stored once. The configuration
    says dropout 0: that is how the model was trained.
    """
    lm.model.save_pretrained(directory)
    lm.tokenizer.save_pretrained(directory)


def restore_weights(lm: LanguageModel, directory: Path) -> None:
    """Copy the weights that ``save_model`` wrote into ``lm`` in place, bit for bit.

    It goes through from_pretrained because some families are stored under other names than they have in memory
    (experts of a mixture are fused when loaded). Parameters keep their identity, so an optimizer may hold them.
    """
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
        own = lm.model.state_dict()
        for name, value in saved.state_dict().items():
            own[name].copy_(value)
