"""What a checkpoint on this machine says of its size: its config and the headers of its files. No weight is read."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from opd_core.runs.roots import below_roots
from opd_core.runs.settings import Settings
from opd_core.spec import ModelSpec, UserError

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_LARGEST_HEADER = 100 << 20  # of the safetensors format
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


class Unknown(Exception):
    """The size cannot be told here; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """``shapes``: of the weights by name. ``config``: the text model's."""

    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any]

    @property
    def parameters(self) -> int:
        """All of them; what embedding and head share counts once."""
        return sum(map(prod, self.shapes.values()))

    @property
    def linear(self) -> dict[str, tuple[int, ...]]:
        """The matrices between embedding and head, by the names of their modules: what adapters and codes are for."""
        vocabulary = self._first("vocab_size", default=0)
        return {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if name.endswith(".weight") and len(shape) == 2 and shape[0] != vocabulary
        }

    @property
    def layers(self) -> int:
        return self._first("num_hidden_layers", "n_layer")

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self._first("hidden_size", "n_embd")

    @property
    def intermediate(self) -> int:
        """Width inside the feed-forward blocks."""
        return self._first("intermediate_size", "n_inner", default=4 * self.hidden)

    @property
    def key_value(self) -> int:
        """Width of the keys (and of the values) of one layer."""
        heads = self._first("num_attention_heads", "n_head")
        head_dim = self._first("head_dim", default=self.hidden // heads)
        return self._first("num_key_value_heads", default=heads) * head_dim

    def _first(self, *names: str, default: int | None = None) -> int:
        for name in names:
            if isinstance(value := self.config.get(name), int) and value > 0:
                return value
        if default is None:
            raise Unknown(f"its config.json does not give {names[0]}")
        return default


def read_checkpoint(model: ModelSpec, settings: Settings, *, param: str) -> Checkpoint:
    """The checkpoint of a model. Raises Unknown, or UserError for a link that leads out of the allowed roots."""
    if model.model.startswith("demo/"):
        raise Unknown("it is built where the job runs; none of the built-in models has a million parameters")
    roots = settings.model_roots
    if model.model.startswith("/"):
        folder = below_roots(model.model, roots, variable="OPD_MODEL_ROOTS", param=param)
    else:
        folder = _downloaded(model)
        roots = (_hub(),)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        found = Checkpoint(
            shapes={
                name: tuple(entry["shape"])
                for file in _files(folder)
                for name, entry in _header(below_roots(file, roots, variable="OPD_MODEL_ROOTS", param=param)).items()
                if name != "__metadata__"
            },
            config=config.get("text_config", config),
        )
        if not found.shapes:
            raise Unknown("it holds no safetensors weights")
        return found
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise Unknown(f"its files cannot be read here ({type(error).__name__})") from error


def _hub() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser().resolve()


def _downloaded(model: ModelSpec) -> Path:
    folder = _hub() / f"models--{model.model.replace('/', '--')}"
    revision = model.revision or "main"
    try:
        commit = revision if _COMMIT.match(revision) else (folder / "refs" / revision).read_text("ascii").strip()
    except (OSError, ValueError):
        commit = ""
    if not _COMMIT.match(commit) or not (folder / "snapshots" / commit).is_dir():
        raise Unknown("it has not been downloaded to the machine of this service")
    return folder / "snapshots" / commit


def _files(folder: Path) -> Iterator[Path]:
    """What transformers would load, which need not be every file that lies there."""
    if (index := folder / _INDEX).is_file():
        for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values())):
            yield folder / name
    elif (folder / _SINGLE).is_file():
        yield folder / _SINGLE


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as source:
        (size,) = struct.unpack("<Q", source.read(8))
        if size > _LARGEST_HEADER:
            raise ValueError("no safetensors header")
        header: dict[str, Any] = json.loads(source.read(size))
        return header
