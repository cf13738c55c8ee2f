"""Which route a call takes, and why: every condition of the routes before it, decided by the engine
that also runs in Envoy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from metaprotocol.api.balancing import describe_choice, describe_retries
from metaprotocol.api.rehearsal import Rehearsal
from metaprotocol.api.routing import (
    FilterSnapshot,
    describe_changes,
    describe_condition,
    destinations,
)
from metaprotocol.config.v1 import (
    AuthorizationPolicy,
    ClusterPolicy,
    ConcurrencyLimit,
    Condition,
    DirectReply,
    GlobalRateLimit,
    Protocol,
    ProxyConfig,
    RateLimitDescriptor,
    RateLimitEntry,
    Route,
    RouteTable,
    TokenBucket,
    to_json,
)
from metaprotocol.engine import Config

CONNECTION_PREFIX = "connection."


@dataclass(frozen=True)
class ConditionResult:
    """One condition: in words, whether it holds, and the values it was asked about."""

    text: str
    key: str
    held: bool
    values: tuple[str, ...]


@dataclass(frozen=True)
class RouteResult:
    """One route that was tried: whether it takes the call, and how each condition came out."""

    name: str
    taken: bool
    conditions: tuple[ConditionResult, ...]


class Tone(Enum):
    """How a line is meant."""

    PLAIN = "plain"
    TITLE = "title"
    GOOD = "good"
    BAD = "bad"
    DIM = "dim"


@dataclass(frozen=True)
class Line:
    """A line of an explanation."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Explanation:
    """What becomes of a call.

    ``tried`` are the routes in order, up to the one that takes it. ``destinations`` are its
    clusters with their shares in percent, empty for a direct reply and where no route takes the
    call.
    """

    filter: str
    codec: str
    metadata: tuple[tuple[str, str], ...]
    tried: tuple[RouteResult, ...]
    route: str | None
    destinations: tuple[tuple[str, float], ...] = ()
    direct_reply: str = ""
    changes: tuple[str, ...] = ()
    denied: str = ""
    """Why no server gets the call: the authorization policy that denies it, or that there is none
    which allows it; "": it is allowed."""
    limits: tuple[str, ...] = ()
    """What may refuse the call at this moment, in the order in which it is asked."""
    telemetry: tuple[str, ...] = ()
    """What is told of the call once it has ended, whatever becomes of it."""
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The endpoints of each of these clusters, as "address:port", where they are known."""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """How a host of each of these clusters is chosen, where that is known."""
    hash_on: tuple[str, ...] = ()
    """The metadata keys whose values choose the host, in clusters that hash."""
    retries: bool = False
    """Whether the route has a policy for calls that fail."""
    rehearsal: Rehearsal | None = None
    """What became of such calls when they were played, if they were."""

    def __str__(self) -> str:
        """As ``metaprotocol try`` prints it."""
        return "\n".join(line.text for line in self.lines())

    def lines(self) -> Iterator[Line]:
        """What becomes of the call and why, for people."""
        yield from self._decision()
        for told in self.telemetry:
            yield Line(f"and then {told}")
        if self.rehearsal is not None:
            yield Line("")
            yield from map(Line, self.rehearsal.lines())

    def _decision(self) -> Iterator[Line]:
        yield Line(f"{self.filter} ({self.codec})", Tone.TITLE)
        # A protocol may say the same twice, such as Dubbo its interface: as path and as attachment.
        pairs = dict.fromkeys(pair for pair in self.metadata if pair[1])
        shown = ", ".join(f'{key}="{value}"' for key, value in pairs)
        yield Line(f"metadata: {shown or 'none'}")
        yield Line("")
        for number, route in enumerate(self.tried, start=1):
            mark = "takes it" if route.taken else "passes it on"
            yield Line(f"{number}. {route.name}: {mark}", Tone.GOOD if route.taken else Tone.DIM)
            for item in route.conditions:
                sign = "+" if item.held else "-"
                values = ", ".join(f'"{value}"' for value in item.values) or "absent"
                yield Line(f"     {sign} {item.text}   ({item.key}: {values})")
            if not route.conditions:
                yield Line("     + takes every call")
        if self.route is None:
            text = "No route takes this call: the client gets the protocol's own error."
            yield Line(text, Tone.BAD)
            return
        yield Line("")
        if self.denied:
            yield Line(f"It is denied: {self.denied}", Tone.BAD)
            return
        for limit in self.limits:
            yield Line(f"if {limit}")
        if self.direct_reply:
            yield Line(f"The proxy answers by itself: {self.direct_reply}")
        for name, share in self.destinations:
            part = "" if len(self.destinations) == 1 else f"{share:.4g} % "
            if name not in self.hosts:
                yield Line(f"to {part}{name}")
                continue
            where = ", ".join(self.hosts[name])
            tone = Tone.PLAIN if where else Tone.BAD
            yield Line(f"to {part}{name} ({where or 'NO HOST'})", tone)
            for phrase in self.choices.get(name, ()) if where else ():
                yield Line(f"     {phrase}", Tone.DIM)
        for change in self.changes:
            yield Line(f"with {change}")

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "filter": self.filter,
            "codec": self.codec,
            "metadata": [
                {"key": key, "value": value}
                for key, value in dict.fromkeys(pair for pair in self.metadata if pair[1])
            ],
            "route": self.route,
            "destinations": [
                {"cluster": name, "percent": share} for name, share in self.destinations
            ],
            "choices": {name: list(phrases) for name, phrases in self.choices.items()},
            "direct_reply": self.direct_reply or None,
            "changes": list(self.changes),
            "denied": self.denied or None,
            "limits": list(self.limits),
            "telemetry": list(self.telemetry),
            "rehearsal": self.rehearsal.to_dict() if self.rehearsal is not None else None,
            "tried": [
                {
                    "route": route.name,
                    "taken": route.taken,
                    "conditions": [
                        {
                            "condition": item.text,
                            "key": item.key,
                            "values": list(item.values),
                            "holds": item.held,
                        }
                        for item in route.conditions
                    ],
                }
                for route in self.tried
            ],
        }


def explain(snapshot: FilterSnapshot, metadata: Sequence[tuple[str, str]]) -> Explanation:
    """What the filter does with a message that has this metadata (keys as the codec names them;
    those that begin with "connection." are the connection's). ConfigInvalid if the engine refuses
    the filter's configuration."""
    pairs = tuple(metadata)
    table = snapshot.proxy.route_tables[0] if snapshot.proxy.route_tables else RouteTable(name="-")
    chosen = _match(snapshot.proxy, pairs)
    tried = []
    taken: Route | None = None
    for position, route in enumerate(table.routes):
        name = route.name or f"{table.name}/{position}"
        results = tuple(_decide(snapshot.proxy.protocol, item, pairs) for item in route.match)
        tried.append(RouteResult(name, name == chosen, results))
        if name == chosen:
            taken = route
            break
    telemetry = tuple(_telemetry(snapshot.proxy, pairs))
    if taken is None:
        return Explanation(
            snapshot.name, snapshot.codec, pairs, tuple(tried), None, telemetry=telemetry
        )
    reply = ""
    if taken.HasField("direct_reply"):
        reply = taken.direct_reply.kind
    return Explanation(
        snapshot.name,
        snapshot.codec,
        pairs,
        tuple(tried),
        chosen,
        tuple(destinations(taken)),
        reply,
        tuple(describe_changes(taken)),
        _denial(snapshot.proxy, pairs),
        tuple(_limits(snapshot.proxy, table, pairs)),
        telemetry,
        hash_on=tuple(taken.hash_on),
        retries=taken.HasField("retry"),
    )


def with_clusters(
    found: Explanation,
    hosts: Mapping[str, Sequence[str]],
    policies: Mapping[str, ClusterPolicy | None],
) -> Explanation:
    """``found`` with what is known of the clusters that it leads to."""
    choices = {}
    for name, policy in policies.items():
        if policy is None:
            continue
        phrases = list(describe_choice(policy, found.hash_on, found.metadata))
        if found.retries:
            phrases.append(f"once more {describe_retries(policy)}")
        choices[name] = phrases
    return replace(found, hosts=hosts, choices=choices)


def _limits(
    proxy: ProxyConfig, table: RouteTable, pairs: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    """Who is asked about the call, and the limits that it is under, each as a phrase."""
    for name in ("custom_authorization", "external_authorization"):
        check = getattr(table, name)
        asked_about = check.cluster and _holds(proxy.protocol, check.match, pairs)
        met = (_holds(proxy.protocol, rule.match, pairs) for rule in check.any_of)
        if asked_about and (not check.any_of or any(met)):
            what = "lets it pass" if check.failure_mode_allow else "denies it"
            yield f"{check.cluster} allows it; no verdict {what}"
    if table.HasField("local_rate_limit"):
        limit = table.local_rate_limit
        rules = (rule for rule in limit.rules if _holds(proxy.protocol, rule.match, pairs))
        rule = next(rules, None)
        if rule is not None:
            whose = "the bucket of such calls"
            if rule.per_value_of:
                values = ", ".join(f'{key}="{_value(key, pairs)}"' for key in rule.per_value_of)
                whose = f"the bucket of {values}"
            yield f"{whose} has a token: {_rate(rule.token_bucket)}"
        elif limit.HasField("token_bucket"):
            yield f"the common bucket has a token: {_rate(limit.token_bucket)}"
    if table.HasField("concurrency_limit"):
        yield from _concurrency(proxy, table.concurrency_limit, pairs)
    if table.HasField("global_rate_limit"):
        asked = table.global_rate_limit
        values = ", ".join(_descriptors(proxy.protocol, asked, pairs))
        if values:
            what = "refuses it" if asked.deny_on_fail else "lets it pass"
            yield (
                f'{asked.cluster} lets it pass, told "{asked.domain}" and {values}; '
                f"no answer {what}"
            )


def _descriptors(
    protocol: Protocol, limit: GlobalRateLimit, pairs: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    """What a rate limit service is told of the call."""
    present = {key for key, _ in pairs}
    if not _holds(protocol, limit.match, pairs):
        return
    rules = (rule.descriptors for rule in limit.rules if _holds(protocol, rule.match, pairs))
    for descriptors in (limit.descriptors, *rules):
        written: list[list[RateLimitDescriptor | RateLimitEntry]] = [
            [one, *one.also] for one in descriptors
        ]
        if not any(entry.value or entry.key in present for one in written for entry in one):
            continue
        for entries in written:
            yield " with ".join(
                f'{entry.descriptor_key}="{entry.value or _value(entry.key, pairs)}"'
                for entry in entries
            )


def _concurrency(
    proxy: ProxyConfig, limit: ConcurrencyLimit, pairs: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    """How many may be under way with the call."""
    rules = (rule for rule in limit.rules if _holds(proxy.protocol, rule.match, pairs))
    rule = next(rules, None)
    whose = "no more such calls are under way"
    if rule is None:
        if not limit.HasField("max_requests"):
            return
        whose = "no more calls are under way"
    elif rule.per_value_of:
        values = ", ".join(f'{key}="{_value(key, pairs)}"' for key in rule.per_value_of)
        whose = f"no more calls with {values} are under way"
    counted = limit if rule is None else rule
    most = f"{counted.max_requests:,}"
    fewer = ", or fewer where they take long" if counted.HasField("adaptive") else ""
    yield f"{whose} than {most}{fewer}"


def _rate(bucket: TokenBucket) -> str:
    fill = bucket.tokens_per_fill if bucket.HasField("tokens_per_fill") else bucket.max_tokens
    seconds = bucket.fill_interval.ToMicroseconds() / 1e6
    return f"{bucket.max_tokens} at once, {fill} more every {seconds:g} s"


def _value(key: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """As rate limits take it: the first, and what is not there is empty."""
    return next((value for name, value in pairs if name == key), "")


def _telemetry(proxy: ProxyConfig, pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """The access logs that want the call, and tracing, each as a phrase."""
    for log in proxy.access_logs:
        if log.match and not _holds(proxy.protocol, log.match, pairs):
            continue
        when = []
        if log.failures_only:
            when.append("it has failed")
        if log.HasField("min_duration") and log.min_duration.ToMicroseconds():
            when.append(f"it took {log.min_duration.ToMilliseconds() / 1000:g} s or more")
        percent = log.percent if log.HasField("percent") else 100
        text = f"a record at {log.collector.cluster}" if log.collector.cluster else ""
        text = text or f"a line in {log.path}"
        if percent < 100:
            text += f", for {percent:.4g} % of such calls"
        yield f"{text}, if {' and '.join(when)}" if when else text
    if proxy.generate_request_ids and not _value("x-request-id", pairs):
        yield "an x-request-id, which the call does not have"
    if proxy.HasField("tracing"):
        tracing = proxy.tracing
        percent = tracing.percent if tracing.HasField("percent") else 100
        share = f"{percent:.4g} % of calls that say nothing of sampling"
        yield f"a span at {tracing.cluster}, for {share}"


def _denial(proxy: ProxyConfig, pairs: tuple[tuple[str, str], ...]) -> str:
    """Why the call is denied, as the engine decides it; "" if it is not."""
    table = proxy.route_tables[0]
    if not table.HasField("authorization"):
        return ""
    policies = table.authorization.policies
    deny = [policy for policy in policies if policy.action == AuthorizationPolicy.DENY]
    allow = [policy for policy in policies if policy.action == AuthorizationPolicy.ALLOW]
    if (name := _first_met(proxy, deny, pairs)) is not None:
        return f"by the authorization policy {name}"
    if allow and _first_met(proxy, allow, pairs) is None:
        return f"no authorization policy allows it ({', '.join(item.name for item in allow)})"
    return ""


def _first_met(
    proxy: ProxyConfig, policies: Sequence[AuthorizationPolicy], pairs: tuple[tuple[str, str], ...]
) -> str | None:
    """The name of the first policy with a rule that the call meets."""
    reply = DirectReply(kind="no_content")
    routes = [
        Route(name=f"{position}/{rule}", match=policy.rules[rule].match, direct_reply=reply)
        for position, policy in enumerate(policies)
        for rule in range(len(policy.rules))
    ]
    alone = ProxyConfig(
        name="policies", protocol=proxy.protocol, route_tables=[RouteTable(name="t", routes=routes)]
    )
    met = _match(alone, pairs)
    return policies[int(met.partition("/")[0])].name if met is not None else None


def _decide(
    protocol: Protocol, condition: Condition, pairs: tuple[tuple[str, str], ...]
) -> ConditionResult:
    return ConditionResult(
        describe_condition(condition),
        condition.key,
        _holds(protocol, [condition], pairs),
        tuple(value for key, value in pairs if key == condition.key),
    )


def _holds(
    protocol: Protocol, conditions: Iterable[Condition], pairs: tuple[tuple[str, str], ...]
) -> bool:
    """Whether all of them hold, as the engine decides it."""
    reply = DirectReply(kind="no_content")
    routes = [Route(name="holds", match=conditions, direct_reply=reply)]
    alone = ProxyConfig(
        name="conditions", protocol=protocol, route_tables=[RouteTable(name="t", routes=routes)]
    )
    return _match(alone, pairs) == "holds"


def _match(proxy: ProxyConfig, pairs: tuple[tuple[str, str], ...]) -> str | None:
    message = [pair for pair in pairs if not pair[0].startswith(CONNECTION_PREFIX)]
    connection = [pair for pair in pairs if pair[0].startswith(CONNECTION_PREFIX)]
    return Config(to_json(proxy)).match(message, connection)
