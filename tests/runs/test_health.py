import pytest

from opd_core.runs.health import CHECKS, Run

SOUND = {"force_at_teacher": 1e-9, "shift": None, "alignment": {"-1": -5.0, "0": -1.0, "+1": -6.0}}
BY_ID = {check.id: check for check in CHECKS}


def run(method=None, self_check=SOUND, alarms=(), **series):
    """Series of one value stand for twenty measurements of it."""
    full = {key: value if isinstance(value, list) else [value] * 20 for key, value in series.items()}
    return Run(series=full, method=method or {}, self_check=self_check, alarms=alarms, teacher_accuracy=1.0)


def light(check, **known):
    return BY_ID[check].judge(run(**known))


def test_there_are_eleven_and_each_says_what_to_do():
    assert [check.id for check in CHECKS] == [f"A{i}" for i in range(1, 12)]
    for check in CHECKS:
        assert all([check.title, check.variable, check.measures, check.unit, check.causes, check.remedies])


@pytest.mark.parametrize("check", [check.id for check in CHECKS])
def test_nothing_measured_is_no_light(check):
    found = light(check, self_check=None)
    assert (found.status, found.value) == ("unknown", None)
    assert "Nothing measured" in found.sentence


@pytest.mark.parametrize(
    ("check", "known", "status"),
    [
        ("A1", {"informativeness": 0.7}, "good"),
        ("A1", {"informativeness": 0.55}, "watch"),
        ("A1", {"informativeness": 0.3}, "bad"),
        ("A2", {"overlap_mass": 0.9}, "good"),
        ("A2", {"overlap_mass": [0.99] * 10 + [0.85] * 20}, "watch"),
        ("A2", {"overlap_mass": 0.4}, "bad"),
        ("A3", {"log_ratio_loudest": 0.2, "log_ratio_p01": -5.0}, "good"),
        ("A3", {"log_ratio_loudest": 0.2, "log_ratio_p01": -30.0}, "watch"),
        ("A3", {"log_ratio_loudest": 0.8, "log_ratio_p01": -5.0}, "bad"),
        ("A4", {"recovery_20": 0.9, "recovery_80": 0.7}, "good"),
        ("A4", {"recovery_20": 0.9, "recovery_80": 0.3}, "watch"),
        ("A4", {"recovery_20": 0.9, "recovery_80": 0.1}, "bad"),
        ("A5", {"tail_student_16": 0.3}, "good"),  # the whole vocabulary is compared
        ("A5", {"tail_student_8": 0.01, "method": {"support": {"kind": "teacher_top_k", "k": 8}}}, "good"),
        ("A5", {"tail_student_8": 0.1, "method": {"support": {"kind": "student_top_k", "k": 8}}}, "watch"),
        ("A5", {"tail_student_32": 0.3, "method": {"support": {"kind": "union", "k": 64}}}, "bad"),
        ("A6", {"landing_realised_supported": 0.5, "landing_plain_supported": 0.3}, "good"),
        ("A6", {"landing_realised_supported": 0.3, "landing_plain_supported": 0.3}, "watch"),
        ("A6", {"landing_realised_supported": 0.6, "landing_plain_supported": 0.3, "squeeze": 0.9}, "watch"),
        ("A6", {"landing_realised_supported": 0.1, "landing_plain_supported": 0.3}, "bad"),
        ("A7", {"critic_explained_variance": 0.5, "critic_length_correlation": 0.2}, "good"),
        ("A7", {"critic_explained_variance": 0.5, "critic_length_correlation": -0.95}, "watch"),
        ("A7", {"critic_explained_variance": -0.5}, "bad"),
        ("A7", {"credit_correlation": 0.1}, "good"),
        ("A8", {"force_cosine": 0.8}, "good"),
        ("A8", {"force_cosine": 0.2}, "watch"),
        ("A8", {"force_cosine": -0.2}, "bad"),
        ("A9", {"length_mean": 20.0, "truncated": 0.0, "entropy_student": 0.3}, "good"),
        ("A9", {"length_mean": 20.0, "truncated": 0.3}, "watch"),
        ("A9", {"length_mean": [20.0] * 10 + [10.0] * 20, "truncated": 0.0}, "watch"),
        ("A9", {"length_mean": 20.0, "truncated": 0.0, "entropy_student": [1.0] * 10 + [0.1] * 20}, "watch"),
        ("A9", {"length_mean": 20.0, "truncated": 0.8}, "bad"),
        ("A9", {"length_mean": 20.0, "truncated": 0.0, "alarms": ["early stopping"]}, "bad"),
        ("A10", {"engine_gap": 1e-6}, "good"),
        ("A10", {"engine_gap": 1e-6, "importance_truncated": 0.2}, "watch"),
        ("A10", {"engine_gap": 0.2}, "bad"),
        ("A11", {}, "good"),
        ("A11", {"self_check": SOUND | {"force_at_teacher": 1e-3}}, "bad"),
        ("A11", {"self_check": SOUND | {"force_at_teacher": None, "shift": "the reward"}}, "good"),
        ("A11", {"self_check": SOUND | {"alignment": {"-1": -1.0, "0": -5.0, "+1": -6.0}}}, "bad"),
    ],
)
def test_lights(check, known, status):
    found = light(check, **known)
    assert found.status == status, found.sentence
    assert found.sentence.endswith(".")


def test_now_is_the_mean_of_the_newest_twenty_measurements():
    assert light("A1", informativeness=[0.0] * 50 + [None, 0.7] * 20).value == pytest.approx(0.7)


def test_what_is_no_number_is_no_measurement():
    assert light("A1", informativeness=[float("nan"), 0.7]).value == pytest.approx(0.7)
