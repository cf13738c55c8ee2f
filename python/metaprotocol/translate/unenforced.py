"""What is said of objects that ask for something which is not done, and for whom it is not."""

from __future__ import annotations

from collections.abc import Iterable

from metaprotocol.resources import Gateway, Key, Unenforced
from metaprotocol.translate.index import Index
from metaprotocol.translate.model import Service
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.reporting import Diagnostics, Report

_LISTED = 3
"""Hosts that a diagnostic names; the others are counted."""


class Unenforceable:
    """Which services such objects are for."""

    def __init__(self, index: Index, options: Options) -> None:
        self._index = index
        self._options = options
        self._services: dict[str, dict[str, Service]] = {}
        """Namespace and host to those that have a port of ours."""

    def reshaped(self, host: str, old: Service | None, new: Service | None) -> None:
        """Takes a service as it is now."""
        if old is not None:
            self._services.get(old.namespace, {}).pop(host, None)
        if new is not None and new.ours:
            self._services.setdefault(new.namespace, {})[host] = new

    def about(self, namespaces: set[str]) -> set[Key]:
        """The objects that may be about services in one of the namespaces."""
        namespaces = namespaces | {self._options.root_namespace}
        return {item.key for item in self._index.unenforced() if item.spec.namespace in namespaces}

    def findings(self, key: Key) -> Diagnostics:
        """What is to be said about one object."""
        item = self._index.get(key)
        report = Report()
        if isinstance(item, Gateway) and self._options.target is Target.ENVOY:
            report.warning(
                item, "not-enforced", "kind",
                "Gateway is not enforced: no gateway listens for it, other than in Istio",
            )  # fmt: skip
        if not isinstance(item, Unenforced):
            return report.diagnostics
        hosts = self._hosts(item)
        if self._options.target is Target.ISTIO:
            if hosts and item.spec.effect_in_istio:
                text = f"{item.spec.effect_in_istio}: {_listed(hosts)}"
                report.warning(item, "not-enforced", "kind", text)
        else:
            where = f", for {_listed(hosts)}" if hosts else ""
            report.warning(
                item, "not-enforced", "kind",
                f"{item.spec.kind} is not enforced: {item.spec.effect}{where}",
            )  # fmt: skip
        return report.diagnostics

    def _hosts(self, item: Unenforced) -> list[str]:
        spec = item.spec
        everywhere = spec.namespace == self._options.root_namespace
        namespaces = self._services if everywhere else (spec.namespace,)
        return sorted(
            host
            for namespace in namespaces
            for host, service in self._services.get(namespace, {}).items()
            if any(_may_be(port.pods.items(), spec.labels) for port in service.ours)
        )


def _may_be(pods: Iterable[tuple[str, str]], labels: dict[str, str]) -> bool:
    """Whether pods with these labels, of which there may be more, may be selected."""
    known = dict(pods)
    return all(known.get(name, value) == value for name, value in labels.items())


def _listed(hosts: list[str]) -> str:
    more = len(hosts) - _LISTED
    return ", ".join(hosts[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")
