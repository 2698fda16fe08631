"""Loading student and teacher: any Hugging Face causal language model, split into trunk and head."""

from opd_core.models.check import check_decoding, check_trunk_and_head
from opd_core.models.compiled import compiled_trunk
from opd_core.models.critic import ValueHead
from opd_core.models.head import Head
from opd_core.models.language_model import LanguageModel, count_weights
from opd_core.models.load import load_model, load_student
from opd_core.models.lora import adapter_weights, add_lora, without_adapter, write_adapter
from opd_core.models.positions import position_ids
from opd_core.models.precision import cast_parameters, copy_with, frozen_copy
from opd_core.models.recompute import can_recompute, recomputed
from opd_core.models.reference import resolve_model
from opd_core.models.save import restore_weights, save_model, save_student
from opd_core.models.shards import assign, copy_weights, is_shard, part, whole
from opd_core.models.token_bytes import same_bytes, token_bytes
from opd_core.models.trunk import Trunk
from opd_core.models.vocabulary import check_vocabularies, token_texts, vocabulary_warnings

__all__ = [
    "Head",
    "LanguageModel",
    "Trunk",
    "ValueHead",
    "adapter_weights",
    "add_lora",
    "assign",
    "can_recompute",
    "cast_parameters",
    "check_decoding",
    "check_trunk_and_head",
    "check_vocabularies",
    "compiled_trunk",
    "copy_weights",
    "copy_with",
    "count_weights",
    "frozen_copy",
    "is_shard",
    "load_model",
    "load_student",
    "part",
    "position_ids",
    "recomputed",
    "resolve_model",
    "restore_weights",
    "same_bytes",
    "save_model",
    "save_student",
    "token_bytes",
    "token_texts",
    "vocabulary_warnings",
    "whole",
    "without_adapter",
    "write_adapter",
]
