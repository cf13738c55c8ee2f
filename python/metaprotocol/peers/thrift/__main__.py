"""Thrift servers and a client of ``greeter.thrift`` to follow the examples with.

    python -m metaprotocol.peers.thrift serve v1=21991 v2=21992
    python -m metaprotocol.peers.thrift call --method greet --header user=ann

Servers take THeader and every framing and encoding. The client speaks THeader if it is given
headers, else framed binary.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack

from metaprotocol.peers.commands import (
    LOOPBACK,
    pair,
    report,
    say,
    serve_parser,
    told,
    wait_for_end,
)
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer, ApplicationError
from metaprotocol.peers.thrift.recorder import Recorder
from metaprotocol.peers.thrift.server import Framing, Record

METHODS = ("greet", "add", "store")


def main() -> int:
    """Runs the command that the process's arguments name; the exit code."""
    options = parser().parse_args()
    try:
        return asyncio.run(_serve(options)) if options.command == "serve" else _call(options)
    except OSError as error:
        return told(error)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(prog="python -m metaprotocol.peers.thrift", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = made.add_subparsers(dest="command", required=True)
    serve_parser(commands, "Thrift servers that answer with their name")
    call = commands.add_parser("call", help="call a server, through a proxy or not")
    call.add_argument("--host", default=LOOPBACK, help="default: %(default)s")
    call.add_argument("--port", type=int, default=9090, help="default: %(default)s")
    call.add_argument("--method", choices=METHODS, default="greet", help="default: %(default)s")
    call.add_argument("--service", default="", help="makes the method's name multiplexed")
    call.add_argument("--header", action="append", type=pair, default=[], metavar="KEY=VALUE")
    call.add_argument("--count", type=int, default=1, help="how many calls (default: 1)")
    return made


async def _serve(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        for endpoint in options.endpoints:
            handler = Recorder(endpoint.name, _log(endpoint.name) if options.log else None)
            server = stack.enter_context(
                ApacheServer({"": handler}, Framing.HEADER, port=endpoint.port, host=options.host)
            )
            say(f"{endpoint.name} answers Thrift calls on {options.host}:{server.port}")
        await wait_for_end(options.until_stdin_ends)
    return 0


def _log(name: str) -> Callable[[str], None]:
    return lambda method: say(f"{name} gets {method}")


def _call(options: argparse.Namespace) -> int:
    answers = []
    failed = False
    framing = Framing.HEADER if options.header else Framing.FRAMED
    with ApacheClient(options.port, framing, service=options.service, host=options.host) as client:
        client.headers = dict(options.header)
        for _ in range(options.count):
            try:
                answers.append(call_once(client, options.method))
            except ApplicationError as error:
                answers.append(f"{type(error).__name__}: {error}")
                failed = True
    report(answers)
    return int(failed)


def call_once(client: ApacheClient, method: str) -> str:
    """The answer in words."""
    match method:
        case "add":
            return f"1 + 2 = {client.add(1, 2)}"
        case "store":
            return f"stored by {client.store(Record('book')).notes.get('by')}"
        case _:
            return client.greet("you")


if __name__ == "__main__":
    sys.exit(main())
