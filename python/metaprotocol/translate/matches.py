"""Conditions of a MetaRouter to conditions of the engine."""

from __future__ import annotations

from metaprotocol.config.v1 import Condition, IntegerRange, StringList
from metaprotocol.resources.match import MetaRouteMatch, StringMatch


def conditions(match: MetaRouteMatch) -> list[Condition]:
    """The engine's conditions, in order of their keys: all hold or the request does not match, so
    that their order has no meaning."""
    return [condition(key, match.attributes[key]) for key in sorted(match.attributes)]


def condition(key: str, match: StringMatch) -> Condition:
    """One condition. Without any kind the value only has to be there, as Aeraki's documentation
    says of ``{}``; Aeraki's code drops the condition. ``exact`` and ``prefix`` without text hold
    for any value, as in Envoy's matcher of headers, which Aeraki uses."""
    made = Condition(key=key, ignore_case=match.ignore_case, invert=match.invert)
    match match.kind:
        case "exact":
            made.exact = match.exact or ""
        case "prefix":
            made.prefix = match.prefix or ""
        case "suffix":
            made.suffix = match.suffix or ""
        case "contains":
            made.contains = match.contains or ""
        case "regex":
            made.regex = match.regex or ""
        case "absent":
            made.absent = True
        case "range":
            assert match.range is not None
            made.range.CopyFrom(IntegerRange(start=match.range.start, end=match.range.end))
        case "one_of":
            made.one_of.CopyFrom(StringList(values=match.one_of))
        case "present":
            made.present = True
        case kind:
            raise AssertionError(f"no such kind of condition: {kind}")
    return made
