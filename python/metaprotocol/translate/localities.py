"""Which endpoints come first for whom: what a DestinationRule's localityLbSetting makes of a
service's endpoints, as priorities and weights in Envoy's sense.

Proxies get different endpoints by where they are, and nobody knows where they will be. But they
differ only in how many of a list of labels they share with which endpoints, so that there is one
set for each beginning of the labels that endpoints have. Where a proxy is says its node, and is
read as labels too (``LOCALITY_LABELS``). In a mesh istiod does all this.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from metaprotocol.audience import LOCALITY_LABELS, Labels, locality_labels
from metaprotocol.envoy.config import Host

_REGION = LOCALITY_LABELS[0]

_SHARES = 1_000_000
"""What the weights of all localities come to."""

MOST = 100_000
"""Endpoints in all sets together. Beyond, proxies are told apart by fewer labels."""


@dataclass(frozen=True)
class Near:
    """A setting, as it is written."""

    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    """From where, and to where with which weights."""
    failover: tuple[tuple[str, str], ...] = ()
    """From which region to which other, once there is nothing near."""
    priority: tuple[str, ...] = ()
    """Labels, the most important first, in place of the locality; with "=VALUE" instead of the
    proxy's own."""


@dataclass(frozen=True)
class Placed:
    """An endpoint and its labels."""

    host: Host
    labels: Mapping[str, str]


def labels_of(place: str) -> Labels:
    """What proxies have that "region/zone/sub-zone" means. The rest may be "*" or missing."""
    names = place.split("/", 2)
    return locality_labels(*("" if name == "*" else name for name in names))


def nearest(near: Near, endpoints: Sequence[Placed]) -> dict[Labels, list[Host]]:
    """The endpoints for proxies with these labels; those with the most labels that a proxy has are
    its own. () is for all others."""
    if near.distribute:
        return _distributed(near, endpoints)
    return _in_order(near, endpoints)


# --- distribute


def _distributed(near: Near, endpoints: Sequence[Placed]) -> dict[Labels, list[Host]]:
    made: dict[Labels, list[Host]] = {(): [endpoint.host for endpoint in endpoints]}
    seen: set[Labels] = set()
    for origin, shares in near.distribute:
        labels = labels_of(origin)
        if labels not in seen and any(weight for _, weight in shares):
            seen.add(labels)  # the first counts, as in Istio
            made[labels] = _shared(shares, endpoints)
    return made


def _shared(shares: Sequence[tuple[str, int]], endpoints: Sequence[Placed]) -> list[Host]:
    """Those that get something. A share of several localities is divided by what they weigh."""
    total = sum(weight for _, weight in shares) or 1
    left: dict[Labels, list[Host]] = defaultdict(list)
    for endpoint in endpoints:
        left[_locality(endpoint.host)].append(endpoint.host)
    made = []
    for place, weight in shares:
        wanted = set(labels_of(place))
        chosen = [left.pop(here) for here in list(left) if wanted.issubset(here)]
        if not weight:
            continue
        weights = [sum(host.weight for host in hosts) for hosts in chosen]
        for hosts, own in zip(chosen, weights, strict=True):
            share = max(1, round(_SHARES * weight / total * own / sum(weights)))
            made += [replace(host, locality_weight=share) for host in hosts]
    return made


def _locality(host: Host) -> Labels:
    return locality_labels(host.region, host.zone, host.sub_zone)


# --- failover


def _in_order(near: Near, endpoints: Sequence[Placed]) -> dict[Labels, list[Host]]:
    labels = [{**item.labels, **dict(_locality(item.host))} for item in endpoints]
    order = [label.partition("=") for label in near.priority or LOCALITY_LABELS]
    regions = {} if near.priority else dict(reversed(near.failover))  # the first counts
    nothing = [0] * len(endpoints)
    # How many labels in order each endpoint shares with proxies that have those of the key.
    shared: dict[Labels, list[int]] = {}
    left: deque[tuple[Labels, list[int], list[int], int]] = deque()
    left.append(((), list(range(len(endpoints))), nothing, 0))
    while left:
        key, members, counts, depth = left.popleft()
        if key not in shared and (len(shared) + 1) * len(endpoints) > MOST:
            break
        shared[key] = counts
        if depth == len(order):
            continue
        label, fixed, value = order[depth]
        sharing: dict[str, list[int]] = {}
        for index in members:
            has = labels[index].get(label)
            if has is not None and (has == value or not fixed):
                sharing.setdefault(has, []).append(index)
        for has, some in sharing.items():
            more = list(counts)
            for index in some:
                more[index] += 1
            own: Labels = key if fixed else (*key, (label, has))
            left.append((own, some, more, depth + 1))
    for region in regions:
        shared.setdefault(((_REGION, region),), nothing)
    return {
        key: _ranked(endpoints, counts, regions.get(dict(key).get(_REGION, ""), ""))
        for key, counts in shared.items()
    }


def _ranked(endpoints: Sequence[Placed], counts: Sequence[int], region: str) -> list[Host]:
    """The more they share, the sooner they are used. Of those that share nothing the ones in that
    region come first, if there is one."""
    ranks = [
        -count if count or not region else int(item.host.region != region)
        for item, count in zip(endpoints, counts, strict=True)
    ]
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    return [
        replace(item.host, priority=places[rank])
        for item, rank in zip(endpoints, ranks, strict=True)
    ]
