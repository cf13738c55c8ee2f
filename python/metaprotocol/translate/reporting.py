"""Collecting what is to be said about resources while they are translated."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from metaprotocol.diagnostics import Diagnostic, Severity, shorten
from metaprotocol.resources import Key, Resource
from metaprotocol.resources.types import format_duration


class Finding(NamedTuple):
    """A diagnostic of a resource, without its place in a file: that may change while what is wrong
    stays the same. ``placed`` gives it one."""

    key: Key
    diagnostic: Diagnostic

    def placed(self, resource: Resource) -> Diagnostic:
        """The diagnostic, at the place where ``resource``, which has the key, is written now."""
        return replace(self.diagnostic, origin=resource.origin_of(self.diagnostic.field))


Diagnostics: TypeAlias = tuple[Finding, ...]

SHORTEST_TIME = timedelta(milliseconds=1)
LONGEST_TIME = timedelta(days=1)

_NEVER = datetime.max.replace(tzinfo=UTC)


def age(resource: Resource) -> tuple[datetime, str, str]:
    """Sort key of the conflict rule: the oldest first, then by namespace and name. One without a
    time (a file) is younger than any with one."""
    created = resource.metadata.creation_timestamp or _NEVER
    return created, resource.key.namespace, resource.key.name


class Report:
    """Diagnostics of one step of a translation. The same one twice counts once."""

    def __init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def error(
        self, resource: Resource, code: str, field: str, message: str, *,
        value: object = "", fix: str = "",
    ) -> None:  # fmt: skip
        """What the resource asks for is not done."""
        self._add(Severity.ERROR, resource, code, field, message, value, fix)

    def warning(
        self, resource: Resource, code: str, field: str, message: str, *,
        value: object = "", fix: str = "",
    ) -> None:  # fmt: skip
        """It is done, but likely not what was meant."""
        self._add(Severity.WARNING, resource, code, field, message, value, fix)

    def info(
        self, resource: Resource, code: str, field: str, message: str, *,
        value: object = "", fix: str = "",
    ) -> None:  # fmt: skip
        """Worth knowing."""
        self._add(Severity.INFO, resource, code, field, message, value, fix)

    def extend(self, diagnostics: Diagnostics) -> None:
        """Takes over what another step has found."""
        self._found.update(dict.fromkeys(diagnostics))

    @property
    def diagnostics(self) -> Diagnostics:
        """All of them, in the order in which they were found."""
        return tuple(self._found)

    def _add(
        self,
        severity: Severity,
        resource: Resource,
        code: str,
        field: str,
        message: str,
        value: object,
        fix: str,
    ) -> None:
        diagnostic = Diagnostic(
            severity=severity,
            message=message,
            object=str(resource.key),
            field=field,
            value=shorten(value),
            fix=fix,
            code=code,
        )
        self._found[Finding(resource.key, diagnostic)] = None


def bounded_time(
    written: timedelta,
    resource: Resource,
    field: str,
    report: Report,
    longest: timedelta = LONGEST_TIME,
) -> timedelta:
    """The nearest time that is taken, with a warning if it is another."""
    bounded = min(max(written, SHORTEST_TIME), longest)
    if bounded != written:
        report.warning(
            resource, "out-of-bounds", field,
            f"must be from 1ms to {format_duration(longest)}; {format_duration(bounded)} is used",
            value=format_duration(written),
        )  # fmt: skip
    return bounded
