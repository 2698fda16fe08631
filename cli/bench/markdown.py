"""report.md: the tables for people. Sections are data first (``sections``), so that the HTML says the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cli.bench.checklist import TOPICS
from cli.bench.plan import TEACHER, TESTED_FROM, UNTRAINED

Json = dict[str, Any]
BLANK = "–"


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table (first row: the head)."""

    title: str
    text: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def as_markdown(results: Json) -> str:
    """The whole report as Markdown."""
    lines = [f"# {results['plan']['name']}", ""]
    for section in sections(results):
        lines += [f"## {section.title}", "", *(line for text in section.text for line in (text, ""))]
        if section.table:
            head, *rows = section.table
            lines += [_row(head), "|" + "---|" * len(head), *map(_row, rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def sections(results: Json) -> list[Section]:
    """Everything the report says, in order."""
    found = [_overview(results)]
    for name, task in results["tasks"].items():
        found += [
            _accuracy(name, task, (results["sampled"] or {"arms": {}})["arms"].get(name, {})),
            _side_effects(name, task),
            _cost(name, task),
            _phases(name, task),
            _wins(name, task),
        ]
        if sizes := _sizes(name, task):
            found.append(sizes)
    found.append(_contrasts(results))
    if (drawn := results["sampled"]) is not None:
        found.append(_contrasts_again("Contrasts of sampled accuracy", drawn["contrasts"]))
    if (equal := results["equal_prompts"]) is not None:
        found += [_equal_prompts(name, where, equal["arms"][name]) for name, where in equal["where"].items()]
        found.append(_contrasts_again("Contrasts at equal prompts", equal["contrasts"]))
    if results["effects"]:
        found.append(_effects(results))
    if results["runs"]["failed"]:
        found.append(_failures(results))
    found += [_checklist(arm, topics) for arm, topics in results["checklist"].items()]
    found.append(_versions(results))
    return found


def _overview(results: Json) -> Section:
    plan, runs = results["plan"], results["runs"]
    budget = plan["budget"] or {}
    spent = ", ".join(f"{size:,.0f} {name.replace('_', ' ')}" for name, size in budget.items() if size is not None)
    text = [plan["summary"]] if plan["summary"] else []
    text.append(
        f"{runs['planned']} runs planned, {runs['ended']} ended, {len(runs['failed'])} failed, "
        f"{runs['missing']} missing" + (f"; {runs['peers']} runs of peers." if runs["peers"] else ".")
    )
    text.append(
        f"Budget of every run: {spent}."
        if spent
        else "Every run has the same number of steps and prompts; budgets are as spent."
    )
    text.append(
        "A failed run counts with the student that it began with. Intervals are 95 %, by bootstrap clustered by seed "
        f"and problem, paired where arms share a seed; below {TESTED_FROM} seeds nothing is tested. {BLANK}: not "
        "measured."
    )
    text += [f"Control {name} left out: {reason}" for name, reason in results["controls_left_out"].items()]
    return Section("What was run", text)


def _accuracy(name: str, task: Json, sampled: Json) -> Section:
    head = [
        "Arm",
        "Runs",
        "Failed",
        "Accuracy",
        "95 % interval",
        "sd of seeds",
        "Sampled",
        "95 % interval",
        "Gap recovered",
        "95 % interval",
        "Area per teacher token",
        "Best evaluation",
    ]
    rows = []
    for arm, one in task["arms"].items():
        accuracy, gap = one["accuracy"], one["gap_recovered"]
        fixed = arm in (UNTRAINED, TEACHER)
        rows.append(
            [
                arm,
                BLANK if fixed else str(one["runs"]),
                BLANK if fixed else str(one["failed"]),
                *_estimate(accuracy),
                percent(accuracy and accuracy["sd"]),
                *_estimate(sampled.get(arm)),
                *_estimate(gap),
                percent(_mean(one["area"])),
                percent(_mean(one["best"])),
            ]
        )
    text = [
        "Greedy accuracy on held-out problems after the last step; no checkpoint is selected. The best evaluation is "
        "the highest on the way, chosen on the very problems that it is reported for: it flatters."
    ]
    if sampled:
        text.append(
            "Sampled: the share of right answers among samples of the same problems, drawn as rollouts are. A flat "
            "distribution can be right greedily and wrong when it writes."
        )
    if (common := task["common_teacher_tokens"]) is not None:
        text.append(f"Area: mean accuracy up to {common:,.0f} teacher tokens, the most that all runs have spent.")
    return Section(f"Accuracy: {name}", text, [head, *rows])


def _side_effects(name: str, task: Json) -> Section:
    head = [
        "Arm",
        "Answer length",
        "Answers truncated",
        "Rollout length",
        "Rollouts truncated",
        "Student entropy",
        "Repetition",
        "Forgotten",
        "pass@k",
        "Out of distribution",
    ]
    rows = [
        [
            arm,
            number(_mean(one["length"])),
            percent(_mean(one["truncated"])),
            number(_mean(one["side"]["length_mean"])),
            percent(_mean(one["side"]["truncated"])),
            number(_mean(one["side"]["entropy_student"]), 3),
            number(_mean(one["side"]["repetition"]), 3),
            percent(one["forgotten"]),
            percent(_mean(one["pass_at_k"])),
            percent(_mean(one["out_of_distribution"])),
        ]
        for arm, one in _trained(task)
    ]
    text = [
        "Answers: greedy, held-out, at the end. Rollouts: mean of the last ten steps. Forgotten: of the problems that "
        "the student solved before training, the share that it no longer solves. Out of distribution: problems longer "
        "than any of training, at the end."
    ]
    return Section(f"Side effects: {name}", text, [head, *rows])


def _cost(name: str, task: Json) -> Section:
    head = ["Arm", "Steps", "Student tokens", "Teacher tokens read", "Teacher tokens written", "FLOPs", "Seconds"]
    rows = [
        [
            arm,
            *(
                count(_mean(one["spent"][key]))
                for key in ("steps", "student_tokens", "teacher_tokens", "teacher_written_tokens")
            ),
            scientific(_mean(one["spent"]["flops"])),
            number(_mean(one["spent"]["wall_s"])),
        ]
        for arm, one in _trained(task)
    ]
    return Section(
        f"Cost: {name}",
        ["Means per run, as spent. FLOPs are estimated from parameters and tokens, without evaluation."],
        [head, *rows],
    )


def _phases(name: str, task: Json) -> Section:
    arms = _trained(task)
    phases = list(dict.fromkeys(phase for _, one in arms for phase in one["spent"]["wall_s_by_phase"]))
    rows = [[arm, *(number(one["spent"]["wall_s_by_phase"].get(phase)) for phase in phases)] for arm, one in arms]
    return Section(f"Seconds by phase: {name}", [], [["Arm", *phases], *rows])


def _sizes(name: str, task: Json) -> Section | None:
    arms = _trained(task)
    parts = list(dict.fromkeys(part for _, one in arms for part in one["sizes"]))
    if not parts:
        return None
    rows = [[arm, *(number(one["sizes"].get(part), 4) for part in parts)] for arm, one in arms]
    return Section(
        f"Size of the update's parts: {name}",
        ["Mean |coefficient| per token over the run."],
        [["Arm", *(part.removeprefix("size_") for part in parts)], *rows],
    )


def _wins(name: str, task: Json) -> Section:
    names = list(task["wins"])
    rows = [[one, *(BLANK if one == other else _win(task["wins"][one].get(other)) for other in names)] for one in names]
    text = [
        "Of the problems that exactly one of the two solves, the share that the row solves (95 % interval); then the "
        "seeds in which the row is ahead (a tie counts half)."
    ]
    return Section(f"Win rates: {name}", text, [["", *names], *rows])


def _win(one: Json | None) -> str:
    if one is None:
        return BLANK
    seeds = f"{one['seeds_ahead']:g}/{one['seeds']}"
    share = one["share"]
    return seeds if share is None else f"{percent(share['value'])} ({_interval(share)}) {seeds}"


def _contrasts(results: Json) -> Section:
    head = ["Contrast", "Difference", "95 % interval", "Seeds", "p", "p, corrected"]
    rows = [
        [
            one["name"],
            *_estimate(one["estimate"], signed=True),
            str(len(one["seeds"])),
            number(one["p"], 4) if one["tested"] else "not tested",
            number(one["p_holm"], 4),
        ]
        for one in results["contrasts"]
    ]
    if not rows:
        return Section("Contrasts", ["The plan names none: nothing here is a test."])
    return Section(
        "Contrasts named before the runs",
        ["Differences of accuracy in percentage points; corrected by Holm over those tested."],
        [head, *rows],
    )


def _equal_prompts(name: str, where: Json, arms: Json) -> Section:
    text = [
        f"The same runs after {where['steps']:,} steps, when each had seen {where['prompts']:,} prompts, the last "
        "number at which all were examined. The learning rate goes with the tokens spent, so at this step it differs "
        "between arms by as much as their tokens do. Intervals are over seeds."
    ]
    if where["left_out"]:
        text.append(f"Left out, since they take another number of prompts a step: {', '.join(where['left_out'])}.")
    rows = [[arm, *_estimate(one), str(one["seeds"])] for arm, one in arms.items()]
    return Section(f"At equal prompts: {name}", text, [["Arm", "Accuracy", "95 % interval", "Seeds"], *rows])


def _contrasts_again(title: str, contrasts: list[Json]) -> Section:
    head = ["Contrast", "Difference", "95 % interval", "Seeds"]
    rows = [[one["name"], *_estimate(one["estimate"], signed=True), str(len(one["seeds"]))] for one in contrasts]
    return Section(title, ["Intervals only: each contrast is tested once, above."], [head, *rows])


def _effects(results: Json) -> Section:
    head = ["Task", "Effect", "Difference", "95 % interval", "Seeds"]
    rows = [
        [
            one["task"],
            " x ".join(f"{factor}: {level} - {reference}" for factor, (level, reference) in one["effect"].items()),
            *_estimate(one["estimate"], signed=True),
            str(len(one["seeds"])),
        ]
        for one in results["effects"]
    ]
    return Section(
        "Main effects and interactions",
        ["Averaged over the levels of the other factors; intervals only."],
        [head, *rows],
    )


def _failures(results: Json) -> Section:
    rows = [
        [f"{one['arm']}, {one['task']}, seed {one['seed']}", one["job"] or BLANK, one["why"] or BLANK]
        for one in results["runs"]["failed"]
    ]
    return Section("Failures", [], [["Run", "Job", "Why"], *rows])


def _checklist(arm: str, topics: Json) -> Section:
    rows = [[topic, _flat(topics[topic])] for topic in TOPICS]
    return Section(f"Checklist: {arm}", [], [["Topic", "Reported"], *rows])


def _versions(results: Json) -> Section:
    rows = [[name, ", ".join(map(str, values))] for name, values in results["versions"].items()]
    rows.append(["workers", ", ".join(results["hosts"]) or BLANK])
    rows += [[name, str(value)] for name, value in results.get("machine", {}).items()]
    return Section("Versions and machine", [], [["", ""], *rows])


def _trained(task: Json) -> list[tuple[str, Json]]:
    return [(arm, one) for arm, one in task["arms"].items() if arm not in (UNTRAINED, TEACHER)]


def _flat(value: Any) -> str:
    """A nested value in one cell; nothing of it is left out."""
    if value is None or value in ([], {}):
        return BLANK
    match value:
        case dict():
            return "; ".join(f"{key}: {_inside(inner)}" for key, inner in value.items())
        case list():
            return ", ".join(map(_inside, value))
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def _inside(value: Any) -> str:
    """A mapping inside another one is held together by braces."""
    return f"{{{_flat(value)}}}" if isinstance(value, dict) and value else _flat(value)


def _estimate(one: Json | None, *, signed: bool = False) -> tuple[str, str]:
    return (percent(None if one is None else one["value"], signed=signed), _interval(one, signed=signed))


def _interval(one: Json | None, *, signed: bool = False) -> str:
    if one is None or one["low"] is None:
        return BLANK
    return f"{percent(one['low'], signed=signed)} to {percent(one['high'], signed=signed)}"


def _mean(spread: Json | None) -> float | None:
    return None if spread is None else float(spread["mean"])


def percent(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return BLANK
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 1) -> str:
    return BLANK if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return BLANK if value is None else f"{value:,.0f}"


def scientific(value: float | None) -> str:
    return BLANK if value is None else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
