"""What the EnvoyFilters of all kinds are made from, and where they are collected, by pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from google.protobuf.message import Message

from metaprotocol.envoy.config import Carrier, ConfigBuilder
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Key, Resource
from metaprotocol.translate.access_logs import file_logs
from metaprotocol.translate.filters import proxy_config
from metaprotocol.translate.host_filters import Filter, PortFilters
from metaprotocol.translate.istio_patches import (
    OUTBOUND,
    PRIORITY,
    Json,
    Patches,
    envoy_filter,
    object_name,
)
from metaprotocol.translate.model import DNS, DNS_ROUND_ROBIN, Port, Service
from metaprotocol.translate.options import Options
from metaprotocol.translate.plan import RoutePlan
from metaprotocol.translate.recent import Recent
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import shut_table
from metaprotocol.translate.translator import Translator

ENABLED_LABEL = "metaprotocol.aeraki.io/enabled"

ENVOY_FILTER, VIRTUAL_SERVICE = "EnvoyFilter", "VirtualService"

NOT_YET = "its configuration has not come from istiod"
"""Why a filter answers errors that has none."""

Use: TypeAlias = tuple[str, str, str, int]
"""Context and namespace of filters, and the host and port to which they lead."""


@dataclass(frozen=True)
class IstioOptions:
    """What is to be known of the mesh."""

    namespaces: tuple[str, ...] = ()
    """Where clients are, besides the namespace of each service, for services that are exported
    everywhere."""
    workload_labels: Mapping[str, str] = field(default_factory=lambda: {ENABLED_LABEL: "true"})
    """Only pods with these labels are configured: those whose proxy has the module. Without any,
    all pods of a namespace, each of which then needs it."""
    carrier: Carrier = Carrier("@metaprotocol")  # noqa: RUF009  # immutable


@dataclass
class Piece:
    """What one service, or one step for all of them, adds to the objects."""

    recent: Recent = field(default_factory=Recent)
    """What was made for it, also the time before."""
    report: Report = field(default_factory=Report)
    objects: dict[Key, Json] = field(default_factory=dict)
    made_of: dict[Key, dict[Key, None]] = field(default_factory=dict)
    """Objects to the resources that they say something of."""
    proxies: set[tuple[str, str]] = field(default_factory=set)
    """Contexts and namespaces with filters of ours."""
    uses: set[Use] = field(default_factory=set)
    consulted: set[str] = field(default_factory=set)
    """Hosts that it was made from."""
    origins: set[Key] = field(default_factory=set)
    """Resources that say something of ports of ours, beside those that objects are made of."""

    @property
    def says_something(self) -> bool:
        """Whether it makes a difference."""
        return bool(
            self.objects or self.uses or self.consulted or self.origins or self.report.diagnostics
        )


class Parts:
    """What there is, of one mesh, and the piece that is being made of it."""

    def __init__(
        self, translator: Translator, options: Options, types: EnvoyTypes, istio: IstioOptions
    ) -> None:
        self.translator = translator
        self.options = options
        self.istio = istio
        self.piece = Piece()
        self._builder = ConfigBuilder(types, options.module)
        self.patches = Patches(self._builder, lambda: self.piece.recent)

    def begin(self, before: Piece | None = None) -> Piece:
        """From now on everything is added to a new piece, in place of the one before."""
        self.piece = Piece(before.recent) if before is not None else Piece()
        self.piece.recent.begin()
        return self.piece

    @property
    def report(self) -> Report:
        """Where to say what is to be said."""
        return self.piece.report

    def filters(self, service: Service) -> Mapping[str, Filter]:
        """Those of its ports, by name."""
        return self.translator.filters(service.host).filters

    def ports(self, service: Service) -> Mapping[int, PortFilters]:
        """Its ports of ours, and how they came to their filters."""
        return self.translator.filters(service.host).ports

    def plan(self, service: Service) -> RoutePlan | None:
        """What somebody says about the requests of a service."""
        ports = self.ports(service).values()
        return next((port.plan for port in ports if port.plan is not None), None)

    def shut(self, service: Service, port: Port, name: str, reason: str) -> Message:
        """A filter that answers an error to every request."""
        port_filters = self.ports(service)[port.number]

        def made() -> Message:
            table = shut_table(service.host, reason)
            protocol = port_filters.protocol
            logs = file_logs(protocol)
            config = proxy_config(name, port_filters.codec, protocol, table, logs=logs)
            return self._builder.filter_config(name, config)

        return self.piece.recent.of(("shut", name, service.host, reason), made, port_filters)

    def led_to(self, service: Service, port: Port) -> set[tuple[int, str, str]]:
        """Port, subset and host of what requests to a service port may get to."""
        uses = self.ports(service)[port.number].uses
        found = {(use.port, use.subset, use.host) for use in uses if not use.grpc}
        return found | {(port.number, "", service.host)}

    def by_locality(self, host: str, port: int) -> tuple[Resource, str] | None:
        """What has istiod write something of localities into the clusters of a service port, beside
        which Envoy refuses our policy, and where it does; None: nothing does."""
        said = self.translator.policies(host)
        for subset in ("", *sorted(said.subsets)):
            part = said.policy(subset, port).balancing
            if part is not None and part.value.by_locality:
                return part.owner, part.value.by_locality
        service = self.translator.service(host)
        return (service.first, service.near) if service is not None and service.near else None

    def has_no_hosts(self, service: Service, port: Port, routed: bool) -> bool:
        """Whether one of its clusters has no policy of ours, nor another one that says which hosts
        it has: istiod has that for clusters alone whose hosts it delivers. Where a MetaRouter says
        what may pass, nothing does."""
        outcome = "answers an error to every request" if routed else "stays plain TCP"
        missing = False
        for number, host in sorted({(use[0], use[2]) for use in self.led_to(service, port)}):
            self.piece.consulted.add(host)
            found = self.by_locality(host, number)
            if found is None:
                continue
            owner, field = found
            led = self.translator.service(host)
            if led is not None and led.resolution in (DNS, DNS_ROUND_ROBIN):
                missing = True
                self.report.error(
                    owner, "locality-lb", field,
                    f"localities are not known of names that Envoy looks up, like {host}; port "
                    f"{port.number} of {service.host} {outcome}",
                    fix="remove it, or give the service resolution STATIC",
                )  # fmt: skip
            else:
                self.report.info(
                    owner, "locality-lb", field,
                    f"pods with our filter reach port {number} of {host} by that alone: what else "
                    "leads there, like routes for plain TCP, has its connections closed",
                    fix="give TCP routes another service, with the same pods",
                )  # fmt: skip
        return missing

    def add_patches(
        self,
        namespace: str,
        name: str,
        patches: list[Json],
        made_of: Sequence[Resource] = (),
        selector: Mapping[str, str] | None = None,
        *,
        ours: bool = True,
        context: str = OUTBOUND,
        priority: int = PRIORITY,
    ) -> None:
        """Adds patches to an object. ``ours``: they need what is there once in each proxy of that
        context."""
        key = Key(ENVOY_FILTER, namespace, object_name(name))
        piece = self.piece
        piece.made_of.setdefault(key, {}).update((item.key, None) for item in made_of)
        if ours:
            piece.proxies.add((context, namespace))
        if key in piece.objects:
            piece.objects[key]["spec"]["configPatches"].extend(patches)
            return
        labels = {**(selector or {}), **self.istio.workload_labels}
        piece.objects[key] = envoy_filter(key.name, namespace, labels, patches, priority)
