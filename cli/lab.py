"""``opd lab``: the exact laboratory as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli import specs
from opd_core import recipes
from opd_core.spec import MethodSpec, UserError

if TYPE_CHECKING:
    from opd_core.objective.chain import Chain
    from opd_core.objective.exact import Measurement

CriticKind = Literal["exact", "zero", "noisy"]

# Column headings and what they say, in a terminal and in docs/lab.md.
COLUMNS = {
    "n": "Sequences that are compared with each other: 1, or 2 on a smaller chain. ~: a gate draws lots, every pair is "
    "drawn four times, and the row is not exact.",
    "bias seq": "Distance of the expected update from the gradient of the reverse KL of whole sequences, over the norm "
    "of that gradient. 0 = unbiased, 1 = as far off as no update at all. A method of another scale has bias, too: see "
    "the cosine.",
    "cos seq": "Cosine between the expected update and the descent direction of that gradient.",
    "bias state": "The same distance for the reverse KL at the states that the student visits, the visits held fixed.",
    "cos state": "The cosine for that.",
    "cos fkl": "The cosine for the forward KL at the same states.",
    "noise": "Of one sequence: trace of the covariance over the squared norm of the sequence gradient. Compare it "
    "among rows of the same n.",
    "rest": "Size of the update where teacher = student. Not 0: the update does not end at the teacher.",
    "to sup": "Sampled tokens with r < 0 lose mass. The share of it that lands on tokens to which the teacher gives "
    "more than the student does. The three shares sum to 1; one below 0 means that those tokens lose mass as well.",
    "to fav": "The share that lands on the student's most probable token where the teacher does not give it more: the "
    "rich get richer.",
    "to else": "The share that lands on all others, of which the teacher wants less.",
}
NOTES = (
    "Updates are sums over tokens, before aggregation and optimizer, on a table with logits of its own for every "
    "state: nothing is shared between states, so nothing generalises.",
    "A 0 without decimals is exact.",
    "Every sequence is the student's own: what a recipe does with rows of others (sft, off-policy-kd) is not shown.",
    "A k of 6 and more (4, where n is 2) is the whole vocabulary here: try --set support.k=2.",
    "A critic's exact values are those that its own targets agree on. The chain ends at the cap: its value there is 0.",
)


def lab(names: list[str], overrides: list[str], *, critic: CriticKind, seed: int, out: Console, as_json: bool) -> None:
    """Measure these recipes (none = all) and print them. Raises UserError."""
    if overrides and not names:
        raise UserError("--set: name the recipes that it is for, as in: opd lab gae-opd --set credit.gamma=0.5")
    changes = specs.overrides(overrides)
    methods = {name: recipes.adapt(name, changes) for name in names or recipes.names()}
    table = Table("recipe", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in COLUMNS:
        table.add_column(heading.replace(" ", "\n"), justify="right", vertical="bottom", no_wrap=True)
    with Progress(console=Console(stderr=True), transient=True, disable=as_json or not out.is_terminal) as progress:
        for name, method in progress.track(methods.items(), description="listing every sequence"):
            _, measured = measure(method, critic=critic, seed=seed)
            if as_json:
                typer.echo(json.dumps({"recipe": name, "critic": critic, "seed": seed, **asdict(measured)}))
            table.add_row(name, *cells(measured))
    if as_json:
        return
    out.print(table)
    out.print()
    for line in chains(methods.values(), seed):
        out.print(line, highlight=False)
    out.print()
    legend = Table.grid(padding=(0, 2))
    for heading, text in COLUMNS.items():
        legend.add_row(heading, text)
    out.print(legend)
    for note in NOTES:
        out.print(f"\n{note}", highlight=False, markup=False)


def measure(method: MethodSpec, *, critic: CriticKind = "exact", seed: int = 0) -> tuple[Chain, Measurement]:
    """The method on its default chain."""
    from opd_core.objective import exact  # torch: only when something is measured

    chain = exact.default_chain(method, seed)
    return chain, exact.measure(method, chain, critic=critic, seed=seed)


def cells(measured: Measurement) -> list[str]:
    """The row of a measurement under ``COLUMNS``."""
    released = measured.released
    shares = (None,) * 3 if released is None else (released.supported, released.favourite, released.other)
    return [
        f"{measured.batch}{'~' if measured.draws else ''}",
        number(measured.sequence_reverse_kl.bias),
        number(measured.sequence_reverse_kl.cosine),
        number(measured.state_reverse_kl.bias),
        number(measured.state_reverse_kl.cosine),
        number(measured.state_forward_kl.cosine),
        number(measured.variance),
        "0" if measured.at_rest < 1e-4 else f"{measured.at_rest:.2g}",  # the teacher is the student up to 1e-6
        *(number(share) for share in shares),
    ]


def number(value: float | None) -> str:
    """Two decimals; 0 without any only for what is exactly that."""
    if value is None:
        return "-"
    return "0" if abs(value) < 1e-9 else f"{value:.2f}"


def chains(methods: Iterable[MethodSpec], seed: int) -> Iterator[str]:
    """One line about each chain that these methods are measured on."""
    from opd_core.objective import chain as chain_module
    from opd_core.objective import exact

    shown = {}
    for method in methods:
        chain = exact.default_chain(method, seed)
        shown[chain.vocabulary, chain.cap] = chain
    for (vocabulary, cap), chain in sorted(shown.items(), reverse=True):
        value, gradient = chain_module.sequence_kl_gradient(chain)
        yield (
            f"Chain: {vocabulary} tokens, at most {cap} per sequence, {len(chain.student)} states, {len(chain.tokens)} "
            f"sequences; KL(student || teacher) {value:.2f} nats, norm of its gradient {float(gradient.norm()):.2f}."
        )
