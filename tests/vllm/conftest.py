"""Real vLLM servers over tiny checkpoints; without OPD_TEST_VLLM_ENV (make vllm-test) all of this is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from opd_core.models import load_student
from opd_core.rollout import WholeHandover
from opd_core.runs.endpoints import Endpoint
from opd_core.servers import Role, Server
from opd_core.spec import JobSpec
from tests.tiny import TinyWorld, make_tiny_world, tiny_body
from tests.vllm.serve import VLLMServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(3600))


@dataclass(frozen=True)
class Served:
    """One server teaches, with the world's teacher; another writes for the world's student."""

    teacher: VLLMServer
    writer: VLLMServer
    world: TinyWorld
    handover: Path

    def entries(self) -> dict[str, dict]:
        """As the operator registers them."""
        common = {"model": "tiny", "patience_s": 5.0, "timeout_s": 300.0}
        return {
            "big-teacher": {"url": self.teacher.url, "top_k": 16, **common},
            "fast-writer": {"url": self.writer.url, "handover": str(self.handover), "tolerance": 1e-3, **common},
        }

    def server(self, name: str, role: Role, **settings) -> Server:
        return Server(name, Endpoint.model_validate({**self.entries()[name], **settings}), role=role)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = os.environ.get("OPD_TEST_VLLM_ENV")
    if environment is None:
        pytest.skip("needs an environment with vLLM: make vllm-test")
    root = tmp_path_factory.mktemp("vllm")
    made = make_tiny_world(root, head_dim=32)  # vLLM's attention on a CPU knows no smaller one
    # The other way round: on a CPU vLLM reloads no head that is tied to the embedding, and the world's student has one.
    world = replace(made, student=made.teacher, teacher=made.student)
    handover = root / "handover"
    handover.mkdir()
    servers = [
        VLLMServer(Path(environment), model, root / f"{model.name}.log", writes=model == world.student)
        for model in (world.teacher, world.student)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield Served(*servers, world, handover)
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(autouse=True)
def allowed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPD_HOME", str(served.world.root / "home"))
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(served.world.root))
    monkeypatch.setenv("OPD_DATA_ROOTS", str(served.world.root))


@pytest.fixture
def handed_back(served: Served) -> Iterator[None]:
    """The writer's own weights are the student's again afterwards: adapters of later tests lie on them."""
    yield
    body = tiny_body(served.world, student={"model": str(served.world.student)})
    handover = WholeHandover(served.server("fast-writer", "rollout"), "back")
    handover.give(load_student(JobSpec.model_validate(body), trainable=False))
    handover.end()
