"""Stands in for the trainer: speaks its protocol, trains nothing. ``fake_trainer.py MODE --spec ... --attempt N``."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("mode")
parser.add_argument("--spec")
parser.add_argument("--out")
parser.add_argument("--attempt", type=int)
arguments = parser.parse_args()
spec = json.loads(Path(arguments.spec).read_text())


def say(**message):
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:  # a closed pipe alone does not end it
        return


def progress(step):
    say(type="progress", step=step, total=10, loss=1.0 / step, student_tokens=step, accuracy=None)


def checkpoint(step):
    file = {"name": "trainer.json", "size": 2, "sha256": "0" * 64}
    name = f"step-{step:06d}.a{arguments.attempt}"
    say(type="checkpoint", step=step, name=name, kind="training", size_bytes=2, files=[file])


def save(*_):
    checkpoint(step)


def stop_politely(*_):
    checkpoint(7)
    sys.exit(75)


print("free text of the trainer, token", os.environ.get("OPD_API_TOKEN"), file=sys.stderr, flush=True)
say(type="phase", phase="starting")
if arguments.mode == "cannot-import":
    sys.exit("ModuleNotFoundError: No module named 'torch'")
say(type="phase", phase="loading models")

if arguments.mode == "success":
    environment = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OPD_REDIS_URL")}
    say(type="event", level="info", name="environment", message="as seen", data=environment)
    say(type="phase", phase="training")
    progress(1)
    say(type="metrics", step=1, values={"loss": 0.5})
    checkpoint(1)
    say(type="accuracy", before=0.2, teacher=1.0)
    say(type="warning", message="a warning to keep")
    print("this is not a message", flush=True)
    say(type="phase", phase="finalizing")
    say(type="result", report={"accuracy": {"after": 0.9}, "seed": spec["seed"]})
elif arguments.mode == "user-error":
    error = {"code": "missing_column", "message": "there is no column 'x'", "param": "task.prompt_column"}
    say(type="error", error={**error, "category": "user", "retryable": False})
    sys.exit(2)
elif arguments.mode == "disk-full":
    error = {"code": "disk_full", "message": "the disk is full", "param": "checkpoints.keep_last"}
    say(type="error", error={**error, "category": "resource", "retryable": True})
    sys.exit(1)
elif arguments.mode == "teacher-gone":
    say(type="phase", phase="training")
    checkpoint(4)
    error = {"code": "teacher_unreachable", "message": "the teacher server 'big' is silent", "param": "teacher"}
    say(type="error", error={**error, "category": "resource", "retryable": True})
    sys.exit(75)
elif arguments.mode == "no-report":
    sys.exit(0)
elif arguments.mode == "crash":
    print("about to fail: password is hunter2-hunter2", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif arguments.mode == "argparse":
    sys.exit(2)  # what Python itself does on bad usage: no error line
elif arguments.mode == "loading":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
elif arguments.mode in ("polite", "deaf", "family"):
    step = 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN if arguments.mode == "deaf" else stop_politely)
    signal.signal(signal.SIGUSR1, save)
    if arguments.mode == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say(type="event", level="info", name="helper", message="has a helper process", data={"pid": child.pid})
    say(type="phase", phase="training")
    while True:
        step += 1
        progress(step)
        time.sleep(0.05)
