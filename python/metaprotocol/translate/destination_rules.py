"""DestinationRules to policies: which ones hold for a host, and for which of its clients.

As in Istio it depends on the client. A rule of its own namespace that selects its workload by
labels has the say alone. Otherwise, of the rules that are exported to its namespace, the
namespace's own count; without any, those of the service's namespace; then those of the root
namespace. Among them the one with the most specific host counts, and of several with that host the
oldest decides, while their subsets are put together.

Where there is one Envoy for all, it is taken for a client in the service's own namespace. For it
alone the rules of all other namespaces come last: whoever tries a folder on one machine has no
clients there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from metaprotocol.audience import Clients, overlapping
from metaprotocol.resources import DestinationRule, Key, Unreadable
from metaprotocol.translate.faults import about
from metaprotocol.translate.naming import full_host, is_wildcard
from metaprotocol.translate.options import Options, Target
from metaprotocol.translate.policy import HostPolicies, Subset, Written
from metaprotocol.translate.reporting import Diagnostics, Report, age
from metaprotocol.translate.traffic_policies import written_policy
from metaprotocol.translate.visibility import exported_to


def host_policies(
    host: str, namespace: str, candidates: Iterable[DestinationRule], options: Options
) -> tuple[HostPolicies, Diagnostics]:
    """What ``candidates``, whose hosts all cover ``host``, say about the service of ``namespace``
    with that host."""
    report = Report()
    ordered = sorted(candidates, key=age)
    if not options.respect_export_to or options.target is Target.ISTIO:
        ordered = [rule for rule in ordered if _for_everyone(rule, report)]
    used: dict[Key, DestinationRule] = {}

    def told(clients: Clients | None) -> HostPolicies:
        visible = [rule for rule in ordered if _sees(clients, rule)]
        client = clients.namespace if clients is not None else None
        rules = _most_specific(_nearest(visible, client, namespace, options), options)
        rules = _selecting(rules)
        used.update((rule.key, rule) for rule in rules)
        return _put_together(host, rules, report)

    if options.respect_export_to:
        policies = told(None)
        others = {clients: told(clients) for clients in sorted(_clients(namespace, ordered))}
        differing = {
            clients: other
            for clients, other in others.items()
            if clients.labels or other != policies
        }
        policies = replace(policies, for_clients=differing)
    else:
        policies = told(Clients(namespace))
    for rule in ordered:
        if rule.key not in used and not is_wildcard(rule.spec.host):
            _without_effect(rule, host, namespace, policies.base, options, report)
    return policies, report.diagnostics


def without_service(
    host: str, candidates: Iterable[DestinationRule], options: Options
) -> Diagnostics:
    """What is to be said of ``candidates`` where no service has that host."""
    report = Report()
    for rule in candidates:
        if not is_wildcard(rule.spec.host) and host == _full_host(rule, options):
            report.warning(
                rule, "no-host", "spec.host", f'no ServiceEntry has host "{host}"',
                value=rule.spec.host, fix="add a ServiceEntry with this host",
            )  # fmt: skip
    return report.diagnostics


def _clients(namespace: str, rules: Sequence[DestinationRule]) -> set[Clients]:
    """The clients that may be told something that others are not."""
    namespaces = {namespace}
    selected: set[Clients] = set()
    for rule in rules:
        namespaces.add(rule.key.namespace)
        namespaces |= exported_to(rule.spec.export_to, rule.key.namespace) or set()
        if labels := _labels(rule):
            selected.add(Clients.of(rule.key.namespace, labels.items()))
    if len(namespaces) < 2 and not any(rule.spec.export_to for rule in rules):
        namespaces = set()
    return {*map(Clients, namespaces), *overlapping(selected)}


def _labels(rule: DestinationRule) -> Mapping[str, str]:
    """The labels of the workloads that a rule is for; none: it is for all."""
    selector = rule.spec.workload_selector
    return selector.match_labels if selector is not None else {}


def _sees(clients: Clients | None, rule: DestinationRule) -> bool:
    """Whether clients (None: none in particular) see the rule. Those of its own namespace do in any
    case, as in Istio; of others none does if it is for workloads with certain labels."""
    namespace = rule.key.namespace
    if labels := _labels(rule):
        return clients is not None and clients.within(Clients.of(namespace, labels.items()))
    visible = exported_to(rule.spec.export_to, namespace)
    if visible is None:
        return True
    client = clients.namespace if clients is not None else None
    return client in visible or bool(visible and client == namespace)


def _selecting(rules: Sequence[DestinationRule]) -> list[DestinationRule]:
    """As in Istio, a rule that selects a workload has the say about it alone: the oldest of them,
    with others that select the same."""
    selecting = [rule for rule in rules if _labels(rule)]
    return [rule for rule in selecting if _labels(rule) == _labels(selecting[0])] or list(rules)


def _nearest(
    rules: Sequence[DestinationRule], client: str | None, namespace: str, options: Options
) -> list[DestinationRule]:
    """The rules of the first namespace, in Istio's order, that has any for this service."""
    for place in (client, namespace, options.root_namespace):
        if found := [rule for rule in rules if rule.key.namespace == place]:
            return found
    return [] if options.respect_export_to else list(rules)


def _most_specific(rules: Sequence[DestinationRule], options: Options) -> list[DestinationRule]:
    most = max((_specificity(rule, options) for rule in rules), default=None)
    return [rule for rule in rules if _specificity(rule, options) == most]


def _put_together(host: str, rules: Sequence[DestinationRule], report: Report) -> HostPolicies:
    """Rules that all hold, the oldest first."""
    if not rules:
        return HostPolicies()
    base = next((rule for rule in rules if rule.spec.traffic_policy is not None), rules[0])
    subsets: dict[str, Subset] = {}
    for rule in rules:
        if rule is not base and rule.spec.traffic_policy is not None:
            report.warning(
                rule, "rule-conflict", "spec.trafficPolicy",
                f"{base.key} has a policy for {host} already",
                fix="the oldest one counts, then the first by namespace and name",
            )  # fmt: skip
        for index, subset in enumerate(rule.spec.subsets):
            place = f"spec.subsets[{index}]"
            kept = subsets.get(subset.name)
            if kept is None:
                with about(rule):
                    policy = written_policy(rule, subset.traffic_policy, f"{place}.trafficPolicy")
                made = Subset(subset.name, subset.labels, policy, rule, place)
                subsets[subset.name] = made
            else:
                report.warning(
                    rule, "rule-conflict", f"{place}.name",
                    f"{kept.owner.key} has this subset of {host} already",
                    value=subset.name, fix="give one of them another name",
                )  # fmt: skip
    with about(base):
        policy = written_policy(base, base.spec.traffic_policy, "spec.trafficPolicy")
    return HostPolicies(policy, subsets)


def _for_everyone(rule: DestinationRule, report: Report) -> bool:
    """Whether a rule is for all clients rather than for some pods, which are not told apart."""
    selector = rule.spec.workload_selector
    if selector is None or not selector.match_labels:
        return True
    report.warning(
        rule, "workload-selector", "spec.workloadSelector",
        "is for clients with these labels alone, which are not told apart; the rule has no effect",
        fix="remove workloadSelector, and the rule is for all clients",
    )  # fmt: skip
    return False


def with_unreadable(
    policies: HostPolicies, namespace: str, candidates: Iterable[Unreadable], options: Options
) -> HostPolicies:
    """``policies`` of a host of ``namespace``, where ``candidates``, which cannot be read, may be
    for it as well: they count for clients that would get them, where they may outrank the
    others."""
    found = list(candidates)

    def doubted(told: HostPolicies, client: str) -> HostPolicies:
        order = (client, namespace, options.root_namespace)
        doubts = tuple(
            item
            for item in found
            if _may_be_for(item, order, options) and _may_outrank(item, told.base, order)
        )
        return replace(told, unreadable=doubts)

    if not options.respect_export_to:
        return doubted(policies, namespace)
    others = {Clients(item.key.namespace) for item in found if item.spec.name}
    others -= {Clients(namespace)}
    views = {clients: policies.of(clients) for clients in {*others, *policies.for_clients}}
    made = {clients: doubted(told, clients.namespace) for clients, told in views.items()}
    default = doubted(policies, namespace)
    differing = {
        clients: told
        for clients, told in made.items()
        if clients in policies.for_clients or told != replace(default, for_clients={})
    }
    return replace(default, for_clients=differing)


def _may_be_for(unreadable: Unreadable, order: Sequence[str], options: Options) -> bool:
    """Whether clients get the rules of a namespace that is in ``order``, or not known."""
    if not options.respect_export_to or not unreadable.spec.name:
        return True
    return unreadable.key.namespace in order


def _may_outrank(unreadable: Unreadable, base: Written | None, order: Sequence[str]) -> bool:
    """Whether it may come before the rule that decides without it. ``order`` is that of the
    namespaces."""
    if base is None:
        return True
    hosts = unreadable.spec.hosts
    if not unreadable.spec.name or hosts is None:
        return False  # with a rule that can be read, there is no reason to look for another one
    own, other = (
        order.index(namespace) if namespace in order else len(order)
        for namespace in (unreadable.key.namespace, base.owner.key.namespace)
    )
    if own != other:
        return own < other
    if base.says_nothing:
        return True
    exact = not all(map(is_wildcard, hosts))
    if exact != (not is_wildcard(base.host)):
        return exact
    return age(unreadable) < age(base.owner)


def _without_effect(
    rule: DestinationRule,
    host: str,
    namespace: str,
    base: Written | None,
    options: Options,
    report: Report,
) -> None:
    """Tells of a rule that holds for nobody."""
    visible = exported_to(rule.spec.export_to, rule.key.namespace)
    if visible is not None and namespace not in visible:
        names = ", ".join(sorted(visible))
        report.info(
            rule, "rule-not-exported", "spec.exportTo",
            f"has no effect on clients of {host} in {namespace}: "
            + (f"it is for {names} alone" if names else "it is for no namespace"),
            fix=f'to include them, add "{namespace}" or "*"',
        )  # fmt: skip
        return
    report.warning(
        rule, "rule-conflict", "spec.host",
        f"{base.owner.key} has the rules for {host}" if base
        else f"rules of {rule.key.namespace} do not hold for clients of {host} elsewhere",
        value=rule.spec.host,
        fix="those of the client's own namespace count, then those of the service's, then those "
        f"of {options.root_namespace}",
    )  # fmt: skip


def _specificity(rule: DestinationRule, options: Options) -> tuple[bool, int]:
    host = _full_host(rule, options)
    return not is_wildcard(host), len(host)


def _full_host(rule: DestinationRule, options: Options) -> str:
    return full_host(rule.spec.host, rule.key.namespace, options.cluster_domain)
