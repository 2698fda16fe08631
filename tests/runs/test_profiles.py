import pytest

from opd_core.runs import profiles
from opd_core.runs.artifacts import RunFiles


def profile(step, field="log_ratio", attempt=1, mean=-1.0):
    """A profile with tokens at the first two positions."""
    empty = profiles.BINS - 2
    return {
        "step": step,
        "attempt": attempt,
        "field": field,
        "bin_width": 1,
        "tokens": [2, 1] + [0] * empty,
        "mean": [mean, mean / 2] + [None] * empty,
        "quantiles": [mean] * len(profiles.QUANTILES),
        "histogram": [3] + [0] * (len(profiles.EDGES) - 2),
    }


def test_the_wire_form_comes_back():
    rows = [profile(1), profile(1, "gate:tip")]
    assert profiles.decode(profiles.encode(rows)).to_pylist() == rows
    with pytest.raises(ValueError, match="profiles"):
        profiles.decode(b"nonsense")


def test_one_field_comes_back_by_step(tmp_path):
    files = RunFiles(tmp_path)
    both = [profile(step, field) for step in (1, 2, 3) for field in ("log_ratio", "gate:tip")]
    profiles.write_part(files, both, 1, 3, 1)
    profiles.write_part(files, [profile(4)], 4, 4, 1)
    assert profiles.read(files, 2, 9, "log_ratio").to_pylist() == [profile(2), profile(3), profile(4)]
    assert profiles.read(files, 1, 9, "gate:tip")["step"].to_pylist() == [1, 2, 3]
    assert profiles.read(files, 1, 9, "kl").num_rows == 0
    assert profiles.fields(files) == ["log_ratio"]
    assert profiles.fields(RunFiles(tmp_path / "other")) == []


def test_the_highest_attempt_wins(tmp_path):
    files = RunFiles(tmp_path)
    profiles.write_part(files, [profile(step) for step in (1, 2, 3)], 1, 3, 1)
    profiles.write_part(files, [profile(2, attempt=2, mean=-5.0)], 2, 2, 2)
    found = profiles.read(files, 1, 3, "log_ratio")
    assert [(row["step"], row["attempt"]) for row in found.to_pylist()] == [(1, 1), (2, 2), (3, 1)]


@pytest.mark.parametrize(("longest", "width"), [(1, 1), (64, 1), (65, 2), (16_384, 256)])
def test_positions_fit_the_bins(longest, width):
    assert profiles.bin_width(longest) == width
    assert (longest - 1) // width < profiles.BINS
