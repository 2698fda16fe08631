"""A run whose rows a server writes: trained on what it wrote, saved when it vanishes, gone on with when it is back."""

from __future__ import annotations

import json

import pytest

from opd_core.runs.artifacts import RunFiles
from opd_core.runs.settings import Settings
from opd_core.servers import ServerUnreachable
from opd_core.spec import UserError
from opd_core.training import checkpoint
from opd_core.training.run import train
from tests.loopback import Loopback
from tests.rollout.fake_vllm import FakeVLLM


@pytest.fixture
def world(tiny_world, tiny_spec, tmp_path, monkeypatch):
    spec = tiny_spec(
        student={"model": str(tiny_world.student), "lora": {"rank": 4}},
        recipe="tml-opd",
        rollout={"prompts_per_step": 4, "max_new_tokens": 5, "endpoint": "fast-writer"},
        schedule={"steps": 4, "evaluate_every": 0, "checkpoint_every": 0},
        optimizer={"lr": 1e-2, "warmup_steps": 0},
        telemetry={"sequences_per_step": 0, "recovery_problems": 0},
    )
    monkeypatch.setenv("OPD_HOME", str(tmp_path))
    fake = FakeVLLM(spec)
    server = Loopback(fake)
    entry = {"url": server.url, "model": "tiny", "handover": str(tmp_path), "patience_s": 0.3, "tolerance": 1e-3}
    Settings().endpoints_file.write_text(json.dumps({"fast-writer": entry}))
    yield spec, fake, server
    server.close()


def test_it_trains_rests_and_goes_on(world, tmp_path):
    spec, fake, server = world
    files, said = RunFiles(tmp_path / "run"), []

    def listen(message):
        said.append(message)
        if message["type"] == "metrics" and message["step"] == 2:
            server.down = True

    with pytest.raises(ServerUnreachable, match="rollout server"):
        train(spec, files, emit=listen)
    (saved,) = checkpoint.names(files)
    assert saved.startswith("step-000002.")
    assert files.read_json(f"checkpoints/{saved}/trainer.json")["cursor"] == 8  # the third step's prompts come again
    server.down = False
    fake.restart()
    report = train(spec, files, attempt=2, emit=said.append)
    assert report["steps"] == 4
    assert report["checklist"]["rollout"]["server"] == "fast-writer"
    assert any("not bit for bit" in warning for warning in report["warnings"])
    assert any(message.get("name") == "rollout_server" for message in said)
    steps = {message["step"]: message["values"] for message in said if message["type"] == "metrics"}
    assert all(steps[step]["engine_gap"] < 1e-4 for step in (1, 2, 3, 4))  # each by the weights before it
    handed = [body["lora_name"] for path, body in fake.asked if path == "/v1/load_lora_adapter"]
    assert len(handed) == len(set(handed)) == 4  # once for each step, the self-check's with the first
    assert not fake.adapters  # nothing is left behind


def test_a_server_that_keeps_its_weights_ends_the_run_with_both_figures(world, tmp_path):
    spec, fake, _ = world
    fake.deaf = True
    with pytest.raises(UserError, match=r"by its own account and -\d.* by the trainer's"):
        train(spec, tmp_path / "run", emit=lambda _: None)
