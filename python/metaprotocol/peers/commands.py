"""What the peers' command lines (``python -m metaprotocol.peers.dubbo`` and ``.thrift``) share."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """A server to be: what it calls itself, and its TCP port on loopback (0: any)."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From "v1=21881"; ArgumentTypeError if it is not like that."""
        name, equals, number = text.partition("=")
        if not name or not equals or not number.isdecimal() or int(number) > 65535:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT, such as v1=21881")
        return cls(name, int(number))


def pair(text: str) -> tuple[str, str]:
    """From "user=ann"; ArgumentTypeError if it is not like that."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as user=ann")
    return key, value


def say(text: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def told(error: OSError) -> int:
    """Says on standard error what is wrong with a port; the exit code."""
    why, text = os.strerror(error.errno or 0), str(error)
    sys.stderr.write(f"{text}\n" if why in text or not error.errno else f"{text}: {why}\n")
    return 1


LOOPBACK = "127.0.0.1"


def serve_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], what: str) -> None:
    """Adds the command ``serve``."""
    parser = commands.add_parser("serve", help=f"run {what}, until Ctrl-C", description=what)
    parser.add_argument(
        "endpoints",
        nargs="+",
        type=Endpoint.parse,
        metavar="NAME=PORT",
        help="what a server calls itself and its port, such as v1=21881 v2=21882",
    )
    parser.add_argument("--host", default=LOOPBACK, help="where to listen (default: %(default)s)")
    parser.add_argument("--log", action="store_true", help="a line for each call")
    parser.add_argument(
        "--until-stdin-ends",
        action="store_true",
        help="also stop when standard input ends, as it does with the process that holds it",
    )


async def wait_for_end(until_stdin_ends: bool) -> None:
    """Returns at SIGINT or SIGTERM, or when standard input ends if that is asked for."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    if until_stdin_ends:

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                end.set()

        loop.add_reader(sys.stdin.fileno(), read)
    await end.wait()


def report(answers: Sequence[str]) -> None:
    """Says each different answer with how often it came, the most frequent first; a single answer
    as it is."""
    counts = Counter(answers)
    width = len(f"{max(counts.values(), default=0):,}")
    for answer, number in counts.most_common():
        say(answer if len(answers) == 1 else f"{number:{width},}  {answer}")
