"""student.compile: the compiled passes give the gradients of the plain ones; where they cannot, the job says so."""

from __future__ import annotations

import pytest
import torch
from torch._inductor import config as inductor

from opd_core.models import Trunk, compiled_trunk
from opd_core.recipes import load, resolve
from opd_core.spec import UserError
from opd_core.training.fingerprint import differences
from opd_core.training.run import train
from opd_core.training.student_step import StudentStep


def student(tiny_world, **more):
    return {"model": str(tiny_world.student), "compile": True, **more}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_compiled_step_takes_the_gradients_of_a_plain_one(world):
    """Of one batch and of a part of it: other shapes."""
    trunk, method = compiled_trunk(world.student), load("forward-kl").method
    for rows in ([0, 1, 2, 3, 4, 5], [3, 1, 4]):
        batch, found = world.batch.reorder(torch.tensor(rows)), []
        for used in (world.student.trunk, trunk):
            update, _ = world.update(method, batch, module=StudentStep(used, world.student.head))
            loss = update.take_gradients().student
            found.append((loss, [parameter.grad.clone() for parameter in world.student.model.parameters()]))
        (loss, plain), (other, compiled) = found
        assert other == pytest.approx(loss, rel=1e-4)
        for one, two in zip(plain, compiled, strict=True):
            assert float((one - two).abs().max()) <= 1e-4 * float(one.abs().max())


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("adapter", [False, True])
def test_a_compiled_run_follows_a_plain_one(adapter, tiny_spec, tiny_world, tmp_path):
    more = {"lora": {"rank": 2}} if adapter else {}
    found = {}
    for compiled in (True, False):
        said: list[dict] = []
        spec = tiny_spec(student=student(tiny_world, **more) | {"compile": compiled}, optimizer={"lr": 1e-3})
        report = train(spec, tmp_path / str(compiled), emit=said.append)
        found[compiled] = [m["values"] for m in said if m["type"] == "metrics" and m["step"] > 0]
        assert any("student.compile" in sentence for sentence in report["warnings"]) is compiled
        assert report["versions"]["compiled"] is compiled
    for ours, theirs in zip(found[True], found[False], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def test_a_machine_without_a_compiler_says_so_at_the_start(tiny_spec, tiny_world, tmp_path):
    fresh = {"cpp.cxx": ("/no/such/compiler",), "force_disable_caches": True}
    with inductor.patch(fresh), pytest.raises(UserError, match=r"C\+\+ compiler") as refused:
        train(tiny_spec(student=student(tiny_world)), tmp_path / "out", emit=lambda _: None)
    assert (refused.value.param, refused.value.code) == ("student.compile", "cannot_compile")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_compiled_trunk_that_computes_something_else_is_refused(world, monkeypatch):
    def other(trunk, dynamic=None):
        if not isinstance(trunk, Trunk):
            return trunk

        def forward(*inputs):
            found = Trunk.forward(trunk, *inputs)
            found.last_hidden_state = found.last_hidden_state + 1e-2
            return found

        return forward

    monkeypatch.setattr(torch, "compile", other)
    with pytest.raises(UserError, match="computes something else when compiled"):
        compiled_trunk(world.student)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"resources": {"processes": 2, "sharding": "fsdp2"}}, "resources.sharding 'fsdp2'"),
        ({"batching": {"gradient_checkpointing": True}}, "gradient_checkpointing"),
    ],
)
def test_what_cannot_be_had_together_is_refused(sections, words, tiny_spec, tiny_world):
    with pytest.raises(UserError) as refused:
        resolve(tiny_spec(student=student(tiny_world), **sections))
    assert refused.value.param == "student.compile"
    assert words in refused.value.message


def test_a_checkpoint_of_before_was_not_compiled():
    assert differences({"torch": "1"}, {"torch": "1", "compiled": True}) == ["compiled False -> True"]
