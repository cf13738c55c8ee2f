"""A worker watched: its events counted, its crashes saved and made small."""

from __future__ import annotations

import hashlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from metaprotocol.fuzz.targets import Target
from metaprotocol.fuzz.worker import Job, Slot, as_argument, broken_rule

__all__ = [
    "MOST_FINDINGS",
    "Campaign",
    "Finding",
    "Progress",
    "check_one",
    "fuzz",
    "saved",
    "shortened",
]

MOST_FINDINGS = 10
"""After so many, a campaign ends before its time."""

# Without a word for so long, a worker hangs.
_SILENT_SECONDS = 30.0
_MINIMIZE_SECONDS = 8.0


@dataclass(frozen=True)
class Finding:
    """An input that breaks a rule."""

    rule: str
    side: str
    data: bytes
    file: Path | None = None
    reproduce: tuple[str, ...] = ()
    """The command that shows it again, if that is another than ``metaprotocol conformance``."""


@dataclass
class Progress:
    """How far it is."""

    executions: int = 0
    messages: int = 0
    corpus: int = 0
    coverage: int | None = None
    """Places in the code that were reached; None where none are counted."""
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Inputs a second."""
        return self.executions / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Campaign:
    """What to do."""

    target: Target
    seconds: float = 60.0
    seed: int = 1
    corpus: Path | None = None
    """Inputs to begin with; what shows something new is added."""
    crashes: Path = Path("crashes")
    engine: str = "builtin"
    side: str = ""


def fuzz(campaign: Campaign, show: Callable[[Progress], None] = lambda _: None) -> Progress:
    """Runs it to its end; what was found is saved, and made small."""
    progress = Progress()
    begin = time.monotonic()
    seed = campaign.seed
    with tempfile.TemporaryDirectory() as scratch:
        while (left := campaign.seconds - (time.monotonic() - begin)) > 0:
            job = Job(
                target=campaign.target,
                seed=seed,
                seconds=left,
                slot=str(Path(scratch) / "input"),
                corpus=str(campaign.corpus or ""),
                engine=campaign.engine,
                direction=campaign.side,
            )
            died = _run(job, campaign, progress, begin, show)
            if not died:
                break
            # The same seed would die of the same input.
            seed += 1
            if died not in {found.rule for found in progress.findings}:
                side, data = Slot(Path(job.slot)).get()
                progress.findings.append(Finding(died, side, data))
            if len(progress.findings) >= MOST_FINDINGS:
                break
    progress.seconds = time.monotonic() - begin
    progress.findings = [saved(_minimized(item, campaign), campaign) for item in progress.findings]
    return progress


def _run(
    job: Job,
    campaign: Campaign,
    progress: Progress,
    begin: float,
    show: Callable[[Progress], None],
) -> str:
    """Why the worker died; "" if it ended."""
    Slot(Path(job.slot), create=True)
    events: queue.Queue[str | None] = queue.Queue()
    executions, messages = progress.executions, progress.messages
    with subprocess.Popen(
        [sys.executable, "-m", "metaprotocol.fuzz.worker", as_argument(job)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        reader = threading.Thread(target=_read, args=(process, events), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    line = events.get(timeout=_SILENT_SECONDS)
                except queue.Empty:
                    process.kill()
                    process.wait()
                    return "the codec does not come to an end"
                if line is None:
                    break
                event = json.loads(line)
                match event["event"]:
                    case "stats":
                        progress.executions = executions + event["executions"]
                        progress.messages = messages + event["messages"]
                        progress.corpus = max(progress.corpus, event["corpus"])
                    case "new":
                        _keep(campaign, event["side"], bytes.fromhex(event["data"]))
                    case "broken":
                        found = Finding(event["rule"], event["side"], bytes.fromhex(event["data"]))
                        if found.rule not in {item.rule for item in progress.findings}:
                            progress.findings.append(found)
                progress.seconds = time.monotonic() - begin
                show(progress)
        except BaseException:
            process.kill()
            raise
        code = process.wait()
    if code < 0:
        return f"the codec ends the process: {signal.Signals(-code).name}"
    return f"the worker ends with {code}" if code else ""


def _read(process: subprocess.Popen[str], events: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        events.put(line)
    events.put(None)


def _keep(campaign: Campaign, side: str, data: bytes) -> None:
    if campaign.corpus is not None:
        folder = campaign.corpus / side
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)


def check_one(target: Target, side: str, data: bytes) -> str:
    """The rule that one input breaks, in a process of its own; "" if none."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "input"
        path.write_bytes(data)
        argument = json.dumps([asdict(target), side, str(path)])
        try:
            done = subprocess.run(
                [sys.executable, "-m", "metaprotocol.fuzz.campaign", argument],
                capture_output=True,
                text=True,
                timeout=_SILENT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "the codec does not come to an end"
    if done.returncode < 0:
        return f"the codec ends the process: {signal.Signals(-done.returncode).name}"
    return done.stdout.strip()


def _minimized(finding: Finding, campaign: Campaign) -> Finding:
    """The same with as few bytes as can be found in some seconds."""
    kills = finding.rule.startswith("the codec")
    codec = None if kills else campaign.target.codec()

    def breaks(data: bytes) -> bool:
        if codec is None:
            return check_one(campaign.target, finding.side, data) == finding.rule
        return broken_rule(codec, finding.side, data)[0] == finding.rule

    if not breaks(finding.data):
        return finding
    return replace(finding, data=shortened(finding.data, breaks, _MINIMIZE_SECONDS))


def shortened(data: bytes, breaks: Callable[[bytes], bool], seconds: float) -> bytes:
    """What still ``breaks`` of the data: fewer bytes, and zeros where they do."""
    end = time.monotonic() + seconds
    size = max(1, len(data) // 2)
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if breaks(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    for at in range(len(data)):
        simpler = data[:at] + b"\0" + data[at + 1 :]
        if time.monotonic() < end and data[at] and breaks(simpler):
            data = simpler
    return data


def saved(finding: Finding, campaign: Campaign, command: Sequence[str] = ()) -> Finding:
    """In a file of its own, which comes last in the ``command`` that shows it again."""
    campaign.crashes.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(finding.data).hexdigest()[:12]
    file = campaign.crashes / f"{campaign.target.name}-{finding.side}-{digest}"
    file.write_bytes(finding.data)
    return replace(finding, file=file, reproduce=(*command, str(file)) if command else ())


def main() -> None:
    """Checks one input, for ``check_one``."""
    target, side, path = json.loads(sys.argv[1])
    codec = Target(**target).codec()
    sys.stdout.write(broken_rule(codec, side, Path(path).read_bytes())[0])


if __name__ == "__main__":
    main()
