"""``fuzz`` and ``conformance``: whether a codec keeps the rules that the engine relies on."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from xml.etree import ElementTree

import typer

from metaprotocol.cli.codecs import complete_protocol
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, line, stderr, stdout, write_json

if TYPE_CHECKING:
    from metaprotocol.fuzz.campaign import Campaign, Finding, Progress
    from metaprotocol.fuzz.targets import Target

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}

TargetName = Annotated[
    str,
    typer.Argument(
        metavar="CODEC|FILE",
        help="A codec, a codec library, or a YAML file with a declaration.",
        autocompletion=complete_protocol,
        show_default=False,
    ),
]


class Engine(StrEnum):
    """Where random inputs come from."""

    BUILTIN = "builtin"
    HYPOTHESIS = "hypothesis"
    ATHERIS = "atheris"
    LIBFUZZER = "libfuzzer"


class Side(StrEnum):
    """Whose messages."""

    REQUEST = "request"
    RESPONSE = "response"


@foreseeable
def fuzz(
    codec: TargetName,
    time: Annotated[str, typer.Option(help="How long: 60s, 10m, 1h.")] = "60s",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same inputs.")] = 1,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Inputs to begin with; what shows something new is added.", show_default=False
        ),
    ] = None,
    crashes: Annotated[Path, typer.Option(help="Where inputs go that break a rule.")] = Path(
        "crashes"
    ),
    engine: Annotated[
        Engine,
        typer.Option(
            help="What makes inputs. hypothesis and atheris have to be installed; libfuzzer needs "
            "clang and the codec's source: a checkout, or a folder of 'metaprotocol new codec'."
        ),
    ] = Engine.BUILTIN,
    side: Annotated[
        Side | None, typer.Option(help="Only what this side sends.", show_default=False)
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write a JUnit report.", show_default=False)
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(help="Also write a SARIF report.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Random bytes into a codec, until one breaks a rule or the time is over."""
    from metaprotocol.fuzz.campaign import Campaign
    from metaprotocol.fuzz.campaign import fuzz as run

    target = find_target(codec)
    if engine in (Engine.HYPOTHESIS, Engine.ATHERIS):
        _need(engine.value)
    campaign = Campaign(
        target,
        seconds=_seconds(time),
        seed=seed,
        corpus=corpus,
        crashes=crashes,
        engine=engine.value,
        side=side.value if side else "",
    )
    live = sys.stderr.isatty() and not as_json

    def show(progress: Progress) -> None:
        if live:
            sys.stderr.write(f"\r\x1b[K{_status(progress)}")
            sys.stderr.flush()

    if engine is Engine.LIBFUZZER:
        progress = _with_libfuzzer(campaign, show)
    else:
        progress = run(campaign, show)
    if live:
        sys.stderr.write("\r\x1b[K")
    _report(codec, target, progress, junit, sarif, as_json)


@foreseeable
def conformance(
    codec: TargetName,
    vectors: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders with captured messages.", show_default=False),
    ] = None,
    side: Annotated[
        Side | None,
        typer.Option(
            help="Whose messages they are; else told by 'request' or 'response' in their names.",
            show_default=False,
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write a JUnit report.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """A codec with captured messages, with each byte of them broken, and with made-up ones."""
    from metaprotocol.fuzz.campaign import Progress
    from metaprotocol.fuzz.conformance import check

    target = find_target(codec)
    progress = Progress()
    try:
        check(target, vectors or [], side.value if side else "", progress)
    except FileNotFoundError as error:
        raise Failure(ExitCode.USAGE, f"{error.filename} does not exist.") from None
    except OSError as error:
        message = f"{error.filename} cannot be read: {error.strerror}."
        raise Failure(ExitCode.USAGE, message) from None
    _report(codec, target, progress, junit, None, as_json)


def find_target(name: str) -> Target:
    """The codec, or the declaration, of that name; Failure if there is none."""
    try:
        from metaprotocol.fuzz.targets import UnknownTarget, find
    except ImportError as error:
        raise Failure(
            ExitCode.ENVIRONMENT,
            f"The engine's Python binding cannot be loaded: {error}.",
            "Build it with 'make native' in a checkout, or 'pip install .'.",
        ) from None
    try:
        return find(name)
    except UnknownTarget as error:
        text = str(error)
        raise Failure(ExitCode.USAGE, f"{text[:1].upper()}{text[1:]}.") from None


def _with_libfuzzer(campaign: Campaign, show: Callable[[Progress], None]) -> Progress:
    from metaprotocol.fuzz.libfuzzer import fuzz as run
    from metaprotocol.fuzz.programs import NotPossible, built

    try:
        program = built(campaign.target, lambda text: line(stderr(), text))
    except NotPossible as error:
        text = str(error)
        raise Failure(
            ExitCode.ENVIRONMENT,
            f"{text[:1].upper()}{text[1:]}.",
            "--engine builtin needs nothing but the package.",
        ) from None
    return run(campaign, program, show)


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Failure(
            ExitCode.ENVIRONMENT,
            f"{module} is not installed.",
            f"pip install {module} brings it; --engine builtin needs nothing.",
        )


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise Failure(ExitCode.USAGE, f"--time {text!r} is no duration.", "Write 60s, 10m or 1h.")
    return float(found[1]) * _UNITS[found[2]]


def _status(progress: Progress) -> str:
    coverage = "" if progress.coverage is None else f"coverage {progress.coverage}, "
    return (
        f"{progress.seconds:.0f} s, {progress.executions} inputs, "
        f"{progress.per_second:.0f} a second, {progress.messages} messages, {coverage}"
        f"corpus {progress.corpus}, {len(progress.findings)} broken"
    )


def _report(
    name: str,
    target: Target,
    progress: Progress,
    junit: Path | None,
    sarif: Path | None,
    as_json: bool,
) -> None:
    if junit is not None:
        junit.write_bytes(_junit(target, progress))
    if sarif is not None:
        import json

        sarif.write_text(json.dumps(_sarif(progress), indent=2))
    if as_json:
        write_json(
            {
                "target": target.name,
                "executions": progress.executions,
                "executions_per_second": round(progress.per_second),
                "messages": progress.messages,
                "corpus": progress.corpus,
                "coverage": progress.coverage,
                "findings": [
                    {
                        "rule": item.rule,
                        "side": item.side,
                        "bytes": item.data.hex(),
                        "file": str(item.file or ""),
                        "reproduce": reproducer(name, item),
                    }
                    for item in progress.findings
                ],
            }
        )
    else:
        line(stdout(), f"{target.name}: {_status(progress)}")
        for item in progress.findings:
            line(stderr(), f"{item.side}: {item.rule}", "red")
            line(
                stderr(),
                f"  {len(item.data)} bytes in {item.file or 'memory'}: {_shown(item.data)}",
            )
            line(stderr(), f"  {reproducer(name, item)}")
    if progress.findings:
        raise typer.Exit(ExitCode.PROBLEM)


def reproducer(name: str, finding: Finding) -> str:
    """The command that shows it again."""
    if finding.file is None:
        return ""
    if finding.reproduce:
        return shlex.join(finding.reproduce)
    file = shlex.quote(str(finding.file))
    return f"metaprotocol conformance {shlex.quote(name)} {file} --side {finding.side}"


def _shown(data: bytes) -> str:
    return data[:48].hex(" ") + (" ..." if len(data) > 48 else "")


def _junit(target: Target, progress: Progress) -> bytes:
    count = str(len(progress.findings))
    suite = ElementTree.Element(
        "testsuite",
        name=f"metaprotocol {target.name}",
        tests=str(max(1, len(progress.findings))),
        failures=count,
        time=f"{progress.seconds:.3f}",
    )
    if not progress.findings:
        ElementTree.SubElement(suite, "testcase", name=f"{progress.executions} inputs")
    for item in progress.findings:
        case = ElementTree.SubElement(suite, "testcase", name=f"{item.side}: {item.rule}")
        failure = ElementTree.SubElement(case, "failure", message=item.rule)
        failure.text = item.data.hex()
    written: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written


def _sarif(progress: Progress) -> dict[str, Any]:
    from metaprotocol.cli.reports import sarif
    from metaprotocol.cli.version import package_version
    from metaprotocol.diagnostics import Diagnostic, Severity

    found = [
        Diagnostic(Severity.ERROR, f"{item.side}: {item.rule}", code="codec-rule")
        for item in progress.findings
    ]
    return sarif(found, package_version())
