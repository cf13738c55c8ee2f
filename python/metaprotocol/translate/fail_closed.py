"""What may be missing because it cannot be read, and therefore shuts a service or a port."""

from __future__ import annotations

from metaprotocol.resources import ApplicationProtocol, MetaRouter, Unreadable, VirtualService
from metaprotocol.translate.index import Index
from metaprotocol.translate.model import Port, Service
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Report, age

_DUBBO = "dubbo"


class FailClosed:
    """Finds resources that cannot be read and may deny, limit or decide something of a service:
    until they can be, its requests are answered with an error."""

    def __init__(self, index: Index, options: Options) -> None:
        self._index = index
        self._options = options

    def routes_of(
        self, service: Service, router: MetaRouter | None, virtual: VirtualService | None
    ) -> Unreadable | None:
        """What cannot be read and may be what has the routes of a service: a MetaRouter, or where
        there is none a VirtualService."""
        for item in self._index.unreadable("MetaRouter", service.host):
            if item.spec.kind != "MetaRouter" and virtual is not None:
                continue
            if router is None or (item.spec.name and age(item) < age(router)):
                return item
        if router is not None:
            return None
        for item in self._index.unreadable("VirtualService", service.host):
            if virtual is None or (item.spec.name and age(item) < age(virtual)):
                return item
        return None

    def protocol_of(
        self, service: Service, port: Port, protocol: ApplicationProtocol | None, report: Report
    ) -> Unreadable | None:
        """What cannot be read and may be the ApplicationProtocol of a port: it may have bounds, and
        options of the codec that decide what is matched."""
        if protocol is not None:
            return None
        for item in self._index.unreadable("ApplicationProtocol", service.host):
            tokens = item.spec.hosts
            if tokens is None or port.protocol in [token.lower() for token in tokens]:
                report.warning(
                    item, "fail-closed", "",
                    f"port {port.number} of {service.host} answers an error to every request "
                    f'before this can be read: it may say how "{port.protocol}" is spoken',
                )  # fmt: skip
                return item
        return None

    def policy_of(
        self, service: Service, port: Port, codec: CodecInfo, report: Report
    ) -> Unreadable | None:
        """What cannot be read and may be a policy that denies some requests to a port."""
        kinds = ["AuthorizationPolicy"] if self._options.target is Target.ENVOY else []
        if codec.name == _DUBBO:
            kinds.append("DubboAuthorizationPolicy")
        for kind in kinds:
            for item in self._index.unreadable(kind, service.host):
                namespaces = ("", service.namespace, self._options.root_namespace)
                if item.spec.namespace in namespaces:
                    report.warning(
                        item, "fail-closed", "",
                        f"port {port.number} of {service.host} answers an error to every request "
                        "before this can be read: it may deny some",
                    )  # fmt: skip
                    return item
        return None
