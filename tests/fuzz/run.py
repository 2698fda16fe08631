"""The full form: ``python -m tests.fuzz.run [--requests 20000] [--seed N]``. Prints its seed first, its figures last.

Ends with an error at the first answer that the document does not promise, or when something is left over at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import secrets
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from schemathesis import GenerationMode

from tests.fuzz.fuzz import stateful, stateless
from tests.fuzz.world import World

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.json"
_PACKAGES = ("schemathesis", "hypothesis", "fastapi", "starlette", "pydantic", "sqlalchemy")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run; default: a new one")
    parser.add_argument("--save", action="store_true", help=f"write the figures to {RESULT.name}")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    logging.disable(logging.WARNING)  # the HTTP client's line for every request
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="opd-fuzz-") as home:
        world = World(Path(home))
        rounds = 0
        while world.app.requests < options.requests:
            stateless(world, seed + rounds, 24, GenerationMode.POSITIVE)
            stateless(world, seed + rounds, 12, GenerationMode.NEGATIVE)
            stateful(world, seed + rounds, 30, 25)
            rounds += 1
            print(f"{world.app.requests} requests, {time.monotonic() - started:.0f} s", flush=True)
        left = world.orphans()
        operations = sum(len(found) for found in world.inner.openapi()["paths"].values())
        world.close()
    figures = {
        "seed": seed,
        "requests": world.app.requests,
        "rounds": rounds,
        "duration_s": round(time.monotonic() - started, 1),
        "operations": operations,
        "answers_by_status": {str(status): count for status, count in sorted(world.app.statuses.items())},
        "left_over": left,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    print(json.dumps(figures, indent=1))
    if left:
        sys.exit(f"{len(left)} things are left over, e.g. {left[0]}")
    if options.save:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
