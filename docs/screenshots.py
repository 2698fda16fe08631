"""Pictures of every page in both themes, over a real service in which a real job trains.

    python -m docs.screenshots [--out tests/artifacts/screenshots]

Two finished runs and one that is still training are made first, which takes some minutes. Look at every picture; the
best ones are committed under docs/images.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from rich.progress import Progress

from api.client import Client
from benchmarks.stack import running

ROOT = Path(__file__).parents[1]
DEMO: dict[str, Any] = {
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems", "eval_examples": 100},
    "optimizer": {"lr": 1e-3},
}
_GATES = [{"kind": "tip", "share": 0.5}, {"kind": "prefix_weight"}]
_WIDTH, _HEIGHT, _TALLEST = 1440, 1000, 3200
STEP = 30  # that the pages about one step show
_SETTLE_MS = 6000  # charts and tables fill in after the page has drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "artifacts" / "screenshots")
    parser.add_argument("--steps", type=int, default=60, help="of the two finished runs")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium on this machine (apt-get install chromium)")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with running(dashboard=True) as stack, Progress() as progress:
        client = stack.client
        task = progress.add_task("training", total=2 * arguments.steps)
        plain = _trained(client, "forward-kl", arguments.steps, progress, task)
        whole = _trained(client, "gae-cr-opd", arguments.steps, progress, task, gates=_GATES)
        live = client.submit({**_spec("cr-opd", 3000), "name": "demo-cr-opd live"}).id
        _wait_for_steps(client, live, 8)
        answers = _asked(client, plain, whole)
        pages = _pages(plain, whole, live, answers)
        task = progress.add_task("pictures", total=2 * len(pages))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for theme in ("light", "dark"):
                context = browser.new_context(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme=theme)
                page = context.new_page()
                page.set_default_timeout(180_000)
                for name, path in pages.items():
                    _picture(page, f"{stack.dashboard_url}{path}", arguments.out / f"{name}-{theme}.png")
                    progress.advance(task)
                context.close()
            browser.close()
        client.cancel(live)
        progress.console.print(f"{2 * len(pages)} pictures in {arguments.out}")


def _spec(recipe: str, steps: int) -> dict[str, Any]:
    schedule = {"steps": steps, "evaluate_every": 15, "checkpoint_every": 0}
    return {**DEMO, "name": f"demo-{recipe}", "recipe": recipe, "schedule": schedule}


def _trained(
    client: Client, recipe: str, steps: int, progress: Progress, task: Any, gates: list[dict[str, Any]] | None = None
) -> str:
    spec = _spec(recipe, steps)
    if gates:
        spec["method"] = {"gates": gates}
    job = client.submit(spec)
    for _, kind, _ in client.stream(job.id):
        if kind == "progress":
            progress.advance(task)
    if (status := client.job(job.id).status) != "succeeded":
        sys.exit(f"the job {job.name} {status}")
    return job.id


def _wait_for_steps(client: Client, job_id: str, steps: int) -> None:
    for _, kind, found in client.stream(job_id):
        if kind == "progress" and found["step"] >= steps:
            return


def _asked(client: Client, plain: str, whole: str) -> dict[str, str]:
    """A question of each kind, answered; name in the address -> id."""
    prompt = client.sequence(whole, STEP, 0).prompt
    questions = {
        "whatif": client.replan(whole, STEP, recipe="tml-opd", sequences=[0]),
        "probe": client.probe(plain, prompt),
        "probe2": client.probe(whole, prompt),
    }
    closed = {name: client.answer(question, timeout_s=600) for name, question in questions.items()}
    for question in closed.values():
        if question.status != "answered":
            sys.exit(f"the question {question.kind} was not answered: {question.error}")
    return {name: question.id for name, question in closed.items()}


def _pages(plain: str, whole: str, live: str, answers: dict[str, str]) -> dict[str, str]:
    step = f"&step={STEP}"
    return {
        "runs": "/",
        "new-run": "/new_run",
        "overview": f"/overview?job={whole}",
        "overview-live": f"/overview?job={live}",
        "tokens": f"/tokens?job={whole}{step}&second=advantage",
        "tokens-live": f"/tokens?job={live}",
        "returns": f"/returns?job={whole}{step}",
        "gates": f"/gates?job={whole}",
        "routing": f"/routing?job={whole}&maps=routed,predicted,realised,plain,rerouted,interference",
        "what-if": f"/what_if?job={whole}{step}&seq=0&whatif={answers['whatif']}",
        "probe": f"/probe?job={plain}&probe={answers['probe']}&against={whole}&probe2={answers['probe2']}",
        "compare": f"/compare?jobs={plain},{whole},{live}",
        "fleet": "/fleet",
    }


def _picture(page: Page, address: str, target: Path) -> None:
    """The whole page, in a window as tall as it needs."""
    page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
    page.goto(address)
    page.locator("h2, h3, [data-testid=stAlert]").first.wait_for()
    page.wait_for_timeout(_SETTLE_MS)
    needed = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": _WIDTH, "height": max(_HEIGHT, min(needed + 40, _TALLEST))})
    page.wait_for_timeout(1500)
    page.screenshot(path=target)


if __name__ == "__main__":
    main()
