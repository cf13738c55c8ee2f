"""Asking the real Envoy whether it would load a configuration (``--mode validate``)."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

from google.protobuf.message import Message

from metaprotocol.envoy.binary import EnvoyBinary
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.process import EnvoyError

_TIMEOUT_SECONDS = 120.0
_LOG_PREFIX = re.compile(r"^\[[^\]]*\]\[\d+\]\[(\w+)\]\[[^\]]*\](?: \[[^\]]*\])? ?")


def check_with_envoy(binary: EnvoyBinary, types: EnvoyTypes, bootstrap: Message) -> str:
    """Why this Envoy refuses the bootstrap; "" if it accepts it. EnvoyError if it cannot be
    asked."""
    with tempfile.TemporaryDirectory(prefix="metaprotocol-validate-") as folder:
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(types.to_dict(bootstrap)))
        command = [str(binary.path), "--mode", "validate", "-c", str(path)]
        command += ["--log-level", "error"]
        try:
            finished = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
                cwd=folder,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvoyError(f"{binary.path} could not be asked: {error}") from error
    if finished.returncode == 0:
        return ""
    return _reasons(finished.stderr) or f"exit code {finished.returncode} without a reason"


def _reasons(log: str) -> str:
    """The log's errors, without time and place, each once."""
    kept: list[str] = []
    for text in log.splitlines():
        match = _LOG_PREFIX.match(text)
        if match and match.group(1) not in ("error", "critical"):
            continue
        reason = _LOG_PREFIX.sub("", text).strip()
        if reason and reason not in kept:
            kept.append(reason[:2000])
    return "\n".join(kept[:20])
