"""Values as authorization policies write them: exact, ``abc*``, ``*abc``, or ``*`` for any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from metaprotocol.config.v1 import Condition, StringList


def texts(key: str, values: Sequence[str], invert: bool, before: str = "") -> Condition:
    """That a value is one of some, with ``before`` before it."""
    made = Condition(key=key, invert=invert)
    if "*" in values:
        made.present = True
    elif not any(value.startswith("*") or value.endswith("*") for value in values):
        made.one_of.CopyFrom(StringList(values=[before + value for value in values]))
    elif len(values) > 1:
        made.regex = any_of(re.escape(before) + expression(value) for value in values)
    elif values[0].endswith("*"):
        made.prefix = before + values[0][:-1]
    elif before:
        made.regex = any_of([re.escape(before) + expression(values[0])])
    else:
        made.suffix = values[0][1:]
    return made


def expression(value: str) -> str:
    """A regular expression for a part of a value between two slashes, or for all of it."""
    if value == "*":
        return ".+"
    if value.endswith("*"):
        return re.escape(value[:-1]) + ".*"
    if value.startswith("*"):
        return ".*" + re.escape(value[1:])
    return re.escape(value)


def any_of(expressions: Iterable[str]) -> str:
    """A regular expression for what matches one of several."""
    # A newline is a character like any other: it must not lead past a denial.
    return f"(?s:{'|'.join(expressions)})"


def any_name_in_brpc(condition: Condition) -> Condition:
    """The same of a service or method of bRPC's, under each name by which a server may know it:
    brpc-java does not tell small letters from capitals, and C++ finds a service without its package
    as well (apache/brpc, ``ProcessRpcRequest``)."""
    wanted: list[str]
    match condition.WhichOneof("condition"):
        case "one_of":
            wanted = [re.escape(value) for value in condition.one_of.values]
            short = [re.escape(value.rpartition(".")[2]) for value in condition.one_of.values]
        case "prefix":
            wanted = [re.escape(condition.prefix) + ".*"]
            short = ["[^.]*" if "." in condition.prefix else wanted[0]]
        case "suffix":
            wanted = [".*" + re.escape(condition.suffix)]
            short = [re.escape(condition.suffix.rpartition(".")[2])]
        case "regex":
            wanted, short = [condition.regex], ["[^.]*"]
        case _:
            return condition
    made = Condition(key=condition.key, invert=condition.invert)
    names = wanted if condition.key == "method" else dict.fromkeys([*wanted, *short])
    made.regex = f"(?is:{'|'.join(names)})"
    return made
