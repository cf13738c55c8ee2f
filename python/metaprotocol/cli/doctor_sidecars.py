"""What ``doctor --kubernetes`` reads out of pods and Istio's Sidecars: rejections that a proxy has
logged, applications that listen for themselves alone, hosts that a Sidecar hides.

Functions of what the API server has said; an empty answer is no fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]

_REJECTED = re.compile(r"gRPC config for (?:type\.googleapis\.com/)?(\S+) rejected: (.*)")
"""Envoy's line (grpc_subscription_impl.cc, level warning, which Istio's agent shows)."""
_UNKNOWN = re.compile(r"registered implementation for '([^']+)'")
_LONGEST = 300
_MOST = 3
_LOCAL = r"(?:127\.0\.0\.1|localhost|\[::1\])"
_BIND = {"DUBBO_IP_TO_BIND"}
"""Variables that say where a framework listens, whatever the port is."""


def rejection(log: str) -> str:
    """The newest rejection in a proxy's log, what it means, and what to do."""
    found = _REJECTED.findall(log)
    if not found:
        return ""
    kind, text = found[-1]
    said = f"has rejected a {kind.rpartition('.')[2]}: {text.strip()[:_LONGEST]}"
    unknown = _UNKNOWN.search(text)
    if unknown is None:
        return said
    name = unknown[1]
    if name.startswith("istio."):
        return f"{said} (its image is no proxy of Istio's, which alone has {name})"
    if "dynamic_modules" in name:
        return f"{said} (its image is older than Istio 1.31, or built without dynamic modules)"
    return said


def local_only(pod: Json, services: Iterable[Json], proxy: str) -> str:
    """Where a pod's containers say that a port of a service of ours is for the pod alone."""
    ports = {
        number
        for service in services
        if _selects(service, pod)
        for port in (service.get("spec") or {}).get("ports") or ()
        for number in [port.get("targetPort") or port.get("number") or port.get("port")]
        if isinstance(number, int)
    }
    for container in (pod.get("spec") or {}).get("containers") or () if ports else ():
        if container.get("name") == proxy:
            continue
        name = container.get("name")
        variables = {it["name"]: str(it.get("value") or "") for it in container.get("env") or ()}
        for variable in sorted(_BIND & variables.keys()):
            if re.fullmatch(_LOCAL, variables[variable]):
                return f"container {name}: env {variable} is {variables[variable]}"
        words = {
            **{f"command[{at}]": it for at, it in enumerate(container.get("command") or ())},
            **{f"args[{at}]": it for at, it in enumerate(container.get("args") or ())},
            **{f"env {key}": value for key, value in variables.items()},
        }
        for place, value in words.items():
            for port in sorted(ports):
                found = re.search(rf"{_LOCAL}:{port}(?!\d)", str(value))
                if found is not None:
                    return f"container {name}: {place} names {found[0]}"
    return ""


def _selects(service: Json, pod: Json) -> bool:
    spec = service.get("spec") or {}
    # Of a ServiceEntry, or of a Service.
    wanted = (spec.get("workloadSelector") or {}).get("labels") or spec.get("selector") or {}
    metadata = pod["metadata"]
    same = service["metadata"].get("namespace") == metadata.get("namespace")
    labels = metadata.get("labels") or {}
    return bool(wanted) and same and wanted.items() <= labels.items()


def governing(sidecars: list[Json], pod: Json, root: str) -> Json | None:
    """The Sidecar that is for a pod: one that selects it, its namespace's, the mesh's."""
    namespace = pod["metadata"].get("namespace")
    labels = pod["metadata"].get("labels") or {}

    def rank(item: Json) -> int | None:
        spec = item.get("spec") or {}
        wanted = (spec.get("workloadSelector") or {}).get("labels")
        if item["metadata"].get("namespace") == namespace:
            if not wanted:
                return 1
            return 0 if wanted.items() <= labels.items() else None
        return 2 if item["metadata"].get("namespace") == root and not wanted else None

    ranked = [(place, at) for at, it in enumerate(sidecars) if (place := rank(it)) is not None]
    return sidecars[min(ranked)[1]] if ranked else None


def hidden(sidecar: Json, namespace: str, hosts: Mapping[str, str]) -> str:
    """Which hosts (with their namespaces, "" if not known) a Sidecar hides from pods of one
    namespace. One without ``egress`` hides none."""
    egress = (sidecar.get("spec") or {}).get("egress") or ()
    shown = [str(host) for listener in egress for host in listener.get("hosts") or ()]
    if not egress:
        return ""
    missing = sorted(
        host
        for host, home in hosts.items()
        if not any(_shows(pattern, namespace, host, home) for pattern in shown)
    )
    if not missing:
        return ""
    more = f" and {len(missing) - _MOST:,} more" if len(missing) > _MOST else ""
    return (
        f"hides {', '.join(missing[:_MOST])}{more} from pods of {namespace}: "
        f"spec.egress hosts are {', '.join(shown[:_MOST])}{', ...' if shown[_MOST:] else ''}"
    )


def _shows(pattern: str, namespace: str, host: str, home: str) -> bool:
    """Istio's form: NAMESPACE/HOST, where "." is the pod's namespace, "~" none, "*" each."""
    where, _, name = pattern.partition("/")
    if where == "~":
        return False
    if where != "*" and home and home != (namespace if where == "." else where):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))
