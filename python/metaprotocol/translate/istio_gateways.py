"""The EnvoyFilters of gateways: our filters for clients without an Envoy of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metaprotocol.audience import Clients
from metaprotocol.resources import Inventory, Key, Resource
from metaprotocol.translate.gateways import (
    GatewayPods,
    Opened,
    oldest_first,
    opened_servers,
)
from metaprotocol.translate.istio_parts import NOT_YET, VIRTUAL_SERVICE, Parts
from metaprotocol.translate.istio_patches import GATEWAY, gateway_routes, object_name
from metaprotocol.translate.model import Service
from metaprotocol.translate.naming import filter_name, gateway_filter_name


class GatewayFilters:
    """Adds those of Gateways to the others."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def is_about(self, service: Service) -> bool:
        """Whether routes of a service hold at Gateways."""
        plan = self._parts.plan(service)
        return plan is not None and bool(plan.gateways)

    def add(self, inventory: Inventory, services: Iterable[Service]) -> None:
        """The servers of Gateways at which routes hold."""
        routed = sorted(
            (
                (service, plan)
                for service in services
                if (plan := self._parts.plan(service)) is not None and plan.gateways
            ),
            key=lambda item: oldest_first(*item),
        )
        opened = opened_servers(inventory, routed, self._parts.report) if routed else []
        pods = GatewayPods(inventory) if opened else None
        for server in opened:
            assert pods is not None
            for namespace in self._namespaces(server, pods):
                self._add_server(server, namespace, pods)

    def _namespaces(self, opened: Opened, pods: GatewayPods) -> list[str]:
        """Where the pods of a Gateway are configured for a service."""
        gateway, service, port = opened.gateway, opened.service, opened.port
        visible = self._parts.filters(service)[filter_name(service.host, port.number)].visible_to
        namespaces = pods.namespaces(gateway)
        hidden = [name for name in namespaces if visible is not None and name not in visible]
        if hidden:
            self._parts.report.error(
                opened.plan.owner, "not-exported", "spec.exportTo",
                f"{service.host} and its routes are not exported to {hidden[0]}, where the pods of "
                f"{gateway.key} are",
                value=hidden[0], fix="name that namespace in exportTo of both",
            )  # fmt: skip
        if not gateway.spec.selector and not self._parts.istio.workload_labels:
            root = self._parts.options.root_namespace
            if root in namespaces:
                self._parts.report.error(
                    gateway, "mesh-wide", "spec.selector",
                    f"an EnvoyFilter in {root} without labels is for the whole mesh",
                    fix="name the labels of the gateway's pods",
                )  # fmt: skip
                hidden.append(root)
        return [name for name in namespaces if name not in hidden]

    def _add_server(self, opened: Opened, namespace: str, pods: GatewayPods) -> None:
        """A server of a Gateway, in the pods of one namespace."""
        gateway, service, port = opened.gateway, opened.service, opened.port
        number = opened.server.port.number
        made = self._parts.filters(service)[filter_name(service.host, port.number)]
        own = gateway_filter_name(str(gateway.key), number, service.host)
        otherwise = self._parts.shut(service, port, own, NOT_YET)
        config = made.variants.get(Clients(namespace), made.message)
        if self._parts.has_no_hosts(service, port, routed=True):
            config = self._parts.shut(service, port, own, "its load balancing is not possible")
        else:
            self._parts.piece.uses.update(
                (GATEWAY, namespace, host, to) for to, _, host in self._parts.led_to(service, port)
            )
        name = f"metaprotocol-gateway-{gateway.key.namespace}.{gateway.key.name}-{number}"
        made_of = (service.first, gateway, *made.origins)
        patches = [
            self._parts.patches.gateway(listener, sni, own, otherwise)
            for listener in pods.listeners(gateway, namespace, number)
            for sni in opened.sni or [""]
        ]
        patches.append(self._parts.patches.filter(GATEWAY, config, own))
        selector = gateway.spec.selector
        self._parts.add_patches(namespace, name, patches, made_of, selector, context=GATEWAY)
        self._add_routes(opened, object_name(name), made_of)

    def _add_routes(self, opened: Opened, name: str, made_of: Sequence[Resource]) -> None:
        """Has istiod make the listener of a Gateway's port."""
        gateway, number = opened.gateway, opened.server.port.number
        namespace = gateway.key.namespace
        key = Key(VIRTUAL_SERVICE, namespace, name)
        hosts = opened.server.names
        piece = self._parts.piece
        found = piece.objects.get(key)
        if found is not None:  # of another server of the same port
            hosts = [*dict.fromkeys([*found["spec"]["hosts"], *hosts])]
        full_name = f"{namespace}/{gateway.key.name}"
        routes = gateway_routes(name, namespace, full_name, number, hosts)
        piece.objects[key] = routes
        piece.made_of.setdefault(key, {}).update((item.key, None) for item in made_of)
