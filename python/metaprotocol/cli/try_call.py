"""``try``: which route and cluster a call would take, and why; and sending it for real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console

from metaprotocol.api.explain import Explanation, Tone
from metaprotocol.api.explain_redis import RedisExplanation, RedisSnapshot, explain_redis
from metaprotocol.api.rehearsal import MOST_CALLS
from metaprotocol.api.routing import FilterSnapshot
from metaprotocol.cli.calls import Answer, CallSpec, argument, metadata_of, pair, send
from metaprotocol.cli.codecs import codec_names, complete_protocol
from metaprotocol.cli.environment import (
    AllowUntestedEnvoy,
    EnvoyPath,
    Folder,
    check_folder,
    endpoint,
    environment,
)
from metaprotocol.cli.failures import ExitCode, Failure, foreseeable
from metaprotocol.cli.output import Json, has_errors, line, stderr, stdout, tally, write_json
from metaprotocol.diagnostics import did_you_mean, did_you_mean_host
from metaprotocol.errors import NotFound

Snapshot = FilterSnapshot | RedisSnapshot
_STYLES = {Tone.TITLE: "bold", Tone.GOOD: "green", Tone.BAD: "red", Tone.DIM: "dim"}


@foreseeable
def try_call(
    protocol: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            help="The protocol of the call, such as dubbo.",
            autocompletion=complete_protocol,
            show_default=False,
        ),
    ],
    folder: Folder,
    host: Annotated[
        str,
        typer.Option(
            help="The service called, or a part of its name (default: the only one).",
            show_default=False,
        ),
    ] = "",
    port: Annotated[
        int | None, typer.Option(help="Its port (default: the only one).", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="The method called.")] = "",
    interface: Annotated[
        str, typer.Option("--interface", "-i", help="Dubbo's interface, Thrift's service name.")
    ] = "",
    version: Annotated[str, typer.Option(help="The service version (Dubbo).")] = "",
    group: Annotated[str, typer.Option(help="The service group (Dubbo).")] = "",
    attachment: Annotated[
        list[str] | None,
        typer.Option("--attachment", "-a", metavar="KEY=VALUE", help="An attachment or header."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Any other metadata, such as connection.sni=x. Only for the explanation.",
        ),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="JSON", help="An argument of the call (Dubbo)."),
    ] = None,
    calls: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_CALLS,
            help="Also play so many such calls at once through the engine, and tell what became "
            "of them.",
        ),
    ] = 0,
    down: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS:PORT", help="A host that takes no connections while they are played."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=1, max=2**63, help="What is drawn while they are played.")
    ] = 1,
    to: Annotated[
        str,
        typer.Option(
            "--send", metavar="ADDRESS:PORT", help="Also send the call there and print the answer."
        ),
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 10,
    envoy: EnvoyPath = None,
    allow_untested_envoy: AllowUntestedEnvoy = False,  # noqa: ARG001
    as_json: Json = False,
) -> None:
    """Which route and cluster a call would take, condition by condition."""
    check_folder(folder)
    address = endpoint(to, "--send") if to else None
    call = CallSpec(
        method=method,
        interface=interface,
        version=version,
        group=group,
        attachments=dict(pair(text, "--attachment") for text in attachment or ()),
        arguments=tuple(argument(text) for text in arguments or ()),
        metadata=tuple(pair(text, "--metadata") for text in metadata or ()),
        timeout=timeout,
    )
    # Imported here, so that the other commands start without it.
    from metaprotocol.api.mesh import load

    here = environment(envoy)
    mesh = load(folder)
    resources = mesh.envoy(types=here.types, module=here.module)
    if has_errors(resources.diagnostics):
        text = f"{folder}: {tally(resources.diagnostics)} ('metaprotocol validate {folder}')"
        line(stderr(), text, "yellow")
    redis = resources.redis_snapshots()
    snapshot = _choose([*resources.snapshots(), *redis], protocol, host, port)
    explanation: Explanation | RedisExplanation
    if isinstance(snapshot, RedisSnapshot):
        if to:
            raise Failure(ExitCode.USAGE, "--send cannot send Redis commands.", "Use redis-cli.")
        if calls or down:
            raise Failure(
                ExitCode.USAGE,
                "Redis commands cannot be played.",
                "Leave --calls and --down out: Envoy's own filter takes them, not the engine.",
            )
        explanation = explain_redis(snapshot, method, dict(call.metadata).get("key", ""))
        led_to = (*explanation.destinations, *explanation.mirrors)
        hosts = {name: resources.hosts(name) for name, _ in led_to}
        explanation = replace(explanation, hosts=hosts)
    else:
        metadata_read = metadata_of(snapshot.codec, call)
        explanation = resources.explain(snapshot, metadata_read)
        if calls or down:
            try:
                played = resources.rehearse(
                    snapshot, metadata_read, max(calls, 1), _down(down), seed
                )
            except NotFound as problem:
                raise Failure(ExitCode.USAGE, f"--down: {problem}.") from problem
            explanation = replace(explanation, rehearsal=played)
        hosts = {name: list(found) for name, found in explanation.hosts.items()}
    if not as_json:
        for item in explanation.lines():
            line(stdout(), item.text, _STYLES.get(item.tone))
    answer = None if address is None else send(snapshot.codec, call, *address)
    if as_json:
        content: dict[str, Any] = {**explanation.to_dict(), "hosts": hosts}
        if answer is not None:
            content["answer"] = {
                "status": answer.status,
                "value": _plain(answer.value),
                "attachments": _plain(answer.attachments),
            }
            if answer.note:
                content["answer"]["note"] = answer.note
        write_json(content)
    elif answer is not None:
        _write_answer(stdout(), to, answer)
    if explanation.route is None:
        raise typer.Exit(ExitCode.PROBLEM)
    if answer is not None and answer.status == "error":
        raise typer.Exit(ExitCode.UNREACHABLE)


def _down(addresses: Sequence[str] | None) -> list[str]:
    """As the engine names hosts."""
    hosts = [endpoint(text, "--down") for text in addresses or ()]
    return [f"{host}:{port}" for host, port in hosts]


def _choose(snapshots: Sequence[Snapshot], protocol: str, host: str, port: int | None) -> Snapshot:
    """The one service the call is for; Failure if there is none, or several."""
    speaking = [item for item in snapshots if protocol in item.protocols]
    if not speaking:
        known = sorted({item.codec for item in snapshots})
        meant = did_you_mean(protocol, codec_names())
        fix = f"Did you mean {meant}?" if meant and meant != protocol else ""
        there = f"The services here speak {', '.join(known)}." if known else "There is none here."
        raise Failure(
            ExitCode.USAGE, f"No service here speaks {protocol!r}.", f"{fix} {there}".strip()
        )
    host = host.lower()
    found = [item for item in speaking if host in ("", item.host) and port in (None, item.port)]
    if not found:
        # A part of the name is enough, as for `routes`.
        found = [item for item in speaking if host in item.host and port in (None, item.port)]
    if len(found) == 1:
        return found[0]
    names = [f"{item.host}:{item.port}" for item in found or speaking]
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if found:
        raise Failure(
            ExitCode.USAGE,
            f"Several services speak {protocol}: {listed}.",
            "Choose one with --host, and with --port if it has several.",
        )
    meant = did_you_mean_host(host, [item.host for item in speaking])
    what = f"{host or 'the service'}" + (f":{port}" if port is not None else "")
    raise Failure(
        ExitCode.USAGE,
        f"No {protocol} service is {what}.",
        f"Did you mean {meant}?" if meant and meant != host else f"There are: {listed}.",
    )


def _write_answer(console: Console, address: str, answer: Answer) -> None:
    style = "green" if answer.status == "ok" else "red"
    line(console, "")
    line(console, f"{address} answered with {answer.status}: {answer.value!r}", style)
    for key, value in answer.attachments.items():
        line(console, f"     {key} = {value!r}")
    if answer.note:
        line(console, answer.note)


def _plain(value: Any) -> Any:
    """The value as JSON can say it; anything else as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
