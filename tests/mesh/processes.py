"""Pods without containers: a network and mount namespace for each, joined by a bridge, and the
processes in them. All of it is inside the namespace of the test run, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NODE_ADDRESS = "10.244.0.1"
BRIDGE = "br0"


def command(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"


def make_node() -> None:
    """The namespace that this process is in becomes the node: loopback, and a bridge for pods."""
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", BRIDGE, "type", "bridge")
    command("ip", "addr", "add", f"{NODE_ADDRESS}/24", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")


class Process:
    """A process with its log, the leader of a group."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pipe: bool = False,
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self.popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else file,
                stderr=file,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                start_new_session=True,
                text=True,
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> None:
        """Ends it, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Pod:
    """The namespaces of a pod, with an address. They end with the process that holds them."""

    def __init__(self, name: str, address: str, number: int, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder
        folder.mkdir(parents=True)
        holder = ["unshare", "--net", "--mount", "sh", "-c", "echo ready; exec sleep infinity"]
        self._holder = Process(holder, folder / "holder.log", pipe=True)
        assert self._holder.popen.stdout is not None
        assert self._holder.popen.stdout.readline() == "ready\n"
        inside, outside = "eth0", f"pod{number}"
        command("ip", "link", "add", outside, "type", "veth", "peer", "name", "mpt-pod")
        command("ip", "link", "set", outside, "master", BRIDGE, "up")
        command("ip", "link", "set", "mpt-pod", "netns", str(self._holder.popen.pid))
        self.run("ip", "link", "set", "mpt-pod", "name", inside)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{address}/24", "dev", inside)
        self.run("ip", "link", "set", inside, "up")
        self.run("ip", "route", "add", "default", "via", NODE_ADDRESS)

    def _enter(self, cwd: Path | None = None) -> list[str]:
        # The folder by its path, as the pod sees it: one that is kept open across the change of
        # namespaces has none there, and Envoy takes no file that it cannot name.
        folder = f"--wdns={(cwd or Path.cwd()).resolve()}"
        return ["nsenter", "--target", str(self._holder.popen.pid), "--net", "--mount", folder]

    def run(self, *arguments: str) -> None:
        """Runs something to its end."""
        command(*self._enter(), *arguments)

    def start(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pipe: bool = False,
    ) -> Process:
        """Starts something."""
        return Process([*self._enter(cwd), *arguments], log, env=env, pipe=pipe)

    def close(self) -> None:
        self._holder.stop()


def wait_for(
    what: str, condition: Callable[[], object], process: Process | None = None, seconds: float = 90
) -> None:
    """Waits until it is so; what the process says if it ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.alive, f"{what}: ended\n{process.tail()}"
        tail = process.tail() if process is not None else ""
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{tail}"
        time.sleep(0.1)
