"""Envoy messages by the thousand: copied from one that was built and checked, with what differs put
in.

``ConfigBuilder`` makes a message from its JSON form, which takes most of a translation's time. Of
one kind almost all are alike but for names and addresses. What comes out is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.config import AdsSource, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.fields import stat_name

_PLACEHOLDER = "x"
_PLAIN_POLICY = ClusterPolicy()
# Kinds of clusters differ by their policies, of which a mesh has few.
_MAX_TEMPLATES = 1000


class Messages:
    """Makes messages as the builder does."""

    def __init__(self, builder: ConfigBuilder, *, exclusive_ports: bool = False) -> None:
        self.builder = builder
        types = builder.types
        self._clusters: dict[tuple[object, ...], Message] = {}
        self._usual: Message | None = None
        extra = {"enable_reuse_port": False} if exclusive_ports else {}
        self._listener: Any = builder.listener(
            MetaProtocolListener(_PLACEHOLDER, discovery=AdsSource(), port=1, extra=extra)
        )
        config: Any = builder.filter_config(_PLACEHOLDER, "")
        self._config = config
        name = config.typed_config.type_url.rpartition("/")[2]
        self._filter: Any = types.message_class(name)()
        self._filter.ParseFromString(config.typed_config.value)
        self._assignment = types.message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")
        self._text: Any = types.message_class("google.protobuf.StringValue")()

    def listener(
        self, name: str, address: str, port: int, filters: Sequence[Message] = ()
    ) -> Message:
        """A listener at an address, whose filter of the same name comes by ADS, if it is not one
        with ``filters`` of its own."""
        made = _copy(self._listener)
        made.name = name
        made.address.socket_address.address = address
        made.address.socket_address.port_value = port
        made.filter_chains[0].filters[0].name = name
        if filters:
            del made.filter_chains[0].filters[:]
            made.filter_chains[0].filters.extend(filters)
        return made  # type: ignore[no-any-return]

    def filter_config(self, name: str, text: str) -> Message:
        """The filter as extension config discovery delivers it; ``text`` is a ProxyConfig."""
        self._text.value = text
        self._filter.filter_config.value = self._text.SerializeToString(deterministic=True)
        made = _copy(self._config)
        made.name = name
        made.typed_config.value = self._filter.SerializeToString(deterministic=True)
        return made  # type: ignore[no-any-return]

    def cluster(self, cluster: Cluster, build: Callable[[Cluster], Message]) -> Message:
        """A cluster as ``build``, one of the builder's methods, makes it."""
        if cluster.hosts or cluster.endpoints is None:
            return build(cluster)
        kind = (
            build.__name__,
            cluster.policy.SerializeToString(deterministic=True),
            repr(replace(cluster, name=_PLACEHOLDER, policy=_PLAIN_POLICY)),
        )
        template = self._clusters.get(kind)
        if template is None:
            template = build(replace(cluster, name=_PLACEHOLDER))
            if len(self._clusters) < _MAX_TEMPLATES:
                self._clusters[kind] = template
        return _named(template, cluster.name)

    def usual_cluster(self, name: str, policy: ClusterPolicy) -> Message:
        """A cluster whose hosts come by EDS, and about which nothing is said but its policy, which
        is always the same one."""
        if self._usual is None:
            usual = Cluster(_PLACEHOLDER, policy=policy, endpoints=AdsSource())
            self._usual = self.builder.cluster(usual)
        return _named(self._usual, name)

    def load_assignment(self, name: str, hosts: Sequence[Host]) -> Message:
        """A cluster's hosts, as EDS delivers them."""
        made: Any = self._assignment()
        made.cluster_name = name
        localities: dict[tuple[int, str, str, str], list[Host]] = {}
        for host in hosts:
            place = (host.priority, host.region, host.zone, host.sub_zone)
            localities.setdefault(place, []).append(host)
        for (priority, region, zone, sub_zone), members in sorted(localities.items()):
            locality = made.endpoints.add(priority=priority)
            for field, value in (("region", region), ("zone", zone), ("sub_zone", sub_zone)):
                if value:
                    setattr(locality.locality, field, value)
            if members[0].locality_weight:
                locality.load_balancing_weight.value = members[0].locality_weight
            for host in members:
                endpoint = locality.lb_endpoints.add()
                endpoint.load_balancing_weight.value = host.weight
                address = endpoint.endpoint.address.socket_address
                address.address = host.address
                address.port_value = host.port
        return made  # type: ignore[no-any-return]


def _named(template: Message, name: str) -> Message:
    """The cluster of that name."""
    made: Any = _copy(template)
    made.name = name
    if (shown := stat_name(name)) != name:
        made.alt_stat_name = shown
    return made  # type: ignore[no-any-return]


def _copy(template: Any) -> Any:
    made = type(template)()
    made.CopyFrom(template)
    return made
