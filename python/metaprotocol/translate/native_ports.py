"""Ports whose protocols filters of Envoy's own speak: Redis and ZooKeeper."""

from __future__ import annotations

from metaprotocol.resources import Resource
from metaprotocol.translate.host_filters import Filter, HostFilters
from metaprotocol.translate.index import Index
from metaprotocol.translate.messages import Messages
from metaprotocol.translate.model import Service
from metaprotocol.translate.naming import filter_name
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.redis_filters import REDIS, RedisTranslator
from metaprotocol.translate.redis_services import RedisReader
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Known
from metaprotocol.translate.zookeeper import ZOOKEEPER, zookeeper_filters


class NativePorts:
    """Makes the filters of those ports of a service."""

    def __init__(self, messages: Messages, options: Options, index: Index, known: Known) -> None:
        self._messages = messages
        self._options = options
        self._known = known
        self._redis = RedisReader(index, options.secrets)

    def redis(self, service: Service, made: HostFilters, report: Report) -> None:
        """Adds the filters of ports that speak Redis."""
        plan, unreadable = self._redis.plan_of(service, report)
        for port in service.ports:
            if port.native != REDIS:
                continue
            name = filter_name(service.host, port.number)
            translator = RedisTranslator(self._messages.builder, self._known, service, port, report)
            shut = plan.shut or unreadable is not None
            done = translator.shut() if shut else translator.translate(plan)
            made.redis[port.number] = done
            made.uses |= done.uses
            made.looked_up |= done.hosts
            made.missing = made.missing or done.missing
            first = [] if plan.owner is port.owner else [plan.owner]
            origins = (*([unreadable] if unreadable is not None else first), port.owner)
            chain = (done.message,)
            made.filters[name] = Filter(done.message, origins, service.visible_to, chain=chain)
            if self._options.target is Target.ENVOY:
                routed = plan.owner is not service.first
                made.claim(service, port, routed, service.visible_to, self._options, report)

    def shut_redis(
        self, service: Service, because: Resource, made: HostFilters, report: Report
    ) -> None:
        """Adds filters that let no command pass to ports that speak Redis."""
        for port in service.ports:
            if port.native != REDIS:
                continue
            name = filter_name(service.host, port.number)
            translator = RedisTranslator(self._messages.builder, self._known, service, port, report)
            done = made.redis[port.number] = translator.shut()
            made.filters[name] = Filter(
                done.message, (because, port.owner), service.visible_to, chain=(done.message,)
            )
            if self._options.target is Target.ENVOY:
                made.claim(service, port, False, service.visible_to, self._options, report)

    def zookeeper(self, service: Service, made: HostFilters, report: Report) -> None:
        """Adds the filters of ports that speak ZooKeeper's protocol."""
        for port in service.ports:
            if port.native != ZOOKEEPER:
                continue
            name = filter_name(service.host, port.number)
            policy = self._known.policies(service.host).policy("", port.number)
            chain = zookeeper_filters(self._messages.builder, service, port, policy)
            origins = (port.owner, *policy.owners)
            made.filters[name] = Filter(chain[0], origins, service.visible_to, chain=chain)
            if self._options.target is Target.ENVOY:
                made.claim(service, port, False, service.visible_to, self._options, report)
