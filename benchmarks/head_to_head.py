"""A plan from start to table, over a service of its own: what `opd bench` does, and the peers that the plan names.

    python -m benchmarks.head_to_head benchmarks/plans/small.yaml [--out DIR]

Killed and started again it goes on with what has not ended. When everything has, the report is kept in
benchmarks/results/NAME and the next call starts anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.stack import running
from cli import specs
from cli.bench import command
from cli.bench.ledger import Ledger
from cli.bench.plan import read

_KEPT = ("plan.json", "results.json", "results.csv", "report.md", "report.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    plan = read(specs.read(arguments.plan))
    folder = command.output(plan, arguments.out)
    machine = describe_machine()
    ledger = Ledger(folder, plan)
    with running(dashboard=False) as stack:
        report = command.bench(plan, stack.client, ledger, Console(), machine)
    for peer in plan.peers:  # when the service is gone, in a process of its own, with one thread as our trainers
        command_line = [sys.executable, "-m", f"benchmarks.peers.{peer.name}_arm", arguments.plan, "--out", str(folder)]
        subprocess.run(command_line, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    if plan.peers:
        report = command.write_report(plan, command.matrix(plan), ledger, machine)
    if report["runs"]["missing"]:
        raise SystemExit(f"{report['runs']['missing']} runs are missing; start the same command again")
    target = RESULTS / plan.name
    target.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        shutil.copy(folder / name, target / name)
    ended = folder.with_name(f"{folder.name}.ended")
    shutil.rmtree(ended, ignore_errors=True)
    folder.rename(ended)
    print(f"kept in {target}; the records of the single runs are in {ended}")


if __name__ == "__main__":
    main()
