"""What a person, Prometheus or a probe asks of the server over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metaprotocol.xds.nodes import NodeState
from metaprotocol.xds.schema import short_name
from metaprotocol.xds.server import XdsServer

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1d2330; background: #fff; }
table { border-collapse: collapse; margin: 0 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem; }
th, td { border-bottom: 1px solid #ddd; }
th { font-weight: 600; color: #555; }
.bad { color: #b00020; }
.good { color: #1b7a3d; }
code { font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { color: #dde; background: #16181d; } th { color: #99a; } th, td { border-color: #333; }
  .bad { color: #ff6b81; } .good { color: #6fd08c; }
}
"""


def debug_app(server: XdsServer, unready: Callable[[], Sequence[str]] = tuple) -> web.Application:
    """An aiohttp application, for the server's own loop: /metrics (Prometheus), /ready (200 or
    503), /debug (a page), /debug.json. Not to be reachable by everyone: it tells all.

    ``unready`` says what else is not as it should be, by which the server is not ready either."""

    async def metrics(_: web.Request) -> web.Response:
        content = generate_latest(server.metrics.registry)
        return web.Response(body=content, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def ready(_: web.Request) -> web.Response:
        reasons = [] if server.ready else ["no resources were applied yet"]
        reasons += unready()
        if not reasons:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {'; '.join(reasons)}\n")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_page(server), content_type="text/html")

    async def json(_: web.Request) -> web.Response:
        return web.json_response(snapshot(server))

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/ready", ready),
            web.get("/debug", page),
            web.get("/debug.json", json),
        ]
    )
    return app


def snapshot(server: XdsServer) -> dict[str, Any]:
    """All that /debug.json tells: "ready", "resources" (counts by short type name), "nodes" (as
    ``NodeState.to_dict``)."""
    return {
        "ready": server.ready,
        "envoy_version": server.envoy_version,
        "resources": {short_name(key): count for key, count in sorted(server.counts().items())},
        "nodes": [node.to_dict() for node in server.nodes()],
    }


def _page(server: XdsServer) -> str:
    nodes = server.nodes()
    counts = "".join(
        f"<tr><td>{escape(short_name(key))}</td><td>{count}</td></tr>"
        for key, count in sorted(server.counts().items())
    )
    refused = "".join(
        f"<tr><td>{escape(node.id)}</td><td>{escape(short_name(type_url))}</td>"
        f"<td><code>{escape(nack.name)}</code></td><td><code>{escape(nack.version)}</code></td>"
        f"<td>{_ago(nack.at)}</td><td class=bad><code>{escape(nack.message)}</code></td></tr>"
        for node in nodes
        for type_url, nack in node.nacks
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>xDS</title>"
        '<meta name=viewport content="width=device-width"><meta http-equiv=refresh content=5>'
        f"<style>{_STYLE}</style><h1>xDS server</h1>"
        f"<p>{'ready' if server.ready else '<b class=bad>not ready</b>'}; "
        f"{len(nodes)} nodes connected.</p>"
        f"<h2>Resources</h2><table><tr><th>type<th>count</tr>{counts}</table>"
        "<h2>Refused</h2>"
        + (
            "<table><tr><th>node<th>type<th>resource<th>version<th>since<th>the node says</tr>"
            f"{refused}</table>"
            if refused
            else "<p class=good>Nothing is rejected.</p>"
        )
        + "<h2>Nodes</h2><table><tr><th>node<th>cluster<th>namespace<th>Envoy<th>from<th>since"
        f"<th>state<th>types</tr>{''.join(map(_node_row, nodes))}</table></html>\n"
    )


def _node_row(node: NodeState) -> str:
    types = "<br>".join(
        f"{escape(short_name(state.type_url))}: "
        f"{'all' if state.wildcard else f'{state.subscribed} by name'}"
        f"{'' if state.settled else ', waiting'}"
        for state in node.types
    )
    state = "<span class=good>in step</span>" if node.settled else "being updated"
    if node.nacks:
        state = f"<span class=bad>rejects {len(node.nacks)}</span>"
    version = escape(node.envoy_version or "?")
    if node.warning:
        version = f"<span class=bad>{version}: {escape(node.warning)}</span>"
    return (
        f"<tr><td>{escape(node.id)}</td><td>{escape(node.cluster)}</td>"
        f"<td>{escape(node.namespace)}</td><td>{version}</td>"
        f"<td>{escape(', '.join(node.peers))}</td><td>{_ago(node.connected_at)}</td>"
        f"<td>{state}</td><td>{types}</td></tr>"
    )


def _ago(at: float) -> str:
    seconds = max(0, int(time.time() - at))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
