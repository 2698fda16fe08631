"""An S3 server of our own on a loopback port (moto speaks it over real HTTP), or the one of OPD_TEST_S3_URL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.ports import free_port
from worker.leash import leashed


@dataclass(frozen=True)
class S3:
    """``url`` is a bucket of its own; ``environment`` is what a process needs to reach it."""

    url: str
    environment: dict[str, str]


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server with an empty bucket, gone afterwards."""
    if url := os.environ.get("OPD_TEST_S3_URL"):  # its credentials are in the environment already
        yield S3(f"{url}/{uuid.uuid4().hex}", {})
        return
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        leashed(command, signal=signal.SIGKILL), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server)
        bucket = f"opd-{uuid.uuid4().hex[:12]}"
        httpx.put(f"{address}/{bucket}", timeout=30.0).raise_for_status()
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Nothing of the developer's own.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        yield S3(f"s3://{bucket}/artifacts", environment)
    finally:
        server.kill()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120.0
    while True:
        try:
            httpx.get(address, timeout=5.0)
        except httpx.TransportError:
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.1)
        else:
            return
