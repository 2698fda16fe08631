"""Does the dashboard stay quick? A large run over the API, busy pages, pages while a job trains, many viewers.

    python -m benchmarks.dashboard [--part large|busy|switch|watchers ...] [--short]

large     a run of 1,000 steps with 100,000 recorded tokens each: seconds and bytes of every answer that a page asks for
busy      a new step every second: 4,096 tokens in the strip, a heatmap of 64 x 64; processor time of the renderer
          and of the dashboard server as shares of one core, and seconds from a step to its sight
switch    seconds from the click to the page's first content, while a demo job trains
watchers  seconds per training step with 20 dashboards open and with none, in turns within one run

The full form takes about half an hour on two cores, most of it writing the large run (about 10 GB below TMPDIR, gone
afterwards). ``--short`` takes three minutes. Each part of the full form is kept as a result of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.dashboard import busy, large, switch, watchers
from benchmarks.machine import describe_machine, keep
from benchmarks.stack import Stack, running

PARTS: dict[str, Callable[[Stack, bool], dict[str, Any]]] = {
    "large": large.measure,
    "busy": busy.measure,
    "switch": switch.measure,
    "watchers": watchers.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this one; may be repeated")
    parser.add_argument("--short", action="store_true", help="a small form of each part, to see that it works")
    arguments = parser.parse_args()
    chosen = arguments.part or list(PARTS)
    for name in chosen:
        machine, started = describe_machine(), time.perf_counter()
        # A service of its own for each part: none pays for what another left behind.
        with running(dashboard=True) as stack:
            figures = PARTS[name](stack, arguments.short)
        figures["took_s"] = round(time.perf_counter() - started)
        print(name, json.dumps(figures, indent=1), flush=True)
        if not arguments.short:
            keep(f"dashboard-{name}", f"python -m benchmarks.dashboard --part {name}", figures, machine)


if __name__ == "__main__":
    main()
