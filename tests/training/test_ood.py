"""Longer problems than those of training, solved with every evaluation."""

from __future__ import annotations

from opd_core.tasks import demo_models
from opd_core.tasks.demo_recipe import SynonymRecipe, SynonymSchool
from opd_core.training.run import train

SMALL = {"batches": 2, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 16, "batch_size": 8}
RECIPE = SynonymRecipe(
    teacher=SynonymSchool(**SMALL, seed=1, foreign=0.5), student=SynonymSchool(**SMALL, seed=2), examined=4
)


def test_longer_problems_are_a_metric_of_evaluated_steps(tiny_spec, tmp_path, monkeypatch) -> None:
    built = demo_models.ensure(tmp_path, None, RECIPE)
    monkeypatch.setenv("OPD_MODEL_ROOTS", str(tmp_path))
    curves = {}
    for asked in (0, 6):
        spec = tiny_spec(
            student={"model": str(built / "student")},
            teacher={"model": str(built / "teacher")},
            task={"name": "demo/synonyms", "eval_examples": 8, "ood_examples": asked},
            schedule={"steps": 3, "evaluate_every": 2, "checkpoint_every": 0},
        )
        said: list = []
        report = train(spec, str(tmp_path / f"out-{asked}"), emit=said.append)
        assert report["accuracy"]["after"] is not None
        curves[asked] = {
            message["step"]: message["values"]["ood_accuracy"]
            for message in said
            if message["type"] == "metrics" and "ood_accuracy" in message["values"]
        }
    assert curves[0] == {}
    assert list(curves[6]) == [0, 2, 3]
