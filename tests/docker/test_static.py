"""The images and the compose file, as far as no container engine is needed to judge them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from opd_core.runs.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.M | re.S))
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def tool(name: str, *arguments: str) -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_dockerfile_passes_its_linter():
    tool("hadolint", "-c", ".hadolint.yaml", "docker/Dockerfile")


def test_the_compose_file_fits_the_specification():
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_no_image_runs_as_root_and_only_workers_hold_torch():
    assert set(STAGES) == {"base", "api", "dashboard", "worker-cpu", "worker-gpu"}
    for name, text in STAGES.items():
        if name == "base":
            continue
        users = re.findall(r"^USER (\S+)", text, flags=re.M)
        assert users == ["10001:10001"], name
        assert text.index("USER") > text.rindex("RUN")
        extras = set(",".join(re.findall(r"\.\[([a-z0-9,]+)\]", text)).split(","))
        assert ("worker" in extras) == name.startswith("worker"), name
        assert ("torch" in text) == (name == "worker-cpu") or name == "worker-gpu"


def test_everything_that_is_copied_exists_and_is_in_the_build_context():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.M):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert source in allowed


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_is_built_for_what_it_runs_and_is_locked_down(name):
    service = OURS[name]
    assert service["build"]["target"] in STAGES
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    module = service["command"][2]
    if module != "celery":
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()
    torch = service["build"]["target"].startswith("worker")
    assert torch == (module == "celery")
    for variable in service.get("environment", {}):
        if variable.startswith("OPD_") and variable != "OPD_SECRETS_DIR":
            assert variable.removeprefix("OPD_").lower() in Settings.model_fields


def test_secrets_are_files_and_nowhere_else():
    declared = COMPOSE["secrets"]
    used = {secret for service in COMPOSE["services"].values() for secret in service.get("secrets", [])}
    assert used == set(declared)
    made = (ROOT / "docker" / "make-secrets.sh").read_text()
    for name, secret in declared.items():
        assert secret == {"file": f"docker/secrets/{name}"}
        assert f"> {name}" in made
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text()
    text = yaml.safe_dump(COMPOSE)
    assert not re.search(r"(password|token|secret)\S*: [0-9a-f]{16,}", text, flags=re.I)


def test_only_api_and_dashboard_are_published_and_on_loopback():
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8321:8321"], "dashboard": ["127.0.0.1:8501:8501"]}
    assert COMPOSE["networks"]["inside"]["internal"]
    for name in ("valkey", "postgres", "store", "reconciler", "prepare"):
        assert COMPOSE["services"][name]["networks"] == ["inside"]


def test_the_api_reconciles_nothing_where_a_reconciler_runs():
    assert OURS["api"]["environment"]["OPD_RECONCILE"] == "false"
    assert OURS["reconciler"]["command"] == ["python", "-m", "api.reconciler"]


def test_secrets_are_made_once_and_fit_together(tmp_path):
    script = tmp_path / "make-secrets.sh"
    script.write_text((ROOT / "docker" / "make-secrets.sh").read_text())
    subprocess.run(["sh", script], check=True, capture_output=True)
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert made["postgres_password"] in made["opd_database_url"]
    assert made["valkey_password"] in made["opd_redis_url"]
    assert made["aws_credentials"].split()[-1] in made["s3_identities.json"]
    assert len({made["postgres_password"], made["valkey_password"], made["opd_api_token"]}) == 3
    assert all(len(made[name]) == 64 for name in ("postgres_password", "valkey_password", "opd_api_token"))
    again = subprocess.run(["sh", script], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists already" in again.stderr
