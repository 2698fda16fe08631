"""No prompt is on both sides, whatever the file repeats; the split is a function of the seed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opd_core.tasks.split import hold_out
from opd_core.tasks.task import Problem


@given(
    prompts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    count=st.integers(0, 10),
    seed=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_disjoint_by_prompt(prompts: list[str], count: int, seed: int) -> None:
    problems = [Problem(i, prompt, str(i)) for i, prompt in enumerate(prompts)]
    train, held_out = hold_out(problems, count, seed=seed)
    trained, examined = {p.prompt for p in train}, [p.prompt for p in held_out]
    assert not trained & set(examined)
    assert len(examined) == len(set(examined)) == min(count, len(set(prompts)) // 2)
    assert trained | set(examined) == set(prompts)
    assert hold_out(problems, count, seed=seed) == (train, held_out)


def test_the_seed_decides() -> None:
    problems = [Problem(i, str(i), None) for i in range(100)]
    chosen = {tuple(p.id for p in hold_out(problems, 10, seed=seed)[1]) for seed in range(5)}
    assert len(chosen) == 5


def test_half_a_file_at_most() -> None:
    problems = [Problem(i, str(i), None) for i in range(5)]
    assert [len(side) for side in hold_out(problems, 200, seed=0)] == [3, 2]
