"""Filters in shared libraries: those that an ApplicationProtocol has, as a MetaRouter changes them.

Fail closed: what cannot be made of a change gives the requests it is for an error, since the filter
may be there to keep some of them out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import json_format

from metaprotocol.codec_library import LibraryUnusable, look_at_filter
from metaprotocol.config.v1 import DirectReply, Filter, ProxyConfig, Route
from metaprotocol.config.v1 import LibraryFilter as Message
from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources import ApplicationProtocol
from metaprotocol.resources.library_filter import LibraryFilter
from metaprotocol.translate.plan import Place, PlannedFilter
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import FAULT, Table, shut_table

LIBRARY_FILTER = "library/"
"""What the names of these filters begin with, in the engine's configuration."""
_PATH = re.compile(
    r"route_tables\[0\]\.(?:routes\[(?P<route>\d+)\]\.)?filters\[(?P<filter>\d+)\]\.library\."
    r"(?P<rest>path|options)"
)
_ALL_FAIL = "every request gets an error until it is fixed"
_ROUTE_FAILS = "what it may match gets an error until it is fixed"


def filters_of_protocol(protocol: ApplicationProtocol, report: Report) -> bool:
    """Reports filters whose library ends the process that loads it, which this one must not;
    whether there is any. What else may be wrong is the engine's to say."""
    found = False
    for index, written in enumerate(protocol.spec.filters):
        try:
            look_at_filter(written.library, options_text(written.options))
        except LibraryUnusable as error:
            if error.crashed:
                found = True
                report.error(
                    protocol, "bad-library", f"spec.filters[{index}].library", str(error),
                    value=written.library, fix=_ALL_FAIL,
                )  # fmt: skip
    return found


def with_library_filters(
    table: Table, protocol: ApplicationProtocol | None, report: Report
) -> Table:
    """The table with the protocol's filters, as its plan changes them; a shut one if that cannot be
    told."""
    there: Mapping[str, LibraryFilter] = {}
    if protocol is not None:
        there = {item.name: item for item in protocol.spec.filters}
    plan = table.plan
    planned = plan.filters if plan is not None else ()
    name = table.message.name
    if protocol is not None and filters_of_protocol(protocol, Report()):
        return _instead(table, shut_table(name, "a filter's library cannot be loaded"))
    if not there and not planned and not (plan and any(route.filters for route in plan.routes)):
        return table
    changes = {change.name: change for change in planned}
    possible = [_may_be(change, there, report, _ALL_FAIL) for change in planned]
    if not all(possible):
        return _instead(table, shut_table(name, "a filter cannot be changed so"))
    on: dict[str, Message] = {}
    for item in there.values():
        change = changes.get(item.name)
        if change.disabled if change is not None else item.disabled:
            continue
        options = change.options if change is not None else None
        on[item.name] = _message(item, options)
        table.message.filters.append(
            Filter(name=f"{LIBRARY_FILTER}{item.name}", library=on[item.name])
        )
    for planned_route, route in zip(
        plan.routes if plan is not None else (), table.message.routes, strict=False
    ):
        if planned_route.filters:
            _change_route(route, planned_route.filters, there, on, report)
    return table


def _change_route(
    route: Route,
    changes: Sequence[PlannedFilter],
    there: Mapping[str, LibraryFilter],
    on: Mapping[str, Message],
    report: Report,
) -> None:
    for change in changes:
        possible = _may_be(change, there, report, _ROUTE_FAILS)
        if possible and change.name not in on and not change.disabled:
            possible = False
            report.error(
                change.place.owner, "filter-off", change.place.field,
                "is off for this service", value=change.name,
                fix=f"turn it on in spec.filters; {_ROUTE_FAILS}",
            )  # fmt: skip
        if not possible:
            text = f'route "{route.name}" is rejected: filter {change.name} cannot be changed so'
            reply = DirectReply(kind=FAULT, text=text)
            route.CopyFrom(Route(name=route.name, match=route.match, direct_reply=reply))
            return
        if change.name not in on:
            continue
        made = route.filters.add(name=f"{LIBRARY_FILTER}{change.name}")
        if change.disabled:
            made.disabled = True
        elif change.options is not None:
            made.library.CopyFrom(_message(there[change.name], change.options))
        else:
            made.library.CopyFrom(on[change.name])


def _may_be(
    change: PlannedFilter, there: Mapping[str, LibraryFilter], report: Report, outcome: str
) -> bool:
    owner, field = change.place
    item = there.get(change.name)
    if item is None:
        meant = did_you_mean(change.name, there)
        has = ", ".join(there) or "none"
        report.error(
            owner, "unknown-filter", f"{field}.name", "the ApplicationProtocol has no such filter",
            value=change.name,
            fix=(f'did you mean "{meant}"?' if meant else f"its filters: {has}") + f"; {outcome}",
        )  # fmt: skip
        return False
    if item.locked:
        report.error(
            owner, "locked-filter", field, "the ApplicationProtocol allows no changes to it",
            value=change.name, fix=f"remove this; {outcome}",
        )  # fmt: skip
        return False
    return True


def _message(item: LibraryFilter, options: Mapping[str, object] | None) -> Message:
    made = Message(path=item.library)
    wanted = options if options is not None else item.options
    if wanted:
        json_format.ParseDict(dict(wanted), made.options)
    return made


def _instead(table: Table, shut: Table) -> Table:
    """What ``table`` has, but for its routes."""
    table.message.CopyFrom(shut.message)
    table.plan = None
    return table


def options_text(options: Mapping[str, object] | None) -> str:
    """Options of a filter as it is given them."""
    return json.dumps(options) if options else ""


def filter_place(
    path: str, config: ProxyConfig, table: Table, protocol: ApplicationProtocol | None
) -> tuple[Place, str] | None:
    """Where the filter is written that the engine calls ``path``, and what happens until it is
    fixed; None: it is none of a library."""
    match = _PATH.match(path)
    if match is None or protocol is None:
        return None
    plan, message = table.plan, config.route_tables[0]
    position, rest = int(match["filter"]), match["rest"]
    changes: Iterable[PlannedFilter] = plan.filters if plan is not None else ()
    if match["route"] is None:
        name, outcome = message.filters[position].name, _ALL_FAIL
    else:
        index, outcome = int(match["route"]), _ROUTE_FAILS
        name = message.routes[index].filters[position].name
        if plan is not None and index < len(plan.routes):
            changes = (*plan.routes[index].filters, *changes)
    name = name.removeprefix(LIBRARY_FILTER)
    for change in changes:
        if change.name == name and change.options is not None and rest == "options":
            return Place(change.place.owner, f"{change.place.field}.options"), outcome
    for index, item in enumerate(protocol.spec.filters):
        if item.name == name:
            field = "library" if rest == "path" else "options"
            return Place(protocol, f"spec.filters[{index}].{field}"), outcome
    return None
