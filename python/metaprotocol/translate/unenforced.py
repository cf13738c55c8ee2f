"""What is said of objects that ask for something which is not done, and for whom it is not."""

from __future__ import annotations

from collections.abc import Iterable

from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources import Gateway, Key, Unenforced
from metaprotocol.translate.access import AccessPolicy
from metaprotocol.translate.authorization import selects_in_any_protocol
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
        """Those that there are, by namespace and host."""

    def reshaped(self, host: str, old: Service | None, new: Service | None) -> None:
        """Takes a service as it is now."""
        if old is not None:
            others = self._services.get(old.namespace, {})
            others.pop(host, None)
            if not others:
                self._services.pop(old.namespace, None)
        if new is not None:
            self._services.setdefault(new.namespace, {})[host] = new

    def about(self, namespaces: set[str]) -> set[Key]:
        """The objects that may be about services in one of the namespaces."""
        namespaces = namespaces | {self._options.root_namespace}
        found = {item.key for item in self._index.unenforced() if item.spec.namespace in namespaces}
        for namespace in self._index.policy_namespaces():
            if namespace in namespaces or namespace not in self._services:
                found |= self._index.policies_of(namespace).keys()
        return found

    def findings(self, key: Key) -> Diagnostics:
        """What is to be said about one object."""
        item = self._index.get(key)
        report = Report()
        if isinstance(item, Gateway) and self._options.target is Target.ENVOY:
            report.warning(
                item, "not-enforced", "kind",
                "Gateway is not enforced: no gateway listens for it, other than in Istio",
            )  # fmt: skip
        policy = self._index.policies_of(key.namespace).get(key)
        if policy is not None and not self._is_for_some_service(policy):
            self._tell_of_policy(policy, report)
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

    def _is_for_some_service(self, policy: AccessPolicy) -> bool:
        """Whether it may be for some service, of ours or others'."""
        if policy.known_to_istio and self._options.target is Target.ISTIO:
            return True  # which is istiod's to say
        namespace = policy.owner.key.namespace
        everywhere = namespace == self._options.root_namespace
        places = self._services if everywhere else (namespace,)
        return any(
            selects_in_any_protocol(policy, service, port) is not False
            for place in places
            for service in self._services.get(place, {}).values()
            for port in service.ports
        )

    def _tell_of_policy(self, policy: AccessPolicy, report: Report) -> None:
        owner = policy.owner
        namespace = owner.key.namespace
        if policy.services is not None:
            field = "spec.targetRefs" if owner.spec.target_refs else "spec.targetRef"
            text = "is for gateways, which are not configured"
            if policy.services:
                names = _listed(sorted(policy.services))
                text = f"namespace {namespace} has no service of this name: {names}"
            report.warning(owner, "no-effect", field, text)
        elif policy.labels and namespace in (*self._services, self._options.root_namespace):
            labels = ", ".join(f"{name}={value}" for name, value in sorted(policy.labels.items()))
            report.warning(
                owner, "no-effect", "spec.selector.matchLabels",
                "no service has pods or endpoints with these labels: it is for no request",
                value=labels, fix="write labels that they have, or remove the selector",
            )  # fmt: skip
        elif self._services and namespace != self._options.root_namespace:
            meant = did_you_mean(namespace, self._services)
            if meant is not None or "namespace" not in owner.metadata.model_fields_set:
                report.warning(
                    owner, "no-effect", "metadata.namespace",
                    "no service is in this namespace: it is for no request", value=namespace,
                    fix=f'did you mean "{meant}"?' if meant
                    else f"there are services in {_listed(sorted(self._services))}",
                )  # fmt: skip

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
