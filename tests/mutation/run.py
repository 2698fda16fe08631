"""Break the code, one line at a time, and see the tests turn red.

    python tests/mutation/run.py [--only SUBSTRING] [--start ROW] [--end ROW]

Each row of table.yaml is applied to a copy of the tree; the tests named there must fail. Exit code 1 if one survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

# Before pytest looks for plugins and torch for threads.
os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
sys.dont_write_bytecode = True
import pytest  # noqa: E402
import torch  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_S = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose file contains this")
    parser.add_argument("--start", type=int, default=1, help="go on from this row of the table")
    parser.add_argument("--end", type=int, default=None, help="stop after this row")
    arguments = parser.parse_args()
    rows = yaml.safe_load(Path(__file__).with_name("table.yaml").read_text())
    if stale := [row for row in rows if (ROOT / row["file"]).read_text().count(row["old"]) != 1]:
        print("mend the table; not found once:", *(f"{row['file']}: {row['old']!r}" for row in stale), sep="\n")
        return 1
    rows = [row for row in rows[arguments.start - 1 : arguments.end] if arguments.only in row["file"]]
    survivors = []
    with tempfile.TemporaryDirectory(prefix="opd-mutants-") as folder:
        tree = Path(folder)
        for name in ("opd_core", "api", "worker", "dashboard", "cli", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "artifacts"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for suite in sorted({row["tests"] for row in rows}):
            if not _red(tree, suite):
                continue
            print(f"{suite} is red before anything is broken")
            return 1
        started = time.monotonic()
        for number, row in enumerate(rows, 1):
            path = tree / row["file"]
            sound = path.read_text()
            path.write_text(sound.replace(row["old"], row["new"]))
            caught = _red(tree, row["tests"])
            path.write_text(sound)
            if not caught:
                survivors.append(row)
            left = (time.monotonic() - started) / number * (len(rows) - number)
            word = "caught" if caught else "SURVIVED"
            print(f"[{number}/{len(rows)}, {left:.0f} s left] {word}: {row['file']}: {row['new']!r}", flush=True)
    print(f"{len(rows) - len(survivors)} of {len(rows)} breakages caught")
    return 1 if survivors else 0


def _red(tree: Path, suite: str) -> bool:
    """Whether the suite fails in the copy.

    It runs in a fork of this process, which has imported torch and nothing of ours: importing torch takes longer than
    most suites. Bytecode is off: two edits within a second would share a timestamp. A suite that hangs counts as red.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(_LONGEST_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path.insert(0, str(tree))
        # The slow process tests add nothing here.
        slow = "not killed and not sigterm and not supervisor and not teaches"
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", slow, *suite.split()]))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1, 2, -signal.SIGALRM):
        raise SystemExit(f"{suite}: pytest ended with {code}")
    return code != 0


if __name__ == "__main__":
    sys.exit(main())
