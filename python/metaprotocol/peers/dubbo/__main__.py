"""Dubbo providers and a consumer to follow the examples with.

python -m metaprotocol.peers.dubbo serve v1=21881 v2=21882
python -m metaprotocol.peers.dubbo call --method list --count 100
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from metaprotocol.dubbo.client import Reply
from metaprotocol.peers.commands import (
    LOOPBACK,
    pair,
    report,
    say,
    serve_parser,
    told,
    wait_for_end,
)
from metaprotocol.peers.dubbo import Call, DubboClient, DubboError, DubboException, DubboServer
from metaprotocol.peers.dubbo.shop import INTERFACE, Shop

_IN_FLIGHT = 16


def main() -> int:
    """Runs the command that the process's arguments name; the exit code."""
    options = parser().parse_args()
    try:
        if options.command == "serve":
            return asyncio.run(_serve(options))
        return asyncio.run(_call(options))
    except OSError as error:
        return told(error)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(prog="python -m metaprotocol.peers.dubbo", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = made.add_subparsers(dest="command", required=True)
    serve_parser(commands, "Dubbo providers that answer any call with their name")
    call = commands.add_parser("call", help="call a provider, through a proxy or not")
    call.add_argument("--host", default=LOOPBACK, help="default: %(default)s")
    call.add_argument("--port", type=int, default=20880, help="default: %(default)s")
    call.add_argument("--interface", default=INTERFACE, help="default: %(default)s")
    call.add_argument("--method", default="list", help="default: %(default)s")
    call.add_argument("--version", default="0.0.0", help="of the service")
    call.add_argument("--group")
    call.add_argument("--arg", action="append", default=[], help="an argument, as JSON or text")
    call.add_argument("--attachment", action="append", type=pair, default=[], metavar="KEY=VALUE")
    call.add_argument("--count", type=int, default=1, help="how many calls (default: 1)")
    call.add_argument("--show-attachments", action="store_true", help="those of the reply, too")
    return made


async def _serve(options: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        for endpoint in options.endpoints:
            shop = Shop(endpoint.name, _log(endpoint.name) if options.log else None)
            made = DubboServer(shop, host=options.host, port=endpoint.port)
            server = await stack.enter_async_context(made)
            say(f"{endpoint.name} answers Dubbo calls on {options.host}:{server.port}")
        await wait_for_end(options.until_stdin_ends)
    return 0


def _log(name: str) -> Callable[[Call], None]:
    return lambda call: say(f"{name} gets {call.interface}.{call.method}")


async def _call(options: argparse.Namespace) -> int:
    """Keeps some calls in flight on one connection. Exit code 1 if one failed."""
    arguments = [_argument(text) for text in options.arg]
    left = iter(range(options.count))
    answers: list[str] = []
    failed = False

    async def caller(client: DubboClient) -> None:
        nonlocal failed
        for _ in left:
            try:
                reply = await client.call(
                    options.interface,
                    options.method,
                    *arguments,
                    version=options.version,
                    group=options.group,
                    attachments=dict(options.attachment),
                )
                answers.append(_text(reply, options.show_attachments))
            except (DubboError, DubboException, OSError) as error:
                answers.append(f"{type(error).__name__}: {error}")
                failed = True

    async with await DubboClient.connect(options.host, options.port) as client:
        await asyncio.gather(*(caller(client) for _ in range(_IN_FLIGHT)))
    report(answers)
    return int(failed)


def _text(reply: Reply, attachments: bool) -> str:
    value = reply.value
    text = _pairs(value) if isinstance(value, dict) else "null" if value is None else str(value)
    return f"{text}  [{_pairs(reply.attachments)}]" if attachments else text


def _pairs(values: dict[Any, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))


def _argument(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


if __name__ == "__main__":
    sys.exit(main())
