"""What validate_only says of tokens, operations and memory, before anything runs."""

import json
import struct
from contextlib import nullcontext

import pytest
import torch

from api.estimate import estimate
from api.estimate.checkpoints import Unknown, read_checkpoint
from opd_core.models import load_student
from opd_core.models.recompute import recomputed
from opd_core.recipes import resolve
from opd_core.runs.settings import Settings
from opd_core.spec import JobSpec, ModelSpec, UserError
from opd_core.training.learner import student_learner
from tests.api.conftest import SPEC

GIB = 2**30


def parts_of(spec):
    told = estimate(resolve(spec), Settings())
    assert told.memory is not None, told.notes
    assert told.memory_gib == sum(part.gib for part in told.memory)
    return {part.what: part.gib * GIB for part in told.memory}


def held(model):
    """Bytes of the parameters, what is shared counted once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def optimizer_and_gradients(learner):
    """Bytes after one step: what AdamW keeps for each weight, and the gradients themselves."""
    gradients, moments = 0, 0
    for group in learner.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
            gradients += parameter.grad.numel() * 4
    learner.optimizer.step()
    for state in learner.optimizer.state.values():
        moments += sum(value.numel() * 4 for name, value in state.items() if name != "step")
    return gradients + moments


@pytest.mark.parametrize(
    "student", [{}, {"lora": {"rank": 3}}, {"lora": {"rank": 2, "targets": ["q_proj", "down_proj"]}}]
)
def test_weights_gradients_and_optimizer_are_those_of_the_loaded_student(tiny_spec, tiny_world, student):
    spec = tiny_spec(student={"model": str(tiny_world.student), **student})
    told = parts_of(spec)
    lm = load_student(spec, trainable=True)
    assert told["student: weights"] == held(lm.model)
    learner = student_learner(lm, spec.optimizer)
    assert told["student: gradients and AdamW"] == optimizer_and_gradients(learner)


def test_a_teacher_is_counted_in_the_precision_that_it_is_held_in(tiny_spec, tiny_world):
    teacher = load_student(tiny_spec(student={"model": str(tiny_world.teacher)}), trainable=False)
    in_full, in_half = (
        parts_of(tiny_spec(resources={"precision": precision})) for precision in ("float32", "bfloat16")
    )
    assert in_full["teacher: weights"] == held(teacher.model)
    assert in_half["teacher: weights"] == held(teacher.model) / 2
    assert "student: a copy to write with" in in_half
    assert "student: a copy to write with" not in in_full


def test_the_students_own_copies_are_counted(tiny_spec, tiny_world):
    whole = parts_of(tiny_spec())["student: weights"]
    ema = parts_of(tiny_spec(teacher={"self": {"weights": "ema"}}))
    assert ema["teacher: the student's moving average"] == whole
    current = parts_of(tiny_spec(teacher={"self": {"weights": "current"}, "context": "{prompt} {answer}"}))
    assert not any(what.startswith("teacher") for what in current)
    referenced = parts_of(tiny_spec(recipe="exopd"))
    assert ("reference: the student at its start" in referenced) == (
        "reference" in resolve(tiny_spec(recipe="exopd")).method_spec().needs
    )


def test_shards_share_weights_gradients_and_optimizer(tiny_spec):
    alone = parts_of(tiny_spec())
    spread = parts_of(tiny_spec(resources={"processes": 4, "sharding": "fsdp2"}))
    for what in ("student: weights", "student: gradients and AdamW"):
        assert spread[what] == alone[what] / 4
    assert spread["student: a copy to write with"] == alone["student: weights"]
    assert spread["rollout: key-value cache"] == alone["rollout: key-value cache"] / 4


def test_the_cache_is_as_large_as_the_one_that_is_built(tiny_spec, tiny_world):
    spec = tiny_spec(rollout={"prompts_per_step": 6, "samples_per_prompt": 2, "max_new_tokens": 10})
    lm = load_student(spec, trainable=False)
    cache = lm.model(torch.ones(12, 10, dtype=torch.long), use_cache=True).past_key_values
    built = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert parts_of(spec)["rollout: key-value cache"] == built


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_are_about_what_a_forward_pass_keeps(tiny_spec, precision):
    sections = {"rollout": {"prompts_per_step": 64, "max_new_tokens": 32}, "resources": {"precision": precision}}
    lm = load_student(tiny_spec(**sections), trainable=True)
    whole, inputs = (kept_by_a_pass(lm, (64, 32), again, precision) for again in (False, True))
    told, told_again = (
        parts_of(tiny_spec(batching={"gradient_checkpointing": again}, **sections))[
            "update: activations of a micro-batch"
        ]
        for again in (False, True)
    )
    assert told == pytest.approx(whole, rel=0.3)
    # Recomputed, a pass keeps the layers' inputs (and a little more), and one of the two layers is there at a time.
    assert inputs / 3 < told_again - told / 2 < inputs


def kept_by_a_pass(lm, shape, again, precision):
    """Bytes of what the forward pass holds for the backward pass, weights and their copies left out."""
    kept: dict[int, torch.Tensor] = {}
    sizes = {tuple(parameter.shape) for parameter in lm.model.parameters()}
    sizes |= {size[::-1] for size in sizes}

    def keep(tensor):
        if tuple(tensor.shape) not in sizes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(2, lm.vocab_size, shape)
    passes = recomputed(lm.model) if again else nullcontext()
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with half, passes, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = lm.model.model(ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_tokens_are_full_rows_until_the_budget(tiny_spec):
    rollout = {"prompts_per_step": 5, "samples_per_prompt": 2, "max_new_tokens": 7}
    told = estimate(resolve(tiny_spec(rollout=rollout, schedule={"steps": 4})), Settings())
    assert (told.rollouts_per_step, told.rollouts) == (10, 40)
    assert (told.student_tokens, told.scored_tokens) == (280, 280)
    until = {"steps": 4, "until": {"student_tokens": 100}}
    told = estimate(resolve(tiny_spec(rollout=rollout, schedule=until)), Settings())
    assert told.student_tokens == 170  # the step that passes the budget is a whole one
    assert told.flops > 0
    capped = {"steps": 4, "until": {"flops": 5.0}}
    assert estimate(resolve(tiny_spec(rollout=rollout, schedule=capped)), Settings()).flops == 5.0


def test_what_is_not_known_is_said_and_the_rest_is_told(http):
    body = http.post("/v1/jobs?validate_only=true", json=SPEC).json()["estimate"]
    assert body["object"] == "estimate"
    assert body["memory"] is None
    assert body["memory_gib"] is None
    assert body["flops"] is None
    assert body["student_tokens"] > 0
    assert [model["param"] for model in body["models"]] == ["student.model", "teacher.model"]
    assert all("built where the job runs" in model["reason"] for model in body["models"])


def test_a_downloaded_hub_model_is_found_by_its_revision(tmp_path, monkeypatch, tiny_world):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = ModelSpec(model="some/model")
    with pytest.raises(Unknown, match="not been downloaded"):
        read_checkpoint(model, Settings(), param="student.model")
    folder, commit = tmp_path / "models--some--model", "ab" * 20
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):  # as huggingface_hub does it: a link to a blob
        blob = folder / "blobs" / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes((tiny_world.student / name).read_bytes())
        (folder / "snapshots" / commit / name).symlink_to(blob)
    assert read_checkpoint(model, Settings(), param="student.model").parameters > 1000
    with pytest.raises(Unknown, match="not been downloaded"):
        read_checkpoint(ModelSpec(model="some/model", revision=".."), Settings(), param="student.model")


@pytest.mark.parametrize("damage", ["huge header", "cut off", "no JSON", "no file"])
def test_a_damaged_checkpoint_is_unknown_and_no_failure(tmp_path, monkeypatch, tiny_world, damage):
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_world.student / "config.json").read_text())
    whole = (tiny_world.student / "model.safetensors").read_bytes()
    files = {
        "huge header": struct.pack("<Q", 1 << 40) + whole[8:],
        "cut off": whole[:40],
        "no JSON": whole[:8] + b"x" * 999,
    }
    if damage in files:
        (folder / "model.safetensors").write_bytes(files[damage])
    with pytest.raises(Unknown):
        read_checkpoint(ModelSpec(model=str(folder)), Settings(), param="student.model")


def test_an_index_names_what_is_counted(tmp_path, monkeypatch, tiny_world):
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path))
    (tmp_path / "config.json").write_text((tiny_world.student / "config.json").read_text())
    whole = (tiny_world.student / "model.safetensors").read_bytes()
    (tmp_path / "part.safetensors").write_bytes(whole)
    (tmp_path / "consolidated.safetensors").write_bytes(whole)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "part.safetensors"}}))
    model = ModelSpec(model=str(tmp_path))
    alone = json.loads(whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]])
    assert len(read_checkpoint(model, Settings(), param="student.model").shapes) == len(alone) - (
        "__metadata__" in alone
    )


def test_a_link_out_of_the_roots_is_refused(http, tmp_path, monkeypatch, tiny_world):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "model", outside):
        folder.mkdir(parents=True)
    (root / "model/config.json").write_text("{}")
    (outside / "model.safetensors").write_bytes(b"secret")
    (root / "model/model.safetensors").symlink_to(outside / "model.safetensors")
    settings = Settings(model_roots=[root])
    spec = resolve(JobSpec.model_validate({**SPEC, "student": {"model": str(root / "model")}}))
    with pytest.raises(UserError, match=r"student\.model"):
        estimate(spec, settings)
