"""``opd demo``: the whole service on this machine, and one job on it from nothing to a better model."""

from __future__ import annotations

import json
import shlex
import threading
from typing import Any

import httpx
import yaml
from rich.console import Console

from api.client import ApiError, Client
from api.schemas import Job
from cli.broker import BrokerUnavailable
from cli.build_models import build
from cli.follow import SUCCEEDED, follow, tell_outcome
from cli.processes import PartFailed
from cli.shell import DEMO_SPEC, demo_file, program
from cli.stopping import Stopped, StopRequest
from cli.up import CannotStart, Service, UpOptions, summary
from cli.view import RunView
from opd_core.runs.settings import Settings


def demo(options: UpOptions, console: Console, *, leave: bool, seed: int | None) -> int:
    """Start the service, run the demo job; with ``leave`` stop when it ends. Returns the exit code."""
    stop = StopRequest().install()
    service = Service(options, stop, _say(console))
    job = _DemoJob(options.settings, console, leave=leave, seed=seed, stop=stop)
    try:
        build(options.settings.home, console, stop.check)
        address = service.start()
        console.print("\n" + summary(options.settings, address) + "\n", markup=False, highlight=False)
        job.start(Client(address.api_url, options.settings.token()), address.dashboard_url)
        service.watch()
    except Stopped:
        pass
    except (CannotStart, BrokerUnavailable, PartFailed) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    finally:
        job.hide()
        service.stop()
    return job.exit_code


class _DemoJob:
    """The demo job, submitted and followed in a thread: the main thread looks after the service."""

    def __init__(
        self, settings: Settings, console: Console, *, leave: bool, seed: int | None, stop: StopRequest
    ) -> None:
        self.exit_code = 1
        self._settings = settings
        self._console = console
        self._leave = leave
        self._seed = seed
        self._stop = stop
        self._view: RunView | None = None

    def start(self, client: Client, dashboard_url: str | None) -> None:
        threading.Thread(target=self._run, args=(client, dashboard_url), daemon=True).start()

    def hide(self) -> None:
        """Take the live line away before anything else is printed."""
        if self._view is not None:
            self._view.close()

    def _run(self, client: Client, dashboard_url: str | None) -> None:
        try:
            job = self._follow(client, dashboard_url)
        except (ApiError, httpx.HTTPError) as error:
            if not self._stop.count:
                self._console.print(f"The demo job cannot be followed: {error}", style="red", markup=False)
            self._stop.ask()
            return
        self.exit_code = 0 if job.status == SUCCEEDED else 1
        self._tell(job)
        if self._leave:
            self._stop.ask()
        else:
            self._console.print("\nThe service stays up; Ctrl-C stops all of it.", style="bold")

    def _follow(self, client: Client, dashboard_url: str | None) -> Job:
        spec = yaml.safe_load(DEMO_SPEC.read_text(encoding="utf-8"))
        if self._seed is not None:
            spec["seed"] = self._seed
        job = client.submit(spec)
        self._console.print(f"Submitted {job.id}", highlight=False)
        if dashboard_url is not None:
            self._console.print(f"Watch it: {dashboard_url}/?job={job.id}\n", style="bold", highlight=False)

        def remember(view: RunView) -> None:
            self._view = view

        return follow(client, job.id, self._console, on_view=remember)

    def _tell(self, job: Job) -> None:
        tell_outcome(job, self._console)
        if job.status == SUCCEEDED:
            text = what_next(self._settings, job.id, service_stays=not self._leave)
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def what_next(settings: Settings, job_id: str, *, service_stays: bool) -> str:
    """Where the model lies, and three commands to go on with."""
    base = settings.artifacts_url.removeprefix("file://")
    student = f"{base}/jobs/{job_id}/student"
    question = "Ann has 12 apples . First she gets 5 . Then she gives 3 . How many ?"
    code = (
        "from transformers import pipeline; "
        f'write = pipeline("text-generation", {json.dumps(student)}, max_new_tokens=48); '
        f'print(write("{question}")[0]["generated_text"])'
    )
    opd, spec = program("opd"), demo_file()
    first = "" if service_stays else f"{opd} up      # and in another terminal:\n  "
    return f"""
Model   {student}
Report  {base}/jobs/{job_id}/report.md

What to try next:
  {first}{opd} submit {spec} --set recipe=reverse-kl --watch
  {opd} train {spec} --out runs/first --set seed=1
  {program("python")} -c {shlex.quote(code)}"""


def _say(console: Console) -> Any:
    return lambda text: console.print(text, markup=False, highlight=False)
