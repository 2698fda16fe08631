"""What our own code never does, read from its syntax: run what data says, or show data as markup."""

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file for package in ("opd_core", "api", "worker", "dashboard", "cli") for file in (ROOT / package).rglob("*.py")
)
MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
CALLS = frozenset({"eval", "exec", "compile", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "np.load"})
SWITCHES = {
    "trust_remote_code": True,
    "shell": True,
    "unsafe_allow_html": True,
    "unsafe_allow_javascript": True,
    "allow_pickle": True,
    "weights_only": False,
    "verify": False,
}


def violations(source):
    """What the source does and must not: (line, what)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in CALLS:
                yield node.lineno, ast.unparse(node.func)
            for given in node.keywords:
                if given.arg in SWITCHES and getattr(given.value, "value", None) is SWITCHES[given.arg]:
                    yield node.lineno, f"{given.arg}={SWITCHES[given.arg]}"


def test_nothing_runs_what_data_says_or_shows_it_as_markup():
    assert len(SOURCES) > 150
    found = [
        f"{file.relative_to(ROOT)}:{line} {what}" for file in SOURCES for line, what in violations(file.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(x)",
        "eval(x)",
        "A.from_pretrained(x, trust_remote_code=True)",
        "st.markdown(x, unsafe_allow_html=True)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_it_would_be_seen(source):
    assert list(violations(source))


@pytest.mark.parametrize(
    ("package", "extra", "fixed"),
    # below these, loading a checkpoint could run its code; the last one let a Windows dashboard be made to call out
    [("torch", "worker", "2.10"), ("transformers", "worker", "5.3"), ("streamlit", "dashboard", "1.54")],
)
def test_no_version_with_a_known_hole_is_allowed(package, extra, fixed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [Requirement(line) for line in project["optional-dependencies"][extra]]
    (found,) = [one for one in listed if one.name == package]
    lower = [Version(part.version) for part in found.specifier if part.operator == ">="]
    assert lower
    assert lower[0] >= Version(fixed)
