"""Faults that a person can fix: a sentence, what to do, and the process's exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import PurePath
from typing import ParamSpec, TextIO, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from metaprotocol.diagnostics import printable
from metaprotocol.envoy.binary import EnvoyNotFound, ModuleNotFound
from metaprotocol.envoy.descriptors import DescriptorError
from metaprotocol.envoy.process import EnvoyError

P = ParamSpec("P")
R = TypeVar("R")

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class ExitCode(IntEnum):
    """What the process's exit code says; docs/cli.md has the same table."""

    OK = 0
    PROBLEM = 1
    """The resources have an error, or Envoy refuses what they ask for."""
    USAGE = 2
    """A wrong option or argument, or a folder that does not exist."""
    ENVIRONMENT = 3
    """Something is missing on this machine: Envoy, the module, a free port."""
    UNREACHABLE = 4
    """A running Envoy or server did not answer, or answered the call with an error."""


EXIT_CODES = (
    "[bold]Exit codes[/bold]: 0 ok, 1 a problem in the resources, 2 wrong usage, 3 something is "
    "missing on this machine, 4 a running Envoy or server does not answer."
)
"""For the end of every help page."""


class Failure(Exception):
    """A foreseeable fault. ``fix`` says what to do, as a sentence."""

    def __init__(self, code: ExitCode, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


def report(failure: Failure, as_json: bool) -> None:
    """Writes the fault to standard error, or as an object to standard output; what cannot be
    written there is told by the exit code alone."""
    try:
        _write(failure, as_json)
    except OSError:
        silence(sys.stdout)
        if as_json:
            report(failure, as_json=False)
        else:
            silence(sys.stderr)


def silence(stream: TextIO | None) -> None:
    """Has what a stream still holds, and all that follows, written nowhere."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def unwritable(error: OSError) -> Failure:
    """What the operating system says of a file, or of standard output if it names none: a full
    disk, a folder that is gone. Nothing of ours, and a person's to fix."""
    said = error.strerror or str(error) or type(error).__name__
    if error.filename:
        return Failure(ExitCode.ENVIRONMENT, f"{error.filename}: {said}.")
    if error.errno in _OF_WRITING:
        return Failure(
            ExitCode.ENVIRONMENT,
            f"What is to be written is not taken: {said}.",
            "Have standard output, or the file that an option names, where there is room.",
        )
    return Failure(ExitCode.ENVIRONMENT, f"{said}.")


def _write(failure: Failure, as_json: bool) -> None:
    if as_json:
        # In one line, like the events of `run` and `serve`.
        content = {
            "event": "failure",
            "error": failure.message,
            "fix": failure.fix,
            "exit_code": int(failure.code),
        }
        typer.echo(json.dumps(content))
        return
    console = Console(stderr=True, highlight=False)
    console.print(Text(printable(failure.message), style="red"), soft_wrap=True)
    if failure.fix:
        console.print(Text(printable(failure.fix)), soft_wrap=True)


def foreseeable(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose foreseeable faults end it with a sentence and an exit code, not with a
    traceback. Its parameter ``as_json``, if it has one, says how they are written."""

    @functools.wraps(command)
    def guarded(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            _check_text(options)
            return command(*arguments, **options)
        except Failure as failure:
            fault = failure
        except (EnvoyNotFound, ModuleNotFound, DescriptorError) as error:
            fault = Failure(
                ExitCode.ENVIRONMENT,
                _sentence(error),
                "'metaprotocol doctor' checks everything that is needed.",
            )
        except EnvoyError as error:
            fault = Failure(ExitCode.ENVIRONMENT, _sentence(error))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output has gone, as `head` does.
            raise typer.Exit(ExitCode.OK) from None
        except OSError as error:
            fault = unwritable(error)
        report(fault, bool(options.get("as_json")))
        raise typer.Exit(fault.code)

    return guarded


def _check_text(options: dict[str, object]) -> None:
    """No argument of a process has a NUL in it; one that is given otherwise would be cut by the
    operating system, or surprise whoever takes it for a path."""
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str | PurePath) and "\0" in str(item):
                option = name.replace("_", "-")
                raise Failure(ExitCode.USAGE, f"The value of {option} has a NUL character.")


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
