"""What load_model promises about a good checkpoint, and the sentence it says about a bad one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd_core.models import cast_parameters, load_model
from opd_core.spec import ModelSpec, UserError


def refusal(directory: Path | str, role: str = "student", **fields: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load_model(ModelSpec(model=str(directory), **fields), trainable=False, role=role)
    assert caught.value.param in (f"{role}.model", f"{role}.revision")
    assert "\n" not in caught.value.message
    return caught.value


def edit_config(directory: Path, **fields: object) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text())
    config.update(fields)
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_weights_are_float32_and_only_a_student_is_trainable(make, load) -> None:
    directory = make("llama")
    weights = {name: value.bfloat16() for name, value in load_file(directory / "model.safetensors").items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    edit_config(directory, dtype="bfloat16")
    student, teacher = load(directory, trainable=True), load(directory)
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in student.model.parameters())
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_positions_stay_exact_under_bfloat16_weights(make, load) -> None:
    """Rotary frequencies rounded to bfloat16 put token 1,000 somewhere else."""
    directory = make("llama")
    fine, cast = load(directory), load(directory)
    loaded = load(directory, dtype=torch.bfloat16)
    cast_parameters(cast.model, torch.bfloat16)
    frequencies = {name: value for name, value in fine.model.named_buffers() if "inv_freq" in name}
    assert frequencies
    for coarse in (loaded, cast):
        assert {parameter.dtype for parameter in coarse.model.parameters()} == {torch.bfloat16}
        buffers = dict(coarse.model.named_buffers())
        assert all(torch.equal(buffers[name], value) for name, value in frequencies.items())


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}),
        ("opt", {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5, "ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("llama", {"attention_dropout": 0.5}),
    ],
)
def test_dropout_is_off_even_in_training_mode(family, settings, make, load) -> None:
    lm = load(make(family, **settings))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        quiet = lm.model(input_ids=ids).logits
        lm.model.train()
        assert torch.equal(lm.model(input_ids=ids).logits, quiet)


def test_router_threshold_is_left_alone(make, load) -> None:
    lm = load(make("phimoe", num_key_value_heads=2, num_local_experts=4, router_jitter_noise=0.01))
    assert lm.model.config.router_jitter_noise == 0.01


@pytest.mark.parametrize("listed", [[2, 7], 7])
def test_eos_ids_are_the_union_of_both_sources(listed, make, load) -> None:
    directory = make("llama")
    generation = directory / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": listed}))
    assert load(directory).eos_ids == (2, 7)


def test_an_eos_beyond_the_vocabulary_is_ignored(make, load) -> None:
    directory = make("llama")
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 100_000]}))
    assert load(directory).eos_ids == (2,)


def test_no_eos_anywhere_is_refused(make) -> None:
    directory = make("llama", eos_token_id=None)
    edit_config(directory, eos_token_id=None)
    (directory / "generation_config.json").write_text("{}")
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("eos_token")
    file.write_text(json.dumps(settings))
    assert "end-of-sequence" in refusal(directory).message


def test_pad_falls_back_to_eos(make, load) -> None:
    directory = make("llama")
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("pad_token")
    file.write_text(json.dumps(settings))
    assert load(directory).pad_id == 2


def test_padded_embedding_rows_are_cut_and_change_nothing(make, load) -> None:
    lm = load(make("llama", rows=384))
    assert (lm.vocab_size, lm.head.weight.shape[0]) == (300, 384)
    ids, mask = torch.arange(5, 25)[None], torch.ones(1, 20, dtype=torch.long)
    with torch.no_grad():
        before = lm.head(lm.trunk(ids, mask).last_hidden_state)
        lm.head.weight[300:] = 1e6
        lm.model.get_input_embeddings().weight[300:] = 1e6
        after = lm.head(lm.trunk(ids, mask).last_hidden_state)
    assert before.shape == (1, 20, 300)
    assert torch.equal(before, after)


def test_tokens_without_an_embedding_row_are_cut(make, load) -> None:
    lm = load(make("llama", rows=290))
    assert lm.vocab_size == 290


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied(tied, make, load) -> None:
    lm = load(make("llama", tie_word_embeddings=tied))
    assert (lm.head.weight is lm.model.get_input_embeddings().weight) is tied


def test_unknown_directory(tmp_path, make) -> None:
    make("llama")
    assert "there is no directory" in refusal(tmp_path / "nowhere").message


def test_directory_outside_the_roots(make, monkeypatch, tmp_path) -> None:
    directory = make("llama")
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path / "other"))
    assert "OPD_MODEL_ROOTS" in refusal(directory).message
    monkeypatch.delenv("OPD_MODEL_ROOTS")
    assert "not set" in refusal(directory, role="teacher").message


def test_symlinks_do_not_leave_the_roots(make, monkeypatch, tmp_path) -> None:
    directory = make("llama")
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(inside))
    (inside / "link").symlink_to(directory)
    assert "OPD_MODEL_ROOTS" in refusal(inside / "link").message

    shutil.copytree(directory, inside / "copy")
    (inside / "copy" / "config.json").unlink()
    (inside / "copy" / "config.json").symlink_to(directory / "config.json")
    assert "OPD_MODEL_ROOTS" in refusal(inside / "copy").message


def test_a_sibling_whose_name_starts_like_a_root_is_outside(make, monkeypatch, tmp_path) -> None:
    directory = make("llama", name="models-private")
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path / "models"))
    assert "OPD_MODEL_ROOTS" in refusal(directory).message


def test_no_config(make) -> None:
    directory = make("llama")
    (directory / "config.json").unlink()
    assert "config.json" in refusal(directory).message


def test_broken_config(make) -> None:
    directory = make("llama")
    edit_config(directory, hidden_size="large")
    assert refusal(directory).code == "broken_model"
    (directory / "config.json").write_text("{")
    refusal(directory)


def test_no_safetensors(make) -> None:
    directory = make("llama")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    error = refusal(directory, role="teacher")
    assert error.code == "no_safetensors"
    assert "safetensors" in error.message


def test_pickled_weights_are_never_read(make) -> None:
    directory = make("llama")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").rename(directory / "something-else.safetensors")
    refusal(directory)


def test_truncated_safetensors(make) -> None:
    directory = make("llama")
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    error = refusal(directory)
    assert error.code == "broken_model"
    assert error.__cause__ is not None


def test_missing_tensors_are_not_made_up(make) -> None:
    directory = make("llama")
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(directory).message


def test_weights_of_another_shape(make) -> None:
    directory = make("llama")
    edit_config(directory, intermediate_size=48)
    assert refusal(directory).code == "broken_model"


def test_no_tokenizer(make) -> None:
    directory = make("llama")
    for file in directory.glob("tokenizer*"):
        file.unlink()
    assert refusal(directory).code == "no_tokenizer"


def test_not_a_causal_language_model(make) -> None:
    directory = make("llama")
    edit_config(directory, model_type="vit", architectures=["ViTModel"])
    assert "'vit'" in refusal(directory).message


def test_remote_code_is_refused_and_never_imported(make, tmp_path) -> None:
    directory = make("llama")
    edit_config(
        directory, model_type="my-own", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"}
    )
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert refusal(directory).code == "needs_remote_code"
    assert not (tmp_path / "ran").exists()


def test_auto_map_of_a_known_family_uses_the_known_code(make, load, tmp_path) -> None:
    directory = make("llama")
    edit_config(directory, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.M"})
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert type(load(directory).model).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_unknown_architecture(make) -> None:
    directory = make("llama")
    edit_config(directory, model_type="llama99")
    assert "'llama99'" in refusal(directory).message


def test_quantised_and_adapter_checkpoints_are_refused(make) -> None:
    directory = make("llama")
    (directory / "adapter_config.json").write_text("{}")
    assert "adapter" in refusal(directory).message
    (directory / "adapter_config.json").unlink()
    edit_config(directory, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantised" in refusal(directory).message


def test_unknown_hub_model_offline(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal("nobody/no-such-model-anywhere")
    assert error.code == "unknown_model"
    assert "nobody/no-such-model-anywhere" in error.message


def test_unknown_demo_model() -> None:
    assert "demo/student" in refusal("demo/professor").message


def test_revision_is_for_the_hub(make) -> None:
    assert refusal(make("llama"), revision="main").param == "student.revision"
