"""How a host of a cluster is chosen, and how many requests may be sent once more, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from metaprotocol.config.v1 import ClusterPolicy

_PICKS = {
    ClusterPolicy.ROUND_ROBIN: "hosts in turn, by weight",
    ClusterPolicy.RANDOM: "any host, by weight",
}
_DEFAULTS = {
    "choice_count": 2,
    "retry_budget_percent": 20.0,
    "min_retries_in_flight": 10,
}


def cluster_policy(cluster: Mapping[str, Any]) -> ClusterPolicy | None:
    """The engine's part of a cluster, in its JSON form; None if it is none of ours."""
    for policy in cluster.get("load_balancing_policy", {}).get("policies", ()):
        config = policy.get("typed_extension_config", {}).get("typed_config", {})
        text = config.get("lb_policy_config", {}).get("value")
        if isinstance(text, str):
            return json_format.Parse(text, ClusterPolicy())
    return None


def describe_choice(
    policy: ClusterPolicy, hash_on: Sequence[str], metadata: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Which of a cluster's hosts a call gets that has this metadata, and what may change that."""
    if policy.policy in (ClusterPolicy.RING_HASH, ClusterPolicy.MAGLEV):
        how = "ring" if policy.policy == ClusterPolicy.RING_HASH else "Maglev's table"
        # As the engine hashes: the first value of each key.
        values = [(key, next((v for k, v in metadata if k == key), None)) for key in hash_on]
        known = ", ".join(f'{key}="{value}"' for key, value in values if value is not None)
        if known:
            yield f"the host that {how} has for {known}"
        else:
            keys = f"none of {', '.join(hash_on)}" if hash_on else "nothing to hash"
            yield f"any host, by weight: the call has {keys}"
    elif policy.policy == ClusterPolicy.LEAST_REQUEST:
        of = _value(policy, "choice_count")
        yield f"the host with fewest calls under way of {of} at random"
    else:
        yield _PICKS[policy.policy]
    if policy.HasField("slow_start"):
        seconds = policy.slow_start.window.ToMilliseconds() / 1000
        yield f"a new host gets its share within {seconds:g} s"
    if policy.HasField("outlier_detection"):
        yield "hosts that fail are left out for a time"
    if policy.max_requests_per_connection:
        yield f"a connection gets {policy.max_requests_per_connection:,} calls"


def describe_retries(policy: ClusterPolicy) -> str:
    """How many retries may be under way in a cluster."""
    percent, least = (
        _value(policy, key) for key in ("retry_budget_percent", "min_retries_in_flight")
    )
    if not percent:
        return f"while fewer than {least} retries are under way there"
    share = f"{percent:g} % of the calls under way there"
    return f"while retries are less than {share}, or {least}"


def _value(policy: ClusterPolicy, field: str) -> Any:
    """As it is given, or what the engine takes."""
    return getattr(policy, field) if policy.HasField(field) else _DEFAULTS[field]
