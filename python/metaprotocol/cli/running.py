"""``routes`` and ``clusters``: what a running Envoy really uses."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from metaprotocol.api.routing import (
    FilterSnapshot,
    describe_changes,
    describe_match,
    describe_target,
    destinations,
    filter_snapshots,
)
from metaprotocol.cli.admin import Admin, find_admin
from metaprotocol.cli.failures import Failure, foreseeable
from metaprotocol.cli.output import Json, line, stderr, stdout, table, write_json
from metaprotocol.config.v1 import to_json
from metaprotocol.envoy.config import WORKER_NAME

AdminPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--admin-port",
        min=1,
        max=65535,
        help="Envoy's admin port (default: that of the one 'metaprotocol run' here).",
        show_default=False,
    ),
]
AdminAddress: TypeAlias = Annotated[
    str, typer.Option("--admin-address", help="The address of Envoy's admin port.")
]

_OUTLIER = "ejected as an outlier"


@foreseeable
def routes(
    host: Annotated[
        str, typer.Argument(help="Only services whose host has this in it.", show_default=False)
    ] = "",
    admin_port: AdminPort = None,
    admin_address: AdminAddress = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """The routes a running Envoy really uses, with the requests each has taken."""
    admin = find_admin(admin_port, admin_address)
    found = sorted(
        (item for item in filter_snapshots(admin.json("/config_dump")) if host in item.name),
        key=lambda item: item.name,
    )
    taken = _requests_by_route(admin)
    if as_json:
        write_json([_routes_json(item, taken) for item in found])
        return
    if not found:
        what = f" whose name has {host!r} in it" if host else ""
        line(stderr(), f"This Envoy has no MetaProtocol filter{what}.")
        return
    for item in found:
        for routes_of in item.proxy.route_tables:
            rows = []
            for position, route in enumerate(routes_of.routes):
                name = route.name or f"{routes_of.name}/{position}"
                number = taken.get((item.proxy.name, name), 0)
                rows.append(
                    (
                        str(position + 1),
                        name,
                        describe_match(route),
                        describe_target(route),
                        "; ".join(describe_changes(route)),
                        f"{number:,}",
                    )
                )
            version = f", version {item.version}" if item.version else ""
            title = f"{item.name} ({item.codec}{version})"
            columns = (">#", "route", "takes", "to", "changes", ">requests")
            stdout().print(table(title, columns, rows))


@foreseeable
def clusters(
    name: Annotated[
        str, typer.Argument(help="Only clusters with this in their name.", show_default=False)
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also those without a route of ours to them.")
    ] = False,
    admin_port: AdminPort = None,
    admin_address: AdminAddress = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """The clusters of a running Envoy, with their hosts, health and requests."""
    admin = find_admin(admin_port, admin_address)
    used = _clusters_in_routes(admin)
    requests = admin.metric("requests", "cluster")
    ejected = _ejected(admin)
    found = [
        _cluster_json(status, requests, ejected)
        for status in admin.json("/clusters?format=json").get("cluster_statuses", [])
        if name in status["name"] and status["name"] != WORKER_NAME
    ]
    if not everything:
        # A mesh's own clusters (the xDS server's, say) are nobody's destination.
        found = [item for item in found if item["name"] in used or item["name"].count("|") == 3]
    found.sort(key=lambda item: str(item["name"]))
    if as_json:
        write_json(found)
        return
    if not found:
        what = f" with {name!r} in its name" if name else ""
        line(stderr(), f"This Envoy has no cluster{what}.")
        return
    rows = []
    for item in found:
        first = (item["name"], f"{item['requests']:,}")
        hosts = item["hosts"] or [{"address": "no host", "health": "", "weight": ""}]
        for host in hosts:
            connections = str(host.get("connections", ""))
            cells = (host["address"], host["health"], str(host["weight"]), connections)
            rows.append((*first, *cells))
            first = ("", "")
    columns = ("cluster", ">requests", "host", "health", ">weight", ">connections")
    stdout().print(table("", columns, rows))


def _requests_by_route(admin: Admin) -> dict[tuple[str, ...], int]:
    """Requests by the filter's name and the route's."""
    taken = admin.metric("requests", "protocol", "route")
    taken.update(admin.metric("one_way", "protocol", "route"))
    return taken


def _routes_json(item: FilterSnapshot, taken: dict[tuple[str, ...], int]) -> dict[str, Any]:
    listed = []
    for routes_of in item.proxy.route_tables:
        for position, route in enumerate(routes_of.routes):
            name = route.name or f"{routes_of.name}/{position}"
            listed.append(
                {
                    "table": routes_of.name,
                    "name": name,
                    "match": describe_match(route),
                    "to": describe_target(route),
                    "destinations": [
                        {"cluster": cluster, "percent": share}
                        for cluster, share in destinations(route)
                    ],
                    "changes": describe_changes(route),
                    "requests": taken.get((item.proxy.name, name), 0),
                }
            )
    return {
        "name": item.name,
        "host": item.host,
        "port": item.port or None,
        "codec": item.codec,
        "version": item.version,
        "routes": listed,
        "configuration": to_json(item.proxy),
    }


def _clusters_in_routes(admin: Admin) -> set[str]:
    return {
        cluster
        for item in filter_snapshots(admin.json("/config_dump"))
        for routes_of in item.proxy.route_tables
        for route in routes_of.routes
        for cluster, _ in destinations(route)
    }


def _ejected(admin: Admin) -> set[tuple[str, str]]:
    """The clusters and addresses of hosts that the module leaves out, of which Envoy knows nothing.
    None where the bootstrap does not have the module's page."""
    try:
        dump = admin.json("/metaprotocol")
    except Failure:
        return set()
    return {
        (cluster["name"], host["address"])
        for worker in dump.get("workers", [])
        for cluster in worker.get("engine", worker).get("clusters", [])
        for host in cluster["hosts"]
        if host.get("ejected")
    }


def _cluster_json(
    status: dict[str, Any],
    requests: dict[tuple[str, ...], int],
    ejected: set[tuple[str, str]],
) -> dict[str, Any]:
    name = status["name"]
    hosts = [_host_json(host) for host in status.get("host_statuses", [])]
    for host in hosts:
        if (name, host["address"]) in ejected:
            others = [host["health"]] if host["health"] != "healthy" else []
            host["health"] = ", ".join([_OUTLIER, *others])
    return {"name": name, "requests": requests.get((name,), 0), "hosts": hosts}


def _host_json(host: dict[str, Any]) -> dict[str, Any]:
    stats = {item["name"]: int(item.get("value", 0)) for item in host.get("stats", [])}
    return {
        "address": _address(host.get("address", {})),
        "health": _health(host.get("health_status", {})),
        "weight": host.get("weight", 1),
        "priority": host.get("priority", 0),
        "zone": host.get("locality", {}).get("zone", ""),
        "connections": stats.get("cx_active", 0),
        "connect_failures": stats.get("cx_connect_fail", 0),
    }


def _address(address: dict[str, Any]) -> str:
    socket = address.get("socket_address")
    if socket is None:
        return str(address.get("pipe", {}).get("path", "?"))
    host, port = socket.get("address", "?"), socket.get("port_value", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _health(status: dict[str, Any]) -> str:
    """As Envoy's flags say; "healthy" if none is set."""
    flags = {
        "failed_active_health_check": "fails health checks",
        "failed_outlier_check": _OUTLIER,
        "failed_active_degraded_check": "degraded",
        "pending_active_hc": "not checked yet",
        "pending_dynamic_removal": "about to leave",
        "excluded_via_immediate_hc_fail": "excluded",
        "active_hc_timeout": "health check timed out",
    }
    found = [text for flag, text in flags.items() if status.get(flag)]
    configured = status.get("eds_health_status", "HEALTHY")
    if configured not in ("HEALTHY", "UNKNOWN"):
        found.append(str(configured).lower())
    return ", ".join(found) or "healthy"
