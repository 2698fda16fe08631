"""The process that answers one question: ``python -m opd_core.training.answer --question FILE --out RUN_DIR``.

FILE is JSON: id, kind (replan, probe), request, and the job's resolved spec. stdout carries messages like the trainer's
(main.py). Exit codes: 0 the answer is written to the run directory, 2 the user's to fix, anything else a crash.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from opd_core.training.process import EXIT_USER_ERROR, die_with_parent, importing, leave, message_channel


def main() -> int:
    """Parse, answer, and say how it ended."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", type=Path, required=True, help="the question, JSON")
    parser.add_argument("--out", required=True, help="run directory: a path or an fsspec URL")
    arguments = parser.parse_args()
    emit = message_channel()
    emit({"type": "phase", "phase": "starting"})
    question = json.loads(arguments.question.read_text(encoding="utf-8"))
    with importing():  # late: the first message should not wait for torch
        import torch

        from opd_core.runs.artifacts import RunFiles
        from opd_core.runs.plain import finite
        from opd_core.runs.questions import answer_file
        from opd_core.spec import JobSpec, UserError
        from opd_core.training import messages
        from opd_core.training.try_prompt import try_prompt
        from opd_core.training.what_if import what_if

    torch.set_num_threads(1)  # training beside it has the cores
    files, spec = RunFiles(arguments.out), JobSpec.model_validate(question["spec"])
    request: dict[str, Any] = question["request"]
    try:
        if question["kind"] == "replan":
            emit(messages.phase("planning"))
            answer = what_if(files, spec, question["id"], request)
        else:
            answer = try_prompt(files, spec, request, emit)
    except UserError as error:
        emit(messages.error(error.code, error.message, param=error.param, category="user", retryable=False))
        return EXIT_USER_ERROR
    files.write_json(answer_file(question["id"]), finite(answer))
    return 0


if __name__ == "__main__":
    leave(main())
