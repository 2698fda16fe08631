"""As softmax alone would send it."""

from __future__ import annotations

from math import log

import pytest

from opd_core.runs import records
from tests.runs.test_records import row


def test_the_predicted_loss_goes_where_the_student_would_put_it(http, run):
    """Token 1 has half of the mass at the first state, a fifth at the second; the third is not suppressed."""
    job_id, files = run
    numbers = {
        "token_ids": [1, 1, 1],
        "log_ratio": [-1.0, -1.0, 1.0],
        "logp_student": [log(0.5), log(0.2), log(0.5)],
        "student_top_ids": [[1, 2], [3, 1], [1, 2]],
        "student_top_logp": [[log(0.5), log(0.25)], [log(0.4), log(0.2)], [log(0.5), log(0.25)]],
        "teacher_top_ids": [[2, 4], [4, 3], [2, 4]],
        "teacher_top_student_logp": [[log(0.25), log(0.125)], [log(0.1), log(0.4)], [log(0.25), log(0.125)]],
        "probe_ids": [[2, 1], [1, 3], [1, 2]],
        "probe_predicted": [[0.5, -0.25], [-0.75, 0.0], [9.0, 9.0]],
        "probe_realised": [[0.0, 0.0]] * 3,
    }
    records.write_part(files, [{**row(1), **numbers}], 1, 1, 1)
    found = http.get(f"/v1/jobs/{job_id}/heatmaps/routing").json()
    got = dict(zip([column["id"] for column in found["columns"]], found["plain"][0], strict=True))
    assert got == pytest.approx(
        {
            1: (-0.25 - 0.75) / 2,
            2: (0.25 * 0.25 / 0.5) / 2,
            3: (0.75 * 0.4 / 0.8) / 2,
            4: (0.25 * 0.125 / 0.5 + 0.75 * 0.1 / 0.8) / 2,
        }
    )
