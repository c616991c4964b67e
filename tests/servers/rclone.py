"""`rclone serve s3`: what speaks S3, and honours neither conditions nor ranges."""

from __future__ import annotations

import contextlib
import pathlib

from tests.servers import environment, processes

ACCESS, SECRET = "vimgvc-tests-access", "vimgvc-tests-secret"


def run(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Start it; returns endpoint and credentials. Raises `processes.Failed`."""
    (folder / "data").mkdir()
    port, log = processes.free_port(), folder / "words"
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS},{SECRET}", "--config", str(folder / "none")]
    rclone = str(environment.programs() / "rclone")
    process = processes.start(stack, log, [rclone, "serve", "s3", *options, str(folder / "data")])
    processes.wait_until(lambda: processes.listens(port), process, log)
    return {"endpoint": f"http://127.0.0.1:{port}", "access": ACCESS, "secret": SECRET, "region": "us-east-1"}
