"""MetaRouters to plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from metaprotocol.config.v1 import (
    AdaptiveConcurrency,
    ConcurrencyLimit,
    DirectReply,
    ExternalAuthorization,
    GlobalRateLimit,
    KeyValue,
    LocalRateLimit,
    Mutation,
    RateLimitDescriptor,
    RateLimitEntry,
    Retry,
    Route,
    TokenBucket,
)
from metaprotocol.diagnostics import join_path
from metaprotocol.resources import (
    MetaRoute,
    MetaRouter,
    concurrency_limit,
    meta_router,
    rate_limits,
)
from metaprotocol.resources import external_authorization as external
from metaprotocol.resources.library_filter import FilterChange
from metaprotocol.resources.traffic import Fault, Retries
from metaprotocol.translate.access_logs import access_log
from metaprotocol.translate.limits import limits_message
from metaprotocol.translate.matches import conditions
from metaprotocol.translate.plan import (
    Destination,
    Place,
    PlannedCheck,
    PlannedFilter,
    PlannedQuestion,
    PlannedRoute,
    RoutePlan,
    first_step,
)
from metaprotocol.translate.reporting import LONGEST_TIME, SHORTEST_TIME, Report, bounded_time
from metaprotocol.translate.request_metrics import planned_metrics
from metaprotocol.translate.tracing import planned_tracing
from metaprotocol.translate.visibility import exported_to

FAULT_FILTER = "fault"
"""Name of the filter for faults on purpose."""

# The engine's bounds.
_LONGEST_QUESTION = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)
"""The engine's bound on delays."""
"""Of a fault, or before a retry."""

_LOCAL, _GLOBAL = "spec.localRateLimit", "spec.globalRateLimit"
_CONCURRENCY = "spec.concurrencyLimit"
_CHECK = "spec.externalAuthorization"
# Parts of a route that have another name in a MetaRouter.
_RENAMED = {
    "name": "name",
    "timeout": "timeout",
    "direct_reply": "directReply",
    "cluster": "route",
    "weighted_clusters": "route",
    "hash_on": "route",
    "mirrors": "mirror",
    "retry": "retries",
    "priority": "priority",
    "filters": "fault",
}
_MUTATIONS = {"request_mutation": "requestMutation", "response_mutation": "responseMutation"}
_OPERATIONS = {"remove": "Remove", "add_if_absent": "Add"}


def route_plan(router: MetaRouter, report: Report) -> RoutePlan:
    """What a MetaRouter says. ``report`` is told what the engine would not take as written."""
    return _Reader(router, report).read()


class _Reader:
    def __init__(self, router: MetaRouter, report: Report) -> None:
        self._router = router
        self._report = report

    def read(self) -> RoutePlan:
        router, spec = self._router, self._router.spec
        local, asked = spec.local_rate_limit, spec.global_rate_limit
        return RoutePlan(
            router,
            spec.hosts,
            [
                self._route(written, f"spec.routes[{index}]")
                for index, written in enumerate(spec.routes)
            ],
            self._local_rate_limit(local) if local is not None else None,
            self._global_rate_limit(asked) if asked is not None else None,
            limits_message(spec.limits) if spec.limits is not None else None,
            spec.one_way_methods,
            None if spec.access_logs is None else [access_log(log) for log in spec.access_logs],
            None if spec.tracing is None else planned_tracing(spec.tracing),
            None if spec.request_metrics is None else planned_metrics(spec.request_metrics),
            exported_to(spec.export_to, router.key.namespace),
            None
            if spec.external_authorization is None
            else self._check(spec.external_authorization),
            [_full_name(name, router.key.namespace) for name in spec.gateways],
            concurrency_limit=(
                None
                if spec.concurrency_limit is None
                else self._concurrency_limit(spec.concurrency_limit)
            ),
            filters=self._filters(spec.filters, "spec"),
            place=_places(router),
            generate_request_ids=spec.generate_request_ids,
        )

    # --- routes

    def _route(self, written: MetaRoute, field: str) -> PlannedRoute:
        route = Route(name=written.name, match=conditions(written.match))
        if written.direct_reply is not None:
            reply = written.direct_reply
            route.direct_reply.CopyFrom(DirectReply(kind=reply.kind, text=reply.text))
        if written.timeout is not None:
            route.timeout.FromTimedelta(self._bounded(written.timeout, f"{field}.timeout"))
        request = mutations(
            written.request_mutation_remove,
            written.request_mutation,
            written.request_mutation_add,
        )
        response = mutations(
            written.response_mutation_remove,
            written.response_mutation,
            written.response_mutation_add,
        )
        if request:
            route.request_mutation.extend(request)
        if response:
            route.response_mutation.extend(response)
        if written.priority == "HIGH":
            route.priority = Route.HIGH
        if written.retries is not None and written.retries.attempts:
            self._retry(written.retries, f"{field}.retries", route)
        if written.fault is not None:
            self._fault(written.fault, f"{field}.fault", route)
        destinations = [
            _destination(share.destination, f"{field}.route[{index}].destination", share.weight)
            for index, share in enumerate(written.route)
        ]
        mirrors = []
        if written.mirror is not None:
            percent = written.mirror_percent
            mirrors.append(_destination(written.mirror, f"{field}.mirror", percent=percent))
        for index, mirror in enumerate(written.mirrors):
            there = f"{field}.mirrors[{index}].destination"
            mirrors.append(_destination(mirror.destination, there, percent=mirror.percent))
        keys = sorted(written.match.attributes)
        filters = self._filters(written.filters, field)
        return PlannedRoute(route, field, keys, destinations, mirrors, filters)

    def _filters(self, written: Sequence[FilterChange], field: str) -> list[PlannedFilter]:
        return [
            PlannedFilter(
                item.name, item.disabled, item.options,
                Place(self._router, f"{field}.filters[{index}]"),
            )
            for index, item in enumerate(written)
        ]  # fmt: skip

    def _retry(self, written: Retries, field: str, route: Route) -> None:
        retry = route.retry
        retry.attempts = written.attempts
        retry.on.extend(getattr(Retry, cause) for cause in written.causes)
        retry.status_codes.extend(written.statuses)
        retry.reply_keys.extend(dict.fromkeys(written.reply_metadata))
        if written.per_try_timeout is not None:
            bounded = self._bounded(written.per_try_timeout, f"{field}.perTryTimeout")
            retry.per_try_timeout.FromTimedelta(bounded)
        if written.backoff is not None:
            # The engine's shortest pause is as good as none.
            base = min(max(written.backoff, SHORTEST_TIME), LONGEST_PAUSE)
            retry.backoff.FromTimedelta(base)
            retry.max_backoff.FromTimedelta(min(base * 10, LONGEST_PAUSE))

    def _fault(self, written: Fault, field: str, route: Route) -> None:
        """In place of the table's filter of that name, which does nothing."""
        fault = route.filters.add(name=FAULT_FILTER).fault
        fault.SetInParent()
        if written.delay is not None:
            fault.delay.percent = written.delay.percentage.value
            bounded = self._bounded(
                written.delay.fixed_delay, f"{field}.delay.fixedDelay", LONGEST_PAUSE
            )
            fault.delay.duration.FromTimedelta(bounded)
        if written.abort is not None:
            fault.abort.percent = written.abort.percentage.value
            fault.abort.kind = written.abort.kind
            fault.abort.text = written.abort.text
        if (asked := written.requested) is not None:
            longest = self._bounded(asked.max_delay, f"{field}.requested.maxDelay", LONGEST_PAUSE)
            fault.requested.delay_key = asked.delay_key
            fault.requested.abort_key = asked.abort_key
            fault.requested.max_delay.FromTimedelta(longest)
            if asked.percentage is not None:
                fault.requested.max_percent = asked.percentage.value

    # --- rate limits

    def _local_rate_limit(self, written: rate_limits.LocalRateLimit) -> LocalRateLimit:
        limit = LocalRateLimit(enable_x_ratelimit_headers=written.enable_x_ratelimit_headers)
        if written.token_bucket is not None:
            bucket = self._token_bucket(written.token_bucket, f"{_LOCAL}.tokenBucket")
            limit.token_bucket.CopyFrom(bucket)
        for index, rule in enumerate(written.conditions):
            field = f"{_LOCAL}.conditions[{index}].tokenBucket"
            bucket = self._token_bucket(rule.token_bucket, field)
            made = limit.rules.add(match=conditions(rule.match), token_bucket=bucket)
            if rule.per_value_of:
                made.per_value_of.extend(rule.per_value_of)
                made.max_buckets = rule.max_buckets
        return limit

    def _concurrency_limit(self, written: concurrency_limit.ConcurrencyLimit) -> ConcurrencyLimit:
        limit = ConcurrencyLimit(max_requests=written.max_requests)
        if written.adaptive is not None:
            self._adaptive(written.adaptive, f"{_CONCURRENCY}.adaptive", limit.adaptive)
        for index, rule in enumerate(written.conditions):
            made = limit.rules.add(
                match=conditions(rule.match),
                max_requests=rule.max_requests,
                per_value_of=rule.per_value_of,
            )
            if rule.adaptive is not None:
                field = f"{_CONCURRENCY}.conditions[{index}].adaptive"
                self._adaptive(rule.adaptive, field, made.adaptive)
        return limit

    def _adaptive(
        self, written: concurrency_limit.AdaptiveConcurrency, field: str, made: AdaptiveConcurrency
    ) -> None:
        made.min_requests = written.min_requests
        interval = self._bounded(written.interval, f"{field}.interval", LONGEST_PAUSE)
        made.interval.FromTimedelta(interval)
        again = self._bounded(written.min_time_interval, f"{field}.minTimeInterval")
        made.min_time_interval.FromTimedelta(again)
        made.min_time_requests = written.min_time_requests
        made.buffer_percent = written.buffer_percent
        made.percentile = written.percentile

    def _token_bucket(self, written: rate_limits.TokenBucket, field: str) -> TokenBucket:
        return TokenBucket(
            max_tokens=written.max_tokens,
            tokens_per_fill=written.tokens_per_fill,
            fill_interval=self._bounded(written.fill_interval, f"{field}.fillInterval"),
        )

    def _global_rate_limit(self, written: rate_limits.GlobalRateLimit) -> PlannedQuestion:
        timeout = self._bounded(
            written.request_timeout, f"{_GLOBAL}.requestTimeout", _LONGEST_QUESTION
        )
        limit = GlobalRateLimit(
            match=conditions(written.match),
            domain=written.domain,
            timeout=timeout,
            deny_on_fail=written.deny_on_fail,
            enable_x_ratelimit_headers=written.enable_x_ratelimit_headers,
        )
        limit.descriptors.extend(map(_descriptor, written.descriptors))
        for condition in written.conditions:
            limit.rules.add(
                match=conditions(condition.match),
                descriptors=map(_descriptor, condition.descriptors),
            )
        return PlannedQuestion(limit, written.rate_limit_service)

    def _check(self, written: external.ExternalAuthorization) -> PlannedCheck:
        check = ExternalAuthorization(
            match=conditions(written.match),
            timeout=self._bounded(written.timeout, f"{_CHECK}.timeout", _LONGEST_QUESTION),
            failure_mode_allow=written.failure_mode_allow,
            metadata=written.metadata,
            max_body_bytes=written.max_body_bytes,
            proxy_metadata=written.proxy_metadata,
        )
        for key in sorted(written.context):
            check.context.add(key=key, value=written.context[key])
        return PlannedCheck(check, written.service)

    def _bounded(
        self, written: timedelta, field: str, longest: timedelta = LONGEST_TIME
    ) -> timedelta:
        """The nearest time that the engine takes."""
        return bounded_time(written, self._router, field, self._report, longest)


def _descriptor(written: rate_limits.RateLimitDescriptor) -> RateLimitDescriptor:
    return RateLimitDescriptor(
        key=written.property,
        value=written.value,
        descriptor_key=written.descriptor_key,
        also=map(_entry, written.also),
    )


def _entry(written: rate_limits.RateLimitEntry) -> RateLimitEntry:
    return RateLimitEntry(
        key=written.property, value=written.value, descriptor_key=written.descriptor_key
    )


def _destination(
    written: meta_router.Destination, field: str, weight: int = 0, percent: float = 100.0
) -> Destination:
    port = written.port.number if written.port else 0
    return Destination(written.host, written.subset or "", port, field, weight, percent)


def mutations(
    remove: Sequence[str],
    write: Sequence[meta_router.KeyValue],
    add: Sequence[meta_router.KeyValue],
) -> list[Mutation]:
    """Removals, then what is written in any case, then what is written if it is not there: so that
    removing and writing one key leaves it with the new value."""
    if not (remove or write or add):
        return []
    return [
        *(Mutation(remove=key) for key in remove),
        *(Mutation(set=KeyValue(key=item.key, value=item.value)) for item in write),
        *(Mutation(add_if_absent=KeyValue(key=item.key, value=item.value)) for item in add),
    ]


def _full_name(name: str, namespace: str) -> str:
    """Of an object as it is named in one of that namespace."""
    return name if "/" in name else f"{namespace}/{name}"


# --- provenance


def _places(router: MetaRouter) -> Callable[[str, Route | None], Place]:
    def place(path: str, route: Route | None = None) -> Place:
        return Place(router, _field(router, path, route))

    return place


def _field(router: MetaRouter, path: str, route: Route | None) -> str:
    """Where in a MetaRouter the part of a route table is written that the engine calls ``path``."""
    name, index, rest = first_step(path)
    if name == "routes" and index is not None and index < len(router.spec.routes):
        return f"spec.routes[{index}]{_field_of_route(rest, route)}"
    if name == "local_rate_limit":
        return _field_of_limit(_LOCAL, router.spec.local_rate_limit, rest)
    if name == "concurrency_limit":
        return _field_of_limit(_CONCURRENCY, router.spec.concurrency_limit, rest)
    if name == "global_rate_limit":
        return _field_of_global_limit(router, rest)
    if name == "external_authorization":
        return _field_of_check(router, rest)
    return "spec"


def _field_of_route(path: str, route: Route | None) -> str:
    name, index, rest = first_step(path)
    if name == "match":
        keys = [condition.key for condition in route.match] if route is not None else []
        return _field_of_match(keys, index, rest)
    if name in _MUTATIONS:
        made = getattr(route, name) if route is not None else ()
        operation = ""
        if index is not None and index < len(made):
            operation = made[index].WhichOneof("operation")
        return f".{_MUTATIONS[name]}{_OPERATIONS.get(operation, '')}"
    return f".{_RENAMED[name]}" if name in _RENAMED else ""


def _field_of_match(keys: Sequence[str], index: int | None, path: str) -> str:
    if index is None or index >= len(keys):
        return ".match"
    kind = {"one_of": "oneOf", "key": ""}.get(name := first_step(path)[0], name)
    steps = ["match", "attributes", keys[index]]
    return "." + join_path([*steps, kind] if kind else steps)


def _field_of_limit(
    place: str,
    limit: rate_limits.LocalRateLimit | concurrency_limit.ConcurrencyLimit | None,
    path: str,
) -> str:
    name, index, rest = first_step(path)
    if name != "rules" or limit is None or index is None or index >= len(limit.conditions):
        return place
    here = f"{place}.conditions[{index}]"
    name, condition, rest = first_step(rest)
    if name == "per_value_of":
        return f"{here}.perValueOf[{condition}]"
    if name != "match":
        return here
    return here + _field_of_match(sorted(limit.conditions[index].match.attributes), condition, rest)


def _field_of_global_limit(router: MetaRouter, path: str) -> str:
    limit = router.spec.global_rate_limit
    name, index, rest = first_step(path)
    if name == "cluster":
        return f"{_GLOBAL}.rateLimitService"
    if limit is None:
        return _GLOBAL
    if name == "rules" and index is not None and index < len(limit.conditions):
        return _field_of_source(f"{_GLOBAL}.conditions[{index}]", limit.conditions[index], rest)
    return _field_of_source(_GLOBAL, limit, path)


def _field_of_source(
    place: str, source: rate_limits.GlobalRateLimit | rate_limits.GlobalCondition, path: str
) -> str:
    """Where the conditions and descriptors are that the engine calls ``path`` below ``place``."""
    name, index, rest = first_step(path)
    if name == "match":
        return place + _field_of_match(sorted(source.match.attributes), index, rest)
    if name != "descriptors" or index is None:
        return place
    descriptor = f"{place}.descriptors[{index}]"
    name, index, rest = first_step(rest)
    if name == "also" and index is not None:
        descriptor = f"{descriptor}.also[{index}]"
        name, index, rest = first_step(rest)
    named = {"key": "property", "value": "value", "descriptor_key": "descriptorKey"}
    return f"{descriptor}.{named[name]}" if name in named else descriptor


def _field_of_check(router: MetaRouter, path: str) -> str:
    written = router.spec.external_authorization
    name, index, rest = first_step(path)
    if written is not None and name == "match":
        return _CHECK + _field_of_match(sorted(written.match.attributes), index, rest)
    if name == "cluster":
        return f"{_CHECK}.service"
    if name in ("metadata", "proxy_metadata") and index is not None:
        return f"{_CHECK}.{'metadata' if name == 'metadata' else 'proxyMetadata'}[{index}]"
    return _CHECK
