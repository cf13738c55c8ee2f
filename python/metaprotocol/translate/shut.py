"""Hosts that are kept shut, since what holds for them cannot be found out."""

from __future__ import annotations

from collections.abc import Iterator

from metaprotocol.resources import Key, Resource
from metaprotocol.translate.authorization import selects_in_any_protocol
from metaprotocol.translate.filters import proxy_config, written
from metaprotocol.translate.host_filters import Filter, HostFilters, PortFilters
from metaprotocol.translate.hosts import HostTranslator
from metaprotocol.translate.index import Index
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.naming import filter_name, inbound_filter_name
from metaprotocol.translate.native_ports import NativePorts
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Known, shut_table


class ShutHosts:
    """Makes the filters of such hosts, and knows when those made before may stay."""

    def __init__(
        self,
        messages: Messages,
        options: Options,
        index: Index,
        known: Known,
        translator: HostTranslator,
    ) -> None:
        self._messages = messages
        self._options = options
        self._index = index
        self._translator = translator
        self._native = NativePorts(messages, options, index, known)

    def may_keep(self, service: Service | None, before: HostFilters) -> bool:
        """Whether filters that were made before are for all ports that there are now, and know of
        each policy that may keep requests out: it may say something else since, as an object with
        errors may."""
        if service is None:
            return False
        known = {origin.key for made in before.filters.values() for origin in made.origins}
        names = {name for port in service.listened for name in self._names(service, port)}
        try:
            return names <= before.filters.keys() and known.issuperset(self._policies(service))
        except Exception:  # the very thing that fails may be needed to find out
            return False

    def filters(self, service: Service, because: Resource) -> HostFilters:
        """Filters that answer an error to every request. Without a codec a port has none."""
        made = HostFilters(looked_up={service.host})
        report = Report()
        for port in service.ours:
            found = self._translator.codec(port, report)
            if found is None:
                continue
            made.ports[port.number] = PortFilters(*found, None, frozenset())
            table = shut_table(service.host, f"{because.key} cannot be translated")
            for name in self._names(service, port):
                config = proxy_config(name, *found, table)
                if self._options.target is Target.ENVOY:
                    config.listener_name = name
                message = self._messages.filter_config(name, written(config))
                made.filters[name] = Filter(message, (because, port.owner), service.visible_to)
            if self._options.target is Target.ENVOY:
                made.claim(service, port, False, service.visible_to, self._options, report)
        self._native.shut_redis(service, because, made, report)
        made.diagnostics = report.diagnostics
        return made

    def _names(self, service: Service, port: Port) -> Iterator[str]:
        yield filter_name(service.host, port.number)
        if port in service.ours and self._options.target is Target.ISTIO:
            yield inbound_filter_name(service.host, port.number)

    def _policies(self, service: Service) -> Iterator[Key]:
        """The policies that may keep some requests to a service out."""
        for policy in self._index.policies(service.namespace):
            if policy.known_to_istio and self._options.target is Target.ISTIO:
                continue
            if any(
                selects_in_any_protocol(policy, service, port) is not False for port in service.ours
            ):
                yield policy.owner.key
