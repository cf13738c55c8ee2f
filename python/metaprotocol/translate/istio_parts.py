"""What the EnvoyFilters of all kinds are made from, and where they are collected."""

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
from metaprotocol.translate.hosts import Filter, PortFilters
from metaprotocol.translate.istio_patches import (
    OUTBOUND,
    PRIORITY,
    Json,
    Patches,
    envoy_filter,
    object_name,
)
from metaprotocol.translate.model import Port, Service
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

Used: TypeAlias = dict[tuple[str, str], set[tuple[str, int]]]
"""Contexts and namespaces to the hosts and ports to which their filters lead."""


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


class Parts:
    """What there is, of one mesh, and the objects that are made of it."""

    def __init__(
        self,
        translator: Translator,
        options: Options,
        types: EnvoyTypes,
        istio: IstioOptions,
        recent: Recent,
    ) -> None:
        self.translator = translator
        self.options = options
        self.istio = istio
        self.report = Report()
        self.objects: dict[Key, Json] = {}
        self.made_of: dict[Key, dict[Key, None]] = {}
        """Objects to the resources that they say something of."""
        self.proxies: set[tuple[str, str]] = set()
        """Contexts and namespaces with filters of ours."""
        self._builder = ConfigBuilder(types, options.module)
        self.recent = recent
        """What was made for the objects before."""
        self.patches = Patches(self._builder, recent)

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

        return self.recent.of(("shut", name, service.host, reason), made, port_filters)

    def led_to(self, service: Service, port: Port) -> set[tuple[int, str, str]]:
        """Port, subset and host of what requests to a service port may get to."""
        uses = self.ports(service)[port.number].uses
        found = {(use.port, use.subset, use.host) for use in uses if not use.grpc}
        return found | {(port.number, "", service.host)}

    def is_by_locality(self, service: Service, port: Port, routed: bool) -> bool:
        """Whether istiod gives locality weights to one of the clusters. Envoy would refuse it with
        our policy, and with it everything that came along. Where a MetaRouter says what may pass,
        nothing does."""
        outcome = "answers an error to every request" if routed else "stays plain TCP"
        found = False
        for number, subset, host in sorted(self.led_to(service, port)):
            part = self.translator.policies(host).policy(subset, number).balancing
            if part is not None and part.value.by_locality:
                found = True
                self.report.error(
                    part.owner, "locality-lb", part.value.by_locality,
                    f"weights by locality do not go with our load balancing; port {port.number} of "
                    f"{service.host} {outcome}",
                    fix="remove distribute and failover, or write enabled: false",
                )  # fmt: skip
        return found

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
        self.made_of.setdefault(key, {}).update((item.key, None) for item in made_of)
        if key in self.objects:
            self.objects[key]["spec"]["configPatches"].extend(patches)
            if ours:
                self.proxies.add((context, namespace))
            return
        labels = {**(selector or {}), **self.istio.workload_labels}
        self.objects[key] = envoy_filter(key.name, namespace, labels, patches, priority)
        if ours:
            self.proxies.add((context, namespace))
