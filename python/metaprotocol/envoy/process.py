"""Running one Envoy: start it, wait until it serves, ask its admin page, stop it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from metaprotocol.envoy.binary import EnvoyBinary, ModuleNotFound, find_envoy, find_module
from metaprotocol.errors import Error

_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 30
_INVENTORY = re.compile(r"server\.cc:\d+\] {3}\S+: ")


class EnvoyError(Error, RuntimeError):
    """Envoy did not start, ended by itself, or refused what it was asked; has the log's tail."""


class EnvoyProcess:
    """A running Envoy, as a context manager.

    ``config`` is the bootstrap in JSON form; its admin address should have port 0, as should
    listeners: ``admin_port`` and ``listener_port`` tell which ports the kernel gave, so that any
    number of these can run side by side. ``module_dir``, by default the folder of our own module,
    is searched for modules that the configuration names without a path. Everything the process
    writes is in ``directory`` (a temporary one unless given; removed on exit if it was temporary):
    ``envoy.log``, ``bootstrap.json``.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        binary: EnvoyBinary | None = None,
        module_dir: Path | None = None,
        concurrency: int = 1,
        log_level: str = "info",
        directory: Path | None = None,
        ready_timeout: float = 30.0,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._binary = binary
        self._module_dir = module_dir
        self._concurrency = concurrency
        self._log_level = log_level
        self._directory = directory
        self._ready_timeout = ready_timeout
        self._arguments = arguments
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_port = 0
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self.clean()

    @property
    def directory(self) -> Path:
        """The folder with this process's files."""
        if self._directory is None:
            self._temporary = self._directory = Path(tempfile.mkdtemp(prefix="metaprotocol-envoy-"))
        return self._directory

    @property
    def pid(self) -> int:
        """The process id; EnvoyError if it was not started."""
        return self._running().pid

    @property
    def admin_port(self) -> int:
        """The TCP port of the admin page, on loopback."""
        return self._admin_port

    @property
    def returncode(self) -> int | None:
        """How the process ended; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    # --- life

    def start(self) -> None:
        """Starts Envoy and waits until it serves. EnvoyError, with the log's tail, if it does not
        within ``ready_timeout`` seconds."""
        if self._process is not None:
            raise EnvoyError("it was started already")
        binary = self._binary or find_envoy()
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "bootstrap.json"
        config.write_text(json.dumps(self._config, indent=1))
        admin_path = directory / "admin-address"
        admin_path.unlink(missing_ok=True)
        command = [
            str(binary.path),
            *("--config-path", str(config)),
            *("--admin-address-path", str(admin_path)),
            *("--concurrency", str(self._concurrency)),
            *("--log-level", self._log_level),
            *("--file-flush-interval-msec", "100"),
            "--use-dynamic-base-id",
            *self._arguments,
        ]
        environment = {**os.environ, **self._environment}
        # Envoy 1.38 finds modules by name only, whatever path the configuration has as well.
        with contextlib.suppress(ModuleNotFound):
            folder = self._module_dir or find_module().parent
            environment["ENVOY_DYNAMIC_MODULES_SEARCH_PATH"] = str(folder)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=directory,
                # Ctrl-C in a terminal is for this program, which then stops Envoy in order.
                start_new_session=True,
            )
        try:
            self._wait_ready(admin_path)
        except BaseException:
            self.stop(grace=1.0)
            raise

    def stop(self, grace: float = 10.0) -> int | None:
        """Ends the process: SIGTERM, and SIGKILL if it has not gone after ``grace`` seconds.
        Returns its exit code, None if it was never started. May be called again."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def clean(self) -> None:
        """Removes the folder if it was a temporary one."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = self._directory = None

    def check(self) -> None:
        """EnvoyError if the process has ended by itself."""
        self._running()

    # --- log

    @property
    def log_path(self) -> Path:
        """Where Envoy's log is written."""
        return self.directory / "envoy.log"

    def log(self) -> str:
        """The log so far."""
        with contextlib.suppress(OSError):
            return self.log_path.read_text(errors="replace")
        return ""

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """The log's last lines, shortened, without Envoy's list of everything compiled into it."""
        kept = [line for line in self.log().splitlines() if not _INVENTORY.search(line)]
        return "\n".join(line[:500] for line in kept[-lines:])

    # --- admin

    def admin(self, path: str, method: str = "GET", timeout: float = 10.0) -> str:
        """What the admin page at ``path`` answers; EnvoyError if not with status 200."""
        status, text = self._admin(path, method, timeout)
        if status != http.client.OK:
            raise EnvoyError(f"admin {path} answered {status}: {text.strip()}")
        return text

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges by name, those whose name matches the regular expression."""
        values = {}
        for line in self.admin(_filtered("/stats", pattern)).splitlines():
            name, _, value = line.rpartition(": ")
            with contextlib.suppress(ValueError):
                values[name] = int(value)
        return values

    def stats_prometheus(self, pattern: str = "") -> str:
        """/stats/prometheus, the metrics whose name matches the regular expression."""
        return self.admin(_filtered("/stats/prometheus", pattern))

    def clusters(self) -> dict[str, Any]:
        """/clusters: hosts with their health and counters."""
        return self._json("/clusters?format=json")

    def config_dump(self) -> dict[str, Any]:
        """/config_dump: the configuration in force."""
        return self._json("/config_dump")

    def listener_port(self, name: str) -> int:
        """The TCP port that the listener accepts connections on; EnvoyError if there is none."""
        for listener in self._json("/listeners?format=json").get("listener_statuses", []):
            port = listener["local_address"].get("socket_address", {}).get("port_value")
            if listener["name"] == name and port:
                return int(port)
        raise EnvoyError(f"no TCP listener {name!r} is active\n{self.log_tail()}")

    def drain_listeners(self, graceful: bool = True) -> None:
        """Tells Envoy to drain all listeners, as an orchestrator does before it stops a pod."""
        self.admin("/drain_listeners?graceful" if graceful else "/drain_listeners", "POST")

    # --- inner parts

    def _json(self, path: str) -> dict[str, Any]:
        value = json.loads(self.admin(path))
        if not isinstance(value, dict):
            raise EnvoyError(f"admin {path} answered no object")
        return value

    def _admin(self, path: str, method: str, timeout: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self._running()
            raise EnvoyError(f"admin {path} did not answer: {error!r}") from error
        finally:
            connection.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EnvoyError("Envoy was not started")
        if (code := self._process.poll()) is not None:
            raise EnvoyError(f"Envoy ended {_how(code)}; its log ends:\n{self.log_tail()}")
        return self._process

    def _wait_ready(self, admin_path: Path) -> None:
        deadline = time.monotonic() + self._ready_timeout
        state = "it opened no admin page"
        while time.monotonic() < deadline:
            self._running()
            if self._admin_port == 0:
                with contextlib.suppress(OSError, ValueError):
                    self._admin_port = int(admin_path.read_text().rpartition(":")[2])
            if self._admin_port:
                with contextlib.suppress(EnvoyError):
                    status, text = self._admin("/ready", "GET", 2.0)
                    state = f"its state is {text.strip()}"
                    if status == http.client.OK:
                        return
            time.sleep(_POLL_SECONDS)
        raise EnvoyError(
            f"Envoy was not ready after {self._ready_timeout} s: {state}; its log ends:\n"
            f"{self.log_tail()}"
        )


def _filtered(path: str, pattern: str) -> str:
    return f"{path}?filter={quote(pattern)}" if pattern else path


def _how(code: int) -> str:
    return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
