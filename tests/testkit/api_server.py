"""The wire protocol of a Kubernetes API server, as far as the control plane speaks it: discovery,
lists in pages, watches with bookmarks, create, replace, server-side apply, delete, the status
subresource; and what can go wrong with it.

The real one is in `make test-mesh`; this one stands for it where a test is about how an answer is
taken, such as an expired watch or a token that is no longer valid.
"""

from __future__ import annotations

import asyncio
import bisect
import copy
import json
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

Json = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A kind that the server has."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True


def _istio(kind: str, plural: str) -> Served:
    return Served("networking.istio.io", "v1", kind, plural)


CORE = (
    Served("", "v1", "Service", "services"),
    Served("", "v1", "Pod", "pods"),
    Served("", "v1", "ConfigMap", "configmaps"),
    Served("", "v1", "Event", "events"),
    Served("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Served("coordination.k8s.io", "v1", "Lease", "leases"),
)
METAPROTOCOL = (
    Served("metaprotocol.aeraki.io", "v1alpha1", "MetaRouter", "metarouters"),
    Served("redis.aeraki.io", "v1alpha1", "RedisService", "redisservices"),
    Served("redis.aeraki.io", "v1alpha1", "RedisDestination", "redisdestinations"),
    Served(
        "metaprotocol.aeraki.io", "v1alpha1", "ApplicationProtocol", "applicationprotocols", False
    ),
)
ISTIO = (
    _istio("ServiceEntry", "serviceentries"),
    _istio("WorkloadEntry", "workloadentries"),
    _istio("DestinationRule", "destinationrules"),
    _istio("VirtualService", "virtualservices"),
    _istio("Gateway", "gateways"),
    _istio("Sidecar", "sidecars"),
    Served("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"),
    Served("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies"),
    Served("telemetry.istio.io", "v1", "Telemetry", "telemetries"),
    Served("dubbo.aeraki.io", "v1alpha1", "DubboAuthorizationPolicy", "dubboauthorizationpolicies"),
)
ADMISSION = (
    Served("", "v1", "Secret", "secrets"),
    Served(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        False,
    ),
)


@dataclass
class Fault:
    """What requests are answered instead."""

    method: str
    path: str
    """A regular expression that is searched for."""
    status: int
    times: int
    retry_after: str = ""


@dataclass(frozen=True)
class Request:
    """One that has come."""

    method: str
    path: str
    query: dict[str, str]


@dataclass
class ApiServer:
    """An asynchronous context manager; may be stopped and started again at the same port, with all
    its objects."""

    served: list[Served] = field(default_factory=lambda: [*CORE, *METAPROTOCOL, *ISTIO, *ADMISSION])
    tokens: set[str] = field(default_factory=lambda: {"right"})
    page: int = 500
    """Objects in a page of a list at most."""

    def __post_init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        """By plural, namespace and name."""
        self.logs: dict[str, str] = {}
        """What the containers of pods have logged, by namespace/pod/container."""
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.ready = True
        """Whether it has read its CRDs."""
        self.port = 0
        self._version = 100
        self._oldest = 0
        self._log: list[tuple[int, str, str, Json]] = []
        """Version, plural, type of event, object."""
        self._news = asyncio.Event()
        self._watches: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        self.break_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def kubeconfig(self, folder: Path, token: str = "right") -> Path:
        """A file with which the server is reached."""
        path = folder / "kubeconfig"
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(value))
        return path

    # --- what a test does to it

    def put(self, *items: Json) -> None:
        """Makes or changes objects, as somebody else would."""
        for item in items:
            served = self._kind_of(item)
            self._store(served, copy.deepcopy(item))

    def load(self, text: str) -> None:
        """The same with YAML."""
        self.put(*(item for item in yaml.safe_load_all(text) if item))

    def remove(self, plural: str, namespace: str, name: str) -> None:
        item = self.objects.pop((plural, namespace, name))
        self._version += 1
        item = copy.deepcopy(item)
        item["metadata"]["resourceVersion"] = str(self._version)
        self._note(plural, "DELETED", item)

    def find(self, plural: str, namespace: str, name: str) -> Json | None:
        return self.objects.get((plural, namespace, name))

    def names(self, plural: str) -> list[str]:
        return sorted(f"{key[1]}/{key[2]}" for key in self.objects if key[0] == plural)

    def break_watches(self) -> None:
        """Closes the connections of all watches."""
        for task in list(self._watches):
            task.cancel()

    def forget(self) -> None:
        """Watches cannot go on from where they were."""
        self._version += 1
        self._oldest = self._version
        self._log.clear()

    def fail(
        self,
        status: int,
        path: str = "",
        *,
        method: str = "",
        times: int = 1,
        retry_after: str = "",
    ) -> None:
        """Answers the next requests with an error."""
        self.faults.append(Fault(method, path, status, times, retry_after))

    def writes(self, plural: str = "") -> list[Request]:
        """The requests so far that were to change something; not those about leases."""
        return [
            item
            for item in self.requests
            if item.method != "GET" and "/leases" not in item.path and plural in item.path
        ]

    # --- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        self.requests.append(Request(request.method, path, dict(request.query)))
        for fault in self.faults:
            if fault.times and re.search(fault.path, path) and fault.method in ("", request.method):
                fault.times -= 1
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                return _status(fault.status, "as the test wants it", headers=headers)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _status(401, "Unauthorized", "Unauthorized")
        if path == "/readyz":
            return web.Response(text="ok") if self.ready else web.Response(status=500)
        if path == "/version":
            return web.json_response({"gitVersion": "v1.37.2"})
        log = re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log", path)
        if log:
            return self._log_of(f"{log[1]}/{log[2]}/{request.query['container']}")
        group = re.fullmatch(r"/apis/([^/]+)", path)
        if group:
            return self._discovery(group[1])
        version = re.fullmatch(r"/apis/([^/]+)/([^/]+)", path)
        if version:
            return self._resources(*version.groups())
        found = re.fullmatch(
            r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v\w+)(?:/namespaces/(?P<namespace>[^/]+))?"
            r"/(?P<plural>\w+)(?:/(?P<name>[^/]+))?(?P<status>/status)?",
            path,
        )
        served = found and next(
            (
                item
                for item in self.served
                if (item.group, item.version, item.plural)
                == (found["group"] or "", found["version"], found["plural"])
            ),
            None,
        )
        if not found or served is None:
            return _status(404, "the server could not find the requested resource", "NotFound")
        namespace, name = found["namespace"] or "", found["name"] or ""
        if request.method == "GET" and not name:
            if request.query.get("watch"):
                return await self._watch(request, served, namespace)
            return self._list(request, served, namespace)
        key = (served.plural, namespace, name)
        if request.method == "GET":
            return self._answer(self.objects.get(key))
        text = await request.text()
        value = json.loads(text) if text else {}
        match request.method:
            case "POST":
                return self._create(served, namespace, value)
            case "PUT":
                return self._replace(served, key, value)
            case "PATCH":
                return self._apply(served, key, value, status=bool(found["status"]))
            case "DELETE":
                if key not in self.objects:
                    return _status(404, f'"{name}" not found', "NotFound")
                self.remove(*key)
                return _status(200, "deleted")
        return _status(405, "no such method")

    def _answer(self, item: Json | None) -> web.Response:
        if item is None:
            return _status(404, "not found", "NotFound")
        return web.json_response(item)

    def _log_of(self, container: str) -> web.Response:
        if ("pods", *container.split("/")[:2]) not in self.objects:
            return _status(404, "not found", "NotFound")
        return web.Response(text=self.logs.get(container, ""))

    def _discovery(self, group: str) -> web.Response:
        versions = list(dict.fromkeys(it.version for it in self.served if it.group == group))
        if not versions:
            return _status(404, "the server could not find the requested resource", "NotFound")
        items = [{"groupVersion": f"{group}/{name}", "version": name} for name in versions]
        return web.json_response({"kind": "APIGroup", "name": group, "versions": items})

    def _resources(self, group: str, version: str) -> web.Response:
        found = [item for item in self.served if (item.group, item.version) == (group, version)]
        if not found:
            return _status(404, "the server could not find the requested resource", "NotFound")
        items = [{"name": it.plural, "kind": it.kind, "namespaced": it.namespaced} for it in found]
        groupversion = f"{group}/{version}"
        return web.json_response(
            {"kind": "APIResourceList", "groupVersion": groupversion, "resources": items}
        )

    def _matching(self, request: web.Request, served: Served, namespace: str) -> Iterable[Json]:
        selected = _selection(request)
        for key in sorted(self.objects):
            item = self.objects[key]
            if key[0] == served.plural and namespace in ("", key[1]) and selected(item):
                yield item

    def _list(self, request: web.Request, served: Served, namespace: str) -> web.Response:
        items = list(self._matching(request, served, namespace))
        begin = int(request.query.get("continue") or 0)
        end = begin + min(int(request.query.get("limit") or self.page), self.page)
        # Items of a list do not say what they are.
        shown = [
            {key: value for key, value in item.items() if key not in ("apiVersion", "kind")}
            for item in items[begin:end]
        ]
        metadata = {"resourceVersion": str(self._version)}
        if end < len(items):
            metadata["continue"] = str(end)
        return web.json_response(
            {"kind": f"{served.kind}List", "metadata": metadata, "items": shown}
        )

    async def _watch(
        self, request: web.Request, served: Served, namespace: str
    ) -> web.StreamResponse:
        at = int(request.query.get("resourceVersion") or 0)
        if at < self._oldest:
            return _status(410, "too old resource version", "Expired")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        selected = _selection(request)
        try:
            while True:
                news = self._news
                if at < self._oldest:
                    gone = {
                        "code": 410,
                        "reason": "Expired",
                        "message": "too old",
                        "kind": "Status",
                    }
                    await response.write(_event("ERROR", gone))
                    return response
                begin = bisect.bisect_right(self._log, at, key=lambda entry: entry[0])
                for _, plural, kind, item in self._log[begin:]:
                    if plural != served.plural:
                        continue
                    if namespace in ("", item["metadata"].get("namespace", "")) and selected(item):
                        await response.write(_event(kind, item))
                at = self._version
                if request.query.get("allowWatchBookmarks"):
                    mark = {"kind": served.kind, "metadata": {"resourceVersion": str(at)}}
                    await response.write(_event("BOOKMARK", mark))
                await news.wait()
        finally:
            self._watches.discard(task)

    def _create(self, served: Served, namespace: str, value: Json) -> web.Response:
        value["metadata"].setdefault("namespace", namespace)
        key = (served.plural, namespace, value["metadata"]["name"])
        if key in self.objects:
            return _status(409, "already exists", "AlreadyExists")
        return self._answer(self._store(served, value))

    def _replace(self, served: Served, key: tuple[str, str, str], value: Json) -> web.Response:
        old = self.objects.get(key)
        if old is None:
            return _status(404, "not found", "NotFound")
        if value["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified", "Conflict")
        return self._answer(self._store(served, value))

    def _apply(
        self, served: Served, key: tuple[str, str, str], value: Json, *, status: bool
    ) -> web.Response:
        """As by a manager that has no fields beside these."""
        old = self.objects.get(key)
        if status:
            if old is None:
                return _status(404, "not found", "NotFound")
            version = value["metadata"].get("resourceVersion")
            if version not in (None, old["metadata"]["resourceVersion"]):
                return _status(409, "the object has been modified", "Conflict")
            if not value["status"]:
                return _status(422, "status: Invalid value: null", "Invalid")
            others = {key: it for key, it in (old.get("status") or {}).items() if key not in _OURS}
            return self._answer(self._store(served, {**old, "status": others | value["status"]}))
        merged = copy.deepcopy(old or {})
        for name, item in value.items():
            if name == "metadata":
                merged["metadata"] = {**merged.get("metadata", {}), **item}
            elif isinstance(item, dict) and isinstance(merged.get(name), dict):
                merged[name] = {**merged[name], **item}
            elif name == "webhooks":
                merged[name] = _by_name(merged.get(name) or [], item)
            else:
                merged[name] = item
        return self._answer(self._store(served, merged))

    # --- objects

    def _kind_of(self, item: Json) -> Served:
        group, _, version = item["apiVersion"].rpartition("/")
        return next(
            served
            for served in self.served
            if (served.group, served.version, served.kind) == (group, version, item["kind"])
        )

    def _store(self, served: Served, item: Json) -> Json:
        metadata = item["metadata"]
        if served.namespaced:
            metadata.setdefault("namespace", "default")
        key = (served.plural, metadata.get("namespace", ""), metadata["name"])
        group = f"{served.group}/" if served.group else ""
        item |= {"apiVersion": f"{group}{served.version}", "kind": served.kind}
        old = self.objects.get(key)
        if old is not None:
            metadata = item["metadata"] = {**old["metadata"], **metadata}
            changed = old.get("spec") != item.get("spec")
            metadata["generation"] = old["metadata"]["generation"] + changed
            item.setdefault("status", old.get("status") or {})
            same = {**item, "metadata": {**metadata, "resourceVersion": ""}} == {
                **old,
                "metadata": {**old["metadata"], "resourceVersion": ""},
            }
            if same:
                return old
        else:
            metadata["generation"] = 1
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[key] = item
        self._note(served.plural, "MODIFIED" if old is not None else "ADDED", copy.deepcopy(item))
        return item

    def _note(self, plural: str, kind: str, item: Json) -> None:
        self._log.append((self._version, plural, kind, item))
        self._news.set()
        self._news = asyncio.Event()


_OURS = ("conditions", "observedGeneration")
"""Fields of a status that belong to whoever applies it."""


def _by_name(old: list[Json], new: list[Json]) -> list[Json]:
    """Lists that are merged item by item, by their names, and each item by its fields."""
    merged = {item["name"]: item for item in old}
    for item in new:
        there = merged.setdefault(item["name"], {})
        for key, value in item.items():
            inside = isinstance(value, dict) and isinstance(there.get(key), dict)
            there[key] = {**there[key], **value} if inside else value
    return list(merged.values())


def _selection(request: web.Request) -> Callable[[Json], bool]:
    """What the query of a list or watch asks for."""
    labels = request.query.get("labelSelector", "")
    field, _, name = request.query.get("fieldSelector", "").partition("=")
    assert field in ("", "metadata.name"), field
    return lambda item: _selected(item, labels) and name in ("", item["metadata"]["name"])


def _selected(item: Json, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if equals and labels.get(key) != value:
            return False
        if not equals and (key.removeprefix("!") in labels) == key.startswith("!"):
            return False
    return True


def _event(kind: str, item: Json) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def _status(
    code: int, message: str, reason: str = "", headers: dict[str, str] | None = None
) -> web.Response:
    value = {"kind": "Status", "code": code, "message": message, "reason": reason}
    return web.json_response(value, status=code, headers=headers)
