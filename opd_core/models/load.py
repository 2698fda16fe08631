"""From a model reference to a ``LanguageModel``: safetensors only, no code from the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from opd_core.models.head import split_head
from opd_core.models.language_model import LanguageModel
from opd_core.models.lora import adapter_weights, add_lora
from opd_core.models.quantized import packed
from opd_core.models.quiet import silence_config, silence_modules
from opd_core.models.reference import ResolvedModel, resolve_model
from opd_core.models.trunk import Trunk, base_model
from opd_core.spec import JobSpec, ModelSpec, UserError
from opd_core.spec.model import Quantization

# What the Hugging Face loaders raise for a checkpoint that is missing, incomplete or broken.
_LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


def load_model(
    ref: ModelSpec,
    *,
    device: torch.device | str = "cpu",
    trainable: bool,
    role: str,
    dtype: torch.dtype = torch.float32,
    quantization: Quantization = "none",
) -> LanguageModel:
    """Load a student or a teacher; ``role`` is the path of its field in the spec.

    Weights are float32 unless ``dtype`` says otherwise (a large frozen model never takes the room of float32), dropout
    is 0, the model is in evaluation mode and stays there; ``trainable`` says whether its parameters take gradients.
    With ``quantization`` the linear layers below the head hold codes and are computed in ``dtype``.
    Whatever is wrong with the reference or the checkpoint is one UserError about ``{role}.model``.
    """
    found = resolve_model(ref, role=role)
    complain = _Complaint(ref.model, role)
    config = _load_config(found, complain)
    silence_config(config)
    tokenizer = _load_tokenizer(found, complain)
    packing: dict[str, Any] = {}
    if quantization != "none":
        packing = packed(quantization, device, dtype, param=f"{role}.quantization")
    model = _load_weights(found, config, dtype, complain, **packing)
    silence_modules(model)
    model.requires_grad_(trainable)
    if quantization == "none":  # else it is there, and its layers do not like to be moved
        model.to(device)

    base = base_model(model)
    if base is None or not isinstance(model.get_output_embeddings(), nn.Linear):
        raise complain(
            f"its output layer ({type(model).__name__}) is not one linear projection on top of a base model, "
            "so that trunk and head cannot be split",
            "unsupported_model",
        )
    vocab_size = _vocabulary_size(model, tokenizer)
    eos_ids = _eos_ids(model, tokenizer, vocab_size)
    if not eos_ids:
        raise complain("neither generation_config.json nor the tokenizer names an end-of-sequence token", "no_eos")
    pad_id = tokenizer.pad_token_id
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        trunk=Trunk(base),
        head=split_head(model, vocab_size=vocab_size),
        vocab_size=vocab_size,
        eos_ids=eos_ids,
        # Padding is masked everywhere, so any id will do.
        pad_id=pad_id if pad_id is not None and pad_id < vocab_size else eos_ids[0],
        name=ref.model,
        revision=getattr(config, "_commit_hash", None) or found.revision,
    )


def load_student(spec: JobSpec, *, device: torch.device | str = "cpu", trainable: bool) -> LanguageModel:
    """The student of a job, with its adapter where it trains one: then nothing else takes gradients."""
    lora, quantization = spec.student.lora, spec.student.quantization
    lm = load_model(
        spec.student,
        device=device,
        trainable=trainable and lora is None,
        role="student",
        quantization=quantization,
    )
    if lora is not None:
        add_lora(lm, lora, seed=spec.seed)
        for parameter in adapter_weights(lm).values():
            parameter.requires_grad_(trainable)
    return lm


class _Complaint:
    """Makes the one sentence about a model that cannot be used."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.param = f"{role}.model"

    def __call__(self, reason: str, code: str) -> UserError:
        return UserError(f"{self.param}: '{self.name}' cannot be used: {reason}", param=self.param, code=code)


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:300].rstrip(".")


def _load_config(found: ResolvedModel, complain: _Complaint) -> PreTrainedConfig:
    if found.directory is not None and (found.directory / "adapter_config.json").is_file():
        # from_pretrained would follow the adapter to its base model, wherever that is.
        raise complain("it is an adapter; merge it into its base model first", "unsupported_model")
    if found.directory is not None and not (found.directory / "config.json").is_file():
        raise complain("the directory has no config.json", "unknown_model")
    try:
        raw, _ = PreTrainedConfig.get_config_dict(found.source, revision=found.revision)
    except OSError as error:
        raise complain(_first_line(error), "unknown_model") from error
    _check_raw_config(raw, complain)
    try:
        config = AutoConfig.from_pretrained(found.source, revision=found.revision, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        raise complain(f"its config.json is broken ({_first_line(error)})", "broken_model") from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise complain(f"its model type '{config.model_type}' is not a causal language model", "not_a_causal_lm")
    return config


def _check_raw_config(raw: dict[str, Any], complain: _Complaint) -> None:
    """What has to be refused before any class of transformers looks at the configuration."""
    model_type = raw.get("model_type")
    if model_type is None:
        raise complain("its config.json has no model_type", "broken_model")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise complain(
                f"its model type '{model_type}' needs code from the checkpoint (auto_map in config.json), "
                "which is never run",
                "needs_remote_code",
            )
        raise complain(f"its model type '{model_type}' is unknown to transformers", "unknown_architecture")
    if raw.get("quantization_config"):
        raise complain(
            "its weights are quantised (quantization_config in config.json); use the unquantised checkpoint",
            "unsupported_model",
        )


def _load_tokenizer(found: ResolvedModel, complain: _Complaint) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.source, revision=found.revision, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        raise complain(f"its tokenizer cannot be loaded ({_first_line(error)})", "no_tokenizer") from error
    if not tokenizer.get_vocab():
        raise complain("it has no tokenizer", "no_tokenizer")
    return tokenizer


def _load_weights(
    found: ResolvedModel, config: PreTrainedConfig, dtype: torch.dtype, complain: _Complaint, **packing: Any
) -> PreTrainedModel:
    if found.directory is not None and not list(found.directory.glob("*.safetensors")):
        raise complain("it has no *.safetensors weights (pickled weights are never loaded)", "no_safetensors")
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            found.source,
            revision=found.revision,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **packing,
        )
    except _LOADING_ERRORS as error:
        raise complain(f"its weights cannot be loaded ({_first_line(error)})", "broken_model") from error
    if missing := sorted(report["missing_keys"]):
        # transformers would go on with random values.
        raise complain(
            f"its checkpoint lacks {len(missing)} of the model's tensors, '{missing[0]}' among them",
            "broken_model",
        )
    return model


def _vocabulary_size(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many token ids can really be used.

    The embedding may be wider than the tokenizer (padding to a round number), and the tokenizer wider than the
    embedding (a token such as <pad> that was added but never given a row).
    """
    tokens = max(tokenizer.get_vocab().values()) + 1
    rows = model.get_output_embeddings().weight.shape[0]
    return min(tokens, rows, model.get_input_embeddings().weight.shape[0])


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> tuple[int, ...]:
    """Every id that ends a completion: those of the generation configuration and the tokenizer's own."""
    generation = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = generation if isinstance(generation, list) else [generation]
    return tuple(sorted({int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None and 0 <= i < vocab_size}))
