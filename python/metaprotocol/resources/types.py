"""The scalar types of the resources: durations, host names, ports, and how they are checked.

Each type is an ``Annotated`` whose checks raise ``PydanticCustomError`` with a kebab-case code, and
whose JSON schema is the nearest that Kubernetes' API server can check.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "AS_WRITTEN",
    "DnsLabel",
    "Duration",
    "ExportTo",
    "Host",
    "IpRange",
    "NotNull",
    "PortNumber",
    "PositiveDuration",
    "Regex",
    "ResourceName",
    "Timestamp",
    "UInt32",
    "WildcardHost",
    "format_duration",
    "parse_duration",
]

# --- durations

# Go's time.ParseDuration, which Istio and Aeraki read durations with, without a sign.
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_MICROSECONDS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),
    "ms": Decimal(1000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
}
# A year and a day: beyond it nobody waits, and sums of durations stay far from overflow.
LONGEST = timedelta(days=366)
# Longer than any duration needs, short enough that no number in it gets expensive.
_LONGEST_TEXT = 64


def error(code: str, message: str, **context: Any) -> PydanticCustomError:
    """A validation error with our stable code. Context ``fix`` says what to do."""
    # The message is ours already; braces in it are no placeholders.
    return PydanticCustomError(code, "{text}", {"text": message, **context})


AS_WRITTEN = {"as written": True}
"""The context of what is read from a file, in which a null is what somebody has left to be written
or commented out; in code None is what is not given."""


def _not_null(value: object, info: ValidationInfo) -> object:
    if value is None and info.context is AS_WRITTEN:
        raise error("null", "has nothing in it", fix="write what it is to be, or take the key away")
    return value


NotNull = BeforeValidator(_not_null)
"""Of what denies, limits or protects, and would be missed without a word."""


def parse_duration(text: str) -> timedelta:
    """A duration as Go and Istio write it: ``1s``, ``50ms``, ``1h30m``, ``1.5s``; ``0`` is 0s.

    Raises ValueError, saying what is wrong. Times below a microsecond are rounded up to one."""
    if text == "0":
        return timedelta()
    if len(text) > _LONGEST_TEXT or not _DURATION.fullmatch(text):
        raise ValueError("must be a duration")
    total = sum(
        (Decimal(number) * _MICROSECONDS[unit] for number, unit in _DURATION_PART.findall(text)),
        Decimal(0),
    )
    if total > LONGEST / timedelta(microseconds=1):
        raise ValueError("is longer than 366 days")
    return timedelta(microseconds=1 if 0 < total < 1 else int(total))


def format_duration(value: timedelta) -> str:
    """A duration as Istio reads it, in seconds: ``1.5s``."""
    microseconds = value // timedelta(microseconds=1)
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{seconds}.{rest:06d}".rstrip("0") + "s" if rest else f"{seconds}s"


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        if value < timedelta() or value > LONGEST:
            raise error("bad-duration", "must be a duration from 0s to 366 days")
        return value
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as problem:
            raise error(
                "bad-duration",
                str(problem),
                fix='write a number with its unit, such as "1.5s", "50ms" or "1h30m"',
            ) from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise error(
            "bad-duration",
            "must be a duration with its unit",
            fix=f'write "{value}s" for seconds, "{value}ms" for milliseconds',
        )
    raise error("bad-duration", 'must be a duration such as "1.5s", "50ms" or "1h30m"')


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise error("bad-duration", "must be longer than 0s")
    return value


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": DURATION_PATTERN.replace("^(", "^(0|(").replace(")+$", ")+)$")}
    | {"maxLength": _LONGEST_TEXT}
)
_POSITIVE_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": DURATION_PATTERN, "maxLength": _LONGEST_TEXT}
    # Only zeros.
    | {"not": {"pattern": "^[^1-9]*$"}}
)
Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    _DURATION_SCHEMA,
]
PositiveDuration = Annotated[
    timedelta,
    AfterValidator(_positive),
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    _POSITIVE_SCHEMA,
]


def _read_timestamp(value: object) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return read if read.tzinfo else read.replace(tzinfo=UTC)
    raise error("bad-timestamp", 'must be a time such as "2026-01-31T12:00:00Z"')


Timestamp = Annotated[datetime, BeforeValidator(_read_timestamp)]

# --- names

# DNS has no "_" in names of hosts, registries of services do. Nothing here minds it.
LABEL_PATTERN = r"^[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?$"
HOST_PATTERN = (
    r"^[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?)*$"
)
_LABEL = re.compile(LABEL_PATTERN)
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")


def host_problem(host: str) -> str:
    """Why a text is no fully qualified DNS name; empty if it is one."""
    if not host:
        return "must not be empty"
    if len(host) > 253:
        return "is longer than the 253 characters of a DNS name"
    return _problem_of_labels(host)


@functools.lru_cache(maxsize=10_000)  # most hosts are written many times
def _problem_of_labels(host: str) -> str:
    labels = host.split(".")
    for label in labels:
        if not label:
            return "has an empty label (two dots, or one at an end)"
        if len(label) > 63:
            return "has a label of more than 63 characters"
        if not _LABEL.fullmatch(label):
            return "must be a DNS name: letters, digits and '-' between dots"
    if labels[-1].isdigit():
        return "is an address, not a DNS name" if len(labels) == 4 else "ends in a number"
    return ""


def _host(value: str) -> str:
    if "*" in value:
        raise error(
            "bad-host", "must be one host, without wildcard", fix="name each host by itself"
        )
    if problem := host_problem(value):
        raise error("bad-host", problem)
    return value.lower()


def _wildcard_host(value: str) -> str:
    if problem := host_problem(value.removeprefix("*.")):
        raise error("bad-host", problem)
    return value.lower()


def _dns_label(value: str) -> str:
    if len(value) > 63 or not _LABEL.fullmatch(value):
        raise error(
            "bad-label", "must be a DNS label: letters, digits and '-', at most 63 characters"
        )
    return value


def is_resource_name(value: str) -> bool:
    """Whether Kubernetes takes it for the name of an object."""
    return len(value) <= 253 and _NAME.fullmatch(value) is not None


def _resource_name(value: str) -> str:
    if not is_resource_name(value):
        raise error(
            "bad-name",
            "must be a Kubernetes name: small letters, digits, '-' and '.', at most 253 characters",
            **({"fix": f'write "{value.lower()}"'} if _NAME.fullmatch(value.lower()) else {}),
        )
    return value


Host = Annotated[
    str,
    AfterValidator(_host),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 253, "pattern": HOST_PATTERN}),
]
"""A fully qualified DNS name, in small letters: names that differ in case alone are the same."""
WildcardHost = Annotated[str, AfterValidator(_wildcard_host)]
"""A DNS name, or ``*.`` and one, in small letters."""
DnsLabel = Annotated[
    str,
    AfterValidator(_dns_label),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL_PATTERN}),
]
ResourceName = Annotated[str, AfterValidator(_resource_name)]


def _export_to(value: str) -> str:
    if value not in (".", "*", "~") and (len(value) > 63 or not _NAMESPACE.fullmatch(value)):
        raise error("bad-namespace", 'must be a namespace, "." (its own), "*" (all) or "~" (none)')
    return value


_NAMESPACE_TEXT = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_NAMESPACE_TEXT)
ExportTo = Annotated[
    str,
    AfterValidator(_export_to),
    WithJsonSchema({"type": "string", "maxLength": 63, "pattern": rf"^([.*~]|{_NAMESPACE_TEXT})$"}),
]
"""A namespace to export to."""


def _ip_range(value: str) -> str:
    try:
        # Bits of the host are allowed, as in Istio.
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        message = "must be an IP address or a range of them, such as 10.0.0.0/8"
        raise error("bad-address", message) from None
    return value


IpRange = Annotated[
    str,
    AfterValidator(_ip_range),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64}),
]
"""An IP address, or a range: ``10.0.0.0/8``."""

# --- numbers

PortNumber = Annotated[int, Field(ge=1, le=65535)]
UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]

# --- regular expressions

_LOOKAROUND = re.compile(r"\(\?(=|!|<=|<!|>)")
_BACKREFERENCE = re.compile(r"\\[1-9]|\(\?P=")
# What RE2 knows and Python's `re` does not; each stands for something harmless in Python.
_RE2_ONLY = (
    (re.compile(r"\\Q.*?(\\E|$)", re.DOTALL), "x"),
    (re.compile(r"\\[pP](\{\^?\w*\}|\w)"), r"\\w"),
    (re.compile(r"\\x\{[0-9a-fA-F]{1,6}\}"), "x"),
    (re.compile(r"\\[zC]"), r"\\b"),
    (re.compile(r"\(\?[imsU]*(-[imsU]+)?\)"), ""),
    (re.compile(r"\(\?[imsU]*(-[imsU]+)?:"), "(?:"),
    (re.compile(r"\(\?<(?=\w)"), "(?P<"),
    (re.compile(r"\[:\^?\w+:\]"), r"\\w"),
)
LONGEST_REGEX = 8192


@functools.lru_cache(maxsize=1024)
def regex_problem(pattern: str) -> tuple[str, str]:
    """Why a text is no RE2 expression, and the fix; both empty if none was found.

    A plain check without RE2: what passes may still be refused by the engine, which has the last
    word; what is refused here is wrong there too."""
    if not pattern:
        return "must not be empty", "for any value write {}"
    if pattern == "*":
        return "is no regular expression: nothing to repeat", 'for any value write {} or ".*"'
    if len(pattern) > LONGEST_REGEX:
        return f"is longer than {LONGEST_REGEX} characters", ""
    plain = re.sub(r"\\\\", "x", pattern)
    if _LOOKAROUND.search(plain):
        return "has a look-around, which RE2 does not know", 'several conditions, or "invert"'
    if _BACKREFERENCE.search(plain):
        return "has a back reference, which RE2 does not know", ""
    for expression, stand_in in _RE2_ONLY:
        plain = expression.sub(stand_in, plain)
    try:
        re.compile(plain)
    except (re.error, OverflowError, RecursionError) as problem:
        text = getattr(problem, "msg", "") or "is too complex"
        return f"is no regular expression: {text}", ""
    return "", ""


def _regex(value: str) -> str:
    problem, fix = regex_problem(value)
    if problem:
        raise error("bad-regex", problem, **({"fix": fix} if fix else {}))
    return value


Regex = Annotated[
    str,
    AfterValidator(_regex),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_REGEX}),
]
"""An RE2 expression that has to match the whole value."""
