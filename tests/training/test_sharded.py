"""A student spread over two processes: runs as one process would, checkpoints that serve either, and back again.

That a step takes the same gradients is asked in test_processes.py (recorded rollouts) and test_shared_steps.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from opd_core.recipes import load, resolve
from opd_core.rollout import micro_batches
from opd_core.spec import UserError
from opd_core.training.sharing import even
from tests.training.test_processes import of, run, student

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="two processes on the CPU, as test_processes.py"
)

PARTS = {"processes": 2, "sharding": "fsdp2"}


def sections(tiny_world, **more):
    """What moves beside the student, is looked at after an update, or is cut into pieces."""
    return {
        "recipe": "gae-opd",
        "teacher": {"mixture": [{"model": str(tiny_world.teacher)}, {"self": {"weights": "ema"}, "weight": 0.1}]},
        "batching": {"micro_tokens": 60, "gradient_checkpointing": True},
        "optimizer": {"lr": 2e-2, "warmup_steps": 0},
        "schedule": {"steps": 3, "evaluate_every": 1, "checkpoint_every": 0},
        "checkpoints": {"keep_last": 1},
        **more,
    }


def spread(tiny_spec, **more):
    spec = of(2, tiny_spec, **more)
    return spec.model_copy(update={"resources": spec.resources.model_copy(update=PARTS)})


def stored(out):
    (newest,) = (out / "checkpoints").iterdir()
    return {name: load_file(newest / f"{name}.safetensors") for name in ("optimizer", "teacher", "critic_optimizer")}


def test_it_trains_as_one_process_does_and_checkpoints_go_both_ways(tiny_world, tiny_spec, tmp_path):
    more = sections(tiny_world)
    one, parts = of(1, tiny_spec, **more), spread(tiny_spec, **more)
    alone, _ = run(one, tmp_path / "one", stop_at=1)
    metrics, said = run(parts, tmp_path / "parts", stop_at=1)
    for name in ("loss", "kl", "grad_norm", "critic_grad_norm", "length_mean", "student_tokens", "teacher_tokens"):
        assert metrics[1][name] == pytest.approx(alone[1][name], rel=1e-4), name
    assert sum(m["type"] == "records" for m in said) == 1
    start = torch.cat([w.flatten() for w in load_file(tiny_world.student / "model.safetensors").values()])
    updates = [student(tmp_path / name) - start for name in ("one", "parts")]
    assert float(torch.cosine_similarity(*updates, dim=0)) > 0.999
    ones, both = (stored(tmp_path / name) for name in ("one", "parts"))
    for file in ones:
        assert ones[file].keys() == both[file].keys()
        for name, value in ones[file].items():
            assert value.shape == both[file][name].shape, name
            if not name.startswith("rng"):
                torch.testing.assert_close(both[file][name], value, rtol=1e-3, atol=1e-5)

    metrics, said = run(parts, tmp_path / "one", stop_at=2)
    assert any("sharding none -> fsdp2" in m["message"] for m in said if m["type"] == "warning")
    back, said = run(one, tmp_path / "parts")
    assert any("sharding fsdp2 -> none" in m["message"] for m in said if m["type"] == "warning")
    assert (max(metrics), max(back)) == (2, 3)
    for name in ("kl", "grad_norm", "length_mean"):  # both went on from the same weights, moments and rows
        assert metrics[2][name] == pytest.approx(back[2][name], rel=1e-2), name


@pytest.mark.long
@pytest.mark.parametrize("adapter", [False, True])
def test_resumed_it_ends_bit_for_bit_as_without_a_pause(adapter, tiny_world, tiny_spec, tmp_path):
    more = sections(tiny_world)
    if adapter:
        more["student"] = {"model": str(tiny_world.student), "lora": {"rank": 2}}
    spec = spread(tiny_spec, **more)
    for name, stops in (("paused", [1, None]), ("straight", [None])):
        for stop_at in stops:
            run(spec, tmp_path / name, stop_at)
    paused, straight = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("paused", "straight"))
    assert all(torch.equal(paused[name], weight) for name, weight in straight.items())


@dataclass(frozen=True)
class Beside:
    """Ranks of which another process said what it has."""

    others: list[list[int]]

    def most(self, *numbers):
        return [float(max(pair)) for pair in zip(numbers, self.others.pop(0), strict=True)]


def test_every_process_makes_as_many_passes(world):
    groups = micro_batches(world.batch.rollouts, 10_000)
    (same,) = even(groups, Beside([[1], [1]]))
    assert (same.pieces, same.idle, same.silent) == (groups[0], 0, False)
    first, second, third = even([*groups, groups[0]], Beside([[3], [4, 1, 2]]))
    assert (first.idle, second.idle, third.idle) == (3, 0, 1)
    assert (first.silent, second.silent, third.silent) == (False, False, True)
    assert int(third.pieces[0].mask.sum()) == 0
    assert [group.passes for group in (first, second, third)] == [4, 1, 2]


def test_idle_passes_count_for_nothing(world):
    found = []
    for idle in (0, 2):
        update, module = world.update(load("forward-kl").method)
        update._groups = [type(group)(group.pieces, idle) for group in update._groups]
        losses = update.take_gradients()
        found.append((losses, [p.grad.clone() for p in module.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_single_process_has_nobody_to_share_with(tiny_spec):
    with pytest.raises(UserError, match="processes is 1") as refused:
        resolve(tiny_spec(resources={"sharding": "fsdp2"}))
    assert refused.value.param == "resources.sharding"
