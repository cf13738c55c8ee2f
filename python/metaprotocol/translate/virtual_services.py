"""VirtualServices to plans.

The http routes come first, read as Aeraki reads them (headers are metadata), then the tcp routes.
As in Istio a match that is for another port, another client or gateways alone is left out, and if
none is left there are no routes for that port and client.

What depends on something that requests here do not have (a path, say), or that cannot be done,
opens nothing: the route keeps its place and answers an error to all that meets the rest of its
conditions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import gcd
from typing import TypeVar

from metaprotocol.audience import Clients
from metaprotocol.config.v1 import Condition, DirectReply, Mutation, Retry, Route
from metaprotocol.diagnostics import join_path
from metaprotocol.resources import VirtualService, meta_router, virtual_service
from metaprotocol.resources.traffic import RETRY_ON, LocalReplyKind
from metaprotocol.resources.virtual_service import MESH
from metaprotocol.translate.meta_routers import FAULT_FILTER, LONGEST_PAUSE, mutations
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.options import Options
from metaprotocol.translate.plan import Destination, Place, PlannedRoute, RoutePlan, first_step
from metaprotocol.translate.reporting import (
    LONGEST_TIME,
    SHORTEST_TIME,
    Report,
    bounded_time,
)
from metaprotocol.translate.routes import FAULT
from metaprotocol.translate.virtual_service_choice import told_apart

METHOD = "method"
"""The metadata key that the method of an http match is about."""

_LARGEST_SUM = 10_000  # of weights, after division by their greatest common divisor
_MOST_RETRIES = 100
_LEAST_PERCENT = 0.000001
_LONGEST_NAME = 240
# Envoy's commands in values of headers.
_COMMAND = re.compile(r"%[A-Z_]+(\([^)]*\))?(:\d+)?%")

_KINDS: Mapping[int, LocalReplyKind] = {
    400: "malformed",
    401: "denied",
    403: "denied",
    404: "no_route",
    408: "timeout",
    413: "too_large",
    429: "over_limit",
    502: "bad_response",
    503: "no_healthy_upstream",
    504: "timeout",
}
_KINDS_OF_GRPC: Mapping[str, LocalReplyKind] = {
    "INVALID_ARGUMENT": "malformed",
    "UNAUTHENTICATED": "denied",
    "PERMISSION_DENIED": "denied",
    "NOT_FOUND": "no_route",
    "UNIMPLEMENTED": "no_route",
    "DEADLINE_EXCEEDED": "timeout",
    "RESOURCE_EXHAUSTED": "over_limit",
    "UNAVAILABLE": "no_healthy_upstream",
}
# Of an http match: what requests do not have here.
_NOT_IN_REQUESTS = {
    "uri": "requests have no path; interface and method are metadata, which headers match",
    "scheme": "requests have no scheme",
    "authority": "requests have no host",
    "queryParams": "requests have no query",
}
_PARTS = {
    "name": "name",
    "timeout": "timeout",
    "direct_reply": "directResponse",
    "cluster": "route",
    "weighted_clusters": "route",
    "hash_on": "route",
    "retry": "retries",
    "filters": "fault",
}


def virtual_service_plan(
    owner: VirtualService,
    service: Service,
    port: Port,
    clients: Clients | None,
    options: Options,
    report: Report,
) -> RoutePlan | None:
    """What a VirtualService says about a port, for these clients; None: nothing. ``report`` is told
    what of it is not done."""
    return _Reader(owner, service, port, clients, options, report).read()


_MatchT = TypeVar("_MatchT", virtual_service.HttpMatch, virtual_service.TcpMatch)


@dataclass
class _Conditions:
    """A set of conditions of one route, as far as they can be known here."""

    message: list[Condition] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    """Where each of them is written."""
    keys: list[str] = field(default_factory=list)
    name: str = ""
    broken: str = ""
    """Where something is written that cannot be known; "": everything can."""


@dataclass
class _Written:
    """Where the parts of a planned route are written."""

    field: str
    conditions: Sequence[str] = ()
    requests: Sequence[str] = ()
    responses: Sequence[str] = ()
    mirrors: Sequence[str] = ()


class _Reader:
    def __init__(
        self,
        owner: VirtualService,
        service: Service,
        port: Port,
        clients: Clients | None,
        options: Options,
        report: Report,
    ) -> None:
        self._owner = owner
        self._service = service
        self._port = port
        self._clients = clients
        self._options = options
        self._report = report
        self._labelled = {known.namespace for known in told_apart(service, [owner], options)}
        """Namespaces in which clients are told apart by their labels."""
        self._routes: list[PlannedRoute] = []
        self._written: list[_Written] = []
        self._names: set[str] = set()

    def read(self) -> RoutePlan | None:
        spec = self._owner.spec
        for index, http in enumerate(spec.http):
            self._http(http, f"spec.http[{index}]")
        for index, tcp in enumerate(spec.tcp):
            self._tcp(tcp, f"spec.tcp[{index}]")
        for index in range(len(spec.tls)):
            self._no_effect(
                f"spec.tls[{index}]", "connections to ports of ours have no server name"
            )
        for index, gateway in enumerate(spec.gateways):
            if gateway != MESH:
                self._report.info(
                    self._owner, "gateways", f"spec.gateways[{index}]",
                    "its routes hold where clients have an Envoy, not at gateways", value=gateway,
                    fix="a MetaRouter's gateways do",
                )  # fmt: skip
        if not self._routes:
            self._report.info(
                self._owner, "no-route-for-port", "spec",
                f"has no route for port {self._port.number} of {self._service.host}: its requests "
                "go to the service itself",
            )  # fmt: skip
            return None
        return RoutePlan(self._owner, spec.hosts, self._routes, place=self._place)

    # --- routes

    def _http(self, route: virtual_service.HttpRoute, here: str) -> None:
        message = Route()
        written = _Written(here)
        broken = self._action(route, here, message)
        if route.timeout:
            message.timeout.FromTimedelta(self._bounded(route.timeout, f"{here}.timeout"))
        broken = self._headers(route, here, message, written) or broken
        self._retries(route.retries, f"{here}.retries", message)
        broken = self._fault(route.fault, f"{here}.fault", message) or broken
        if route.rewrite is not None:
            self._no_effect(f"{here}.rewrite", "requests have neither path nor host to write")
        if route.cors_policy is not None:
            self._no_effect(f"{here}.corsPolicy", "it is for browsers")
        destinations = self._destinations(route.route, here)
        mirrors = self._mirrors(route, here)
        written.mirrors = [mirror.field for mirror in mirrors]
        sets = self._sets(route.match, here, self._http_conditions)
        self._add(route.name, message, written, sets, broken, destinations, mirrors)

    def _tcp(self, route: virtual_service.TcpRoute, here: str) -> None:
        sets = self._sets(route.match, here, self._tcp_conditions)
        if sets:
            self._report.warning(
                self._owner, "tcp-route", here,
                "has a destination for each request, where Istio's have one for each connection",
                fix="write it as the last http route",
            )  # fmt: skip
        destinations = self._destinations(route.route, here)
        self._add("", Route(), _Written(here), sets, "", destinations, [])

    def _sets(
        self,
        matches: Sequence[_MatchT],
        here: str,
        conditions: Callable[[_MatchT, str], _Conditions],
    ) -> list[_Conditions]:
        """What each match asks for that may hold; without matches there is nothing to ask for."""
        if not matches:
            return [_Conditions()]
        return [
            conditions(match, place)
            for index, match in enumerate(matches)
            if self._may_hold(match, place := f"{here}.match[{index}]")
        ]

    def _add(
        self,
        name: str,
        message: Route,
        written: _Written,
        sets: Sequence[_Conditions],
        broken: str,
        destinations: Sequence[Destination],
        mirrors: Sequence[Destination],
    ) -> None:
        """Adds a route for each set of conditions: one of them is enough."""
        for conditions in sets:
            made = Route(name=self._name(name, conditions.name), match=conditions.message)
            at = _Written(written.field, conditions.fields)
            because = conditions.broken or broken
            if because:
                text = f"{self._owner.key}: {because} cannot be honoured on this port"
                made.direct_reply.CopyFrom(DirectReply(kind=FAULT, text=text[:4096]))
                planned = PlannedRoute(made, written.field, conditions.keys)
            else:
                made.MergeFrom(message)
                at.requests, at.responses = written.requests, written.responses
                at.mirrors = written.mirrors
                planned = PlannedRoute(made, written.field, conditions.keys, destinations, mirrors)
            self._routes.append(planned)
            self._written.append(at)

    def _name(self, route: str, match: str) -> str:
        """Names are told apart in metrics: as in Istio that of a match is added."""
        name = ".".join(filter(None, (route, match)))[:_LONGEST_NAME]
        if name in self._names:
            name = f"{name}.{len(self._routes)}"
        if name:
            self._names.add(name)
        return name

    # --- conditions

    def _may_hold(
        self, match: virtual_service.HttpMatch | virtual_service.TcpMatch, here: str
    ) -> bool:
        """Whether a match may be for this port and these clients."""
        if match.gateways and MESH not in match.gateways:
            self._report.info(self._owner, "gateways", f"{here}.gateways", "is for gateways alone")
            return False
        if match.port and match.port != self._port.number:
            return False
        if match.source_namespace and match.source_namespace != self._namespace:
            return False
        known = self._labels
        return known is None or known.items() >= match.source_labels.items()

    @property
    def _namespace(self) -> str:
        """Where the clients are."""
        if self._clients is not None:
            return self._clients.namespace
        return "" if self._options.respect_export_to else self._service.namespace

    @property
    def _labels(self) -> dict[str, str] | None:
        """Those of the clients' workloads; None: they are not known."""
        if self._clients is None:
            return None
        if self._clients.namespace not in self._labelled:  # a DestinationRule tells them apart
            return None
        return dict(self._clients.labels)

    def _who(self, match: virtual_service.HttpMatch | virtual_service.TcpMatch, here: str) -> str:
        """Where conditions on clients are written that are not told apart."""
        if not match.source_labels or self._labels is not None:
            return ""
        place = f"{here}.sourceLabels"
        if self._options.respect_export_to:
            self._report.warning(
                self._owner, "source-labels", place,
                "clients are told apart in the namespaces of this object and of the service, and "
                "in those that exportTo and sourceNamespace name; others get an error",
                fix="name the clients' namespaces in exportTo",
            )  # fmt: skip
            return place.removeprefix("spec.")
        return self._cannot(place, "clients are not told apart by their labels")

    def _http_conditions(self, match: virtual_service.HttpMatch, here: str) -> _Conditions:
        made = _Conditions(name=match.name, broken=self._who(match, here))
        for name, why in _NOT_IN_REQUESTS.items():
            if getattr(match, _snake(name)):
                made.broken = self._cannot(f"{here}.{name}", why)
        if match.ignore_uri_case and match.uri is None:
            self._no_effect(f"{here}.ignoreUriCase", "requests have no path")
        if match.stat_prefix:
            self._no_effect(f"{here}.statPrefix", "metrics have the route's name")
        if match.method is not None:
            self._condition(made, METHOD, match.method, f"{here}.method")
        for name, invert in (("headers", False), ("withoutHeaders", True)):
            texts = match.without_headers if invert else match.headers
            for key in sorted(texts):
                place = join_path([name, key])
                self._condition(made, key, texts[key], f"{here}.{place}", invert=invert)
        return made

    @staticmethod
    def _condition(
        to: _Conditions,
        key: str,
        text: virtual_service.TextMatch,
        field: str,
        *,
        invert: bool = False,
    ) -> None:
        made = Condition(key=key, invert=invert)
        if text.exact:
            made.exact = text.exact
        elif text.prefix:
            made.prefix = text.prefix
        elif text.regex and text.regex != "*":
            made.regex = text.regex
        else:
            made.present = True
        to.message.append(made)
        to.fields.append(field)
        to.keys.append(key)

    def _tcp_conditions(self, match: virtual_service.TcpMatch, here: str) -> _Conditions:
        made = _Conditions(broken=self._who(match, here))
        if match.destination_subnets:
            made.broken = self._cannot(
                f"{here}.destinationSubnets", "where connections were going to is not matched"
            )
        if match.source_subnet:
            made.broken = self._cannot(
                f"{here}.sourceSubnet",
                "networks of clients are not matched; an AuthorizationPolicy knows them",
            )
        return made

    # --- what becomes of requests

    def _action(self, route: virtual_service.HttpRoute, here: str, message: Route) -> str:
        """What is in place of destinations. Returns where it is written, if it cannot be done."""
        if route.redirect is not None:
            return self._cannot(f"{here}.redirect", "clients cannot be sent elsewhere")
        if route.delegate is not None:
            return self._cannot(f"{here}.delegate", "no other VirtualService is asked for routes")
        if route.direct_response is None:
            return ""
        reply, place = route.direct_response, f"{here}.directResponse"
        text = (reply.body.string if reply.body is not None else None) or ""
        if reply.body is not None and reply.body.bytes is not None:
            self._no_effect(f"{place}.body.bytes", "the protocols' errors carry text")
        if 200 <= reply.status < 300:
            if text:
                self._no_effect(f"{place}.body.string", "replies without error have no text")
            message.direct_reply.kind = "no_content"
            return ""
        message.direct_reply.CopyFrom(DirectReply(kind=_kind(reply.status), text=text[:4096]))
        return ""

    def _destinations(
        self,
        shares: Sequence[virtual_service.Share | virtual_service.ConnectionShare],
        here: str,
    ) -> list[Destination]:
        """Where requests go. A single destination gets all."""
        weights = _in_bounds([share.weight for share in shares])
        return [
            _destination(share.destination, f"{here}.route[{index}].destination", weight)
            for index, (share, weight) in enumerate(zip(shares, weights, strict=True))
        ]

    def _mirrors(self, route: virtual_service.HttpRoute, here: str) -> list[Destination]:
        found = []
        percent = 100.0
        for given in (route.oldest_mirror_percent, route.whole_mirror_percent):
            if given is not None:
                percent = float(min(given, 100))
        if route.mirror_percentage is not None:
            percent = route.mirror_percentage.value
        if route.mirror is not None:
            found.append(_destination(route.mirror, f"{here}.mirror", percent=_shown(percent)))
        else:
            for name, value in (
                ("mirrorPercentage", route.mirror_percentage),
                ("mirrorPercent", route.whole_mirror_percent),
                ("mirror_percent", route.oldest_mirror_percent),
            ):
                if value is not None:
                    self._no_effect(f"{here}.{name}", "has no meaning without mirror")
        for index, mirror in enumerate(route.mirrors):
            there = f"{here}.mirrors[{index}].destination"
            found.append(_destination(mirror.destination, there, percent=mirror.percent))
        return found

    def _headers(
        self, route: virtual_service.HttpRoute, here: str, message: Route, written: _Written
    ) -> str:
        """Changes to metadata: those of the destination, then those of the route, as Envoy makes
        them. Returns where some are written that cannot be made."""
        shares = route.route
        own = shares[0].headers if shares else virtual_service.Headers()
        for index, share in enumerate(shares):
            if share.headers != own:
                place = f"{here}.route[{index}].headers"
                return self._cannot(place, "destinations of one route have the same changes here")
        for name, fields in (("request", "requests"), ("response", "responses")):
            changes: list[Mutation] = []
            places: list[str] = []
            for headers, place in (
                (own, f"{here}.route[0].headers"),
                (route.headers, f"{here}.headers"),
            ):
                self._operations(getattr(headers, name), f"{place}.{name}", changes, places)
            if changes:
                getattr(message, f"{name}_mutation").extend(changes)
            setattr(written, fields, places)
        return ""

    def _operations(
        self,
        operations: virtual_service.HeaderOperations,
        here: str,
        changes: list[Mutation],
        places: list[str],
    ) -> None:
        pairs = {}
        for name in ("set", "add"):
            values = getattr(operations, name)
            pairs[name] = [
                meta_router.KeyValue.model_construct(key=key, value=values[key])
                for key in sorted(values)
            ]
            for key in sorted(values):
                if _COMMAND.search(values[key]):
                    self._report.warning(
                        self._owner, "literal-value", f"{here}.{join_path([name, key])}",
                        "is written as it stands: Envoy's commands have no meaning here",
                        value=values[key],
                    )  # fmt: skip
        made = mutations(operations.remove, pairs["set"], pairs["add"])
        places += [f"{here}.remove[{index}]" for index in range(len(operations.remove))]
        places += [
            f"{here}.{join_path([name, pair.key])}"
            for name in ("set", "add")
            for pair in pairs[name]
        ]
        changes += made

    def _retries(self, written: virtual_service.Retry | None, here: str, message: Route) -> None:
        if written is None:
            return
        if written.retry_remote_localities is not None:
            self._no_effect(f"{here}.retryRemoteLocalities", "all localities are tried alike")
        if written.retry_ignore_previous_hosts is False:
            place = f"{here}.retryIgnorePreviousHosts"
            self._no_effect(place, "another host is tried if there is one")
        if not written.attempts:
            for name in ("perTryTimeout", "retryOn", "backoff"):
                if getattr(written, _snake(name)):
                    self._no_effect(f"{here}.{name}", "there are no attempts")
            return
        retry = message.retry
        retry.attempts = min(written.attempts, _MOST_RETRIES)
        if retry.attempts != written.attempts:
            self._report.warning(
                self._owner, "out-of-bounds", f"{here}.attempts",
                f"must be at most {_MOST_RETRIES}, which is used", value=written.attempts,
            )  # fmt: skip
        words = [word.strip() for word in written.retry_on.split(",") if word.strip()]
        numbers = [word for word in words if word.isascii() and word.isdigit() and len(word) < 10]
        retry.status_codes.extend(int(word) for word in dict.fromkeys(numbers))
        causes = [cause for word in words for cause in RETRY_ON.get(word, ())]
        retry.on.extend(getattr(Retry, cause) for cause in dict.fromkeys(causes))
        for word in words:
            if word not in RETRY_ON and word not in numbers:
                self._report.warning(
                    self._owner, "no-effect", f"{here}.retryOn",
                    f'"{word}" is never a reason for a retry here', value=written.retry_on,
                )  # fmt: skip
        if written.per_try_timeout:
            bounded = self._bounded(written.per_try_timeout, f"{here}.perTryTimeout")
            retry.per_try_timeout.FromTimedelta(bounded)
        if written.backoff:
            base = min(max(written.backoff, SHORTEST_TIME), LONGEST_PAUSE)
            retry.backoff.FromTimedelta(base)
            retry.max_backoff.FromTimedelta(min(base * 10, LONGEST_PAUSE))

    def _fault(self, written: virtual_service.Fault | None, here: str, message: Route) -> str:
        """Faults on purpose. Returns where one is written that cannot be made."""
        if written is None:
            return ""
        fault = message.filters.add(name=FAULT_FILTER).fault
        fault.SetInParent()
        if (delay := written.delay) is not None:
            place = f"{here}.delay"
            if delay.exponential_delay is not None:
                return self._cannot(f"{place}.exponentialDelay", "Istio does not do it either")
            percent = delay.percentage.value if delay.percentage else float(delay.percent or 0)
            if not percent:
                self._never(place)
            if delay.fixed_delay:
                fault.delay.percent = percent
                bounded = self._bounded(delay.fixed_delay, f"{place}.fixedDelay", LONGEST_PAUSE)
                fault.delay.duration.FromTimedelta(bounded)
        if (abort := written.abort) is not None:
            place = f"{here}.abort"
            if abort.http2_error is not None:
                return self._cannot(f"{place}.http2Error", "there is no HTTP/2 here")
            if abort.percentage is None or not abort.percentage.value:
                self._never(place)
            fault.abort.percent = abort.percentage.value if abort.percentage else 0.0
            fault.abort.kind = FAULT
            if abort.http_status is not None:
                fault.abort.kind = _kind(abort.http_status)
            elif abort.grpc_status is not None:
                fault.abort.kind = _KINDS_OF_GRPC.get(abort.grpc_status, FAULT)
        return ""

    # --- telling

    def _never(self, place: str) -> None:
        self._report.warning(
            self._owner, "no-fault", place, "never happens, as in Istio",
            fix="say of how many requests: percentage",
        )  # fmt: skip

    def _cannot(self, place: str, why: str) -> str:
        self._report.error(
            self._owner, "cannot-be-honoured", place, why,
            fix="what else the route is for gets an error; remove it, or write a MetaRouter",
        )  # fmt: skip
        return place.removeprefix("spec.")

    def _no_effect(self, place: str, why: str) -> None:
        self._report.warning(self._owner, "no-effect", place, why)

    def _bounded(
        self, written: timedelta, place: str, longest: timedelta = LONGEST_TIME
    ) -> timedelta:
        return bounded_time(written, self._owner, place, self._report, longest)

    # --- provenance

    def _place(self, path: str, _: Route | None = None) -> Place:
        """Where the part of a route table is written that the engine calls ``path``."""
        name, index, rest = first_step(path)
        if name != "routes" or index is None or index >= len(self._written):
            return Place(self._owner, "spec")
        written = self._written[index]
        name, index, rest = first_step(rest)
        lists = {
            "match": written.conditions,
            "request_mutation": written.requests,
            "response_mutation": written.responses,
            "mirrors": written.mirrors,
        }
        places = lists.get(name, ())
        if index is not None and index < len(places):
            kind = first_step(rest)[0]
            kinds = ("exact", "prefix", "regex")
            known = name == "match" and kind in kinds
            return Place(self._owner, f"{places[index]}.{kind}" if known else places[index])
        part = f".{_PARTS[name]}" if name in _PARTS else ""
        return Place(self._owner, f"{written.field}{part}")


def _destination(
    written: meta_router.Destination, place: str, weight: int = 0, percent: float = 100.0
) -> Destination:
    port = written.port.number if written.port else 0
    return Destination(written.host, written.subset or "", port, place, weight, percent)


def _in_bounds(weights: Sequence[int]) -> list[int]:
    """Weights with the same shares, or nearly so: the engine bounds their sum. What has a share
    keeps one."""
    total, divisor = sum(weights), gcd(*weights) or 1
    if total // divisor <= _LARGEST_SUM:
        return [weight // divisor if total > _LARGEST_SUM else weight for weight in weights]
    least = _LARGEST_SUM - len(weights)
    return [-(-weight * least // total) for weight in weights]


def _shown(percent: float) -> float:
    """What is less than the engine's least is none."""
    return percent if percent >= _LEAST_PERCENT else 0.0


def _kind(status: int) -> LocalReplyKind:
    """The kind of error that comes nearest to a status of HTTP."""
    return _KINDS.get(status, "fault")


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
