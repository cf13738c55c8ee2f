"""Streams through the engine's Python bindings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.testkit.built import built


def test_random_streams_through_the_bindings_keep_content_and_order() -> None:
    folder = built("_engine_streams") / "streams"
    script = Path(__file__).with_name("stream_world.py")
    done = subprocess.run(
        [sys.executable, script, folder, "1"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
