"""Faults of this program's own, brought about by one resource: they end the translation of what it
is for, and of nothing else.

``contained`` says what is in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from metaprotocol.resources import Resource
from metaprotocol.translate.reporting import Diagnostics, Report

_LOG = logging.getLogger(__name__)

CODE = "translation-failed"


class Untranslatable(Exception):
    """What a resource says could not be translated; the cause is why."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(str(resource.key))
        self.resource = resource


@contextmanager
def about(resource: Resource) -> Iterator[None]:
    """Whatever fails within is the resource's, unless it is known to be another one's."""
    try:
        yield
    except Untranslatable:
        raise
    except Exception as error:
        raise Untranslatable(resource) from error


class Faults:
    """Tells of faults: of each in the log once, however often it is met."""

    def __init__(self) -> None:
        self._logged: dict[str, str] = {}
        """What could not be translated, and why."""

    def over(self, what: str) -> None:
        """``what`` was translated."""
        self._logged.pop(what, None)

    def met(
        self, what: str, error: Exception, resource: Resource | None, outcome: str
    ) -> Diagnostics:
        """``what`` could not be translated. That is told of the resource that is known to be the
        cause, otherwise of ``resource``."""
        cause = error
        if isinstance(error, Untranslatable):
            resource = error.resource
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        # Without what it says: that may be of any length, and have in it what is not to be shown.
        reason = type(cause).__name__
        if self._logged.get(what) != f"{cause!r}":
            self._logged[what] = f"{cause!r}"
            of = f", because of {resource.key}" if resource is not None else ""
            _LOG.error("%s cannot be translated%s; %s", what, of, outcome, exc_info=error)
        if resource is None:
            return ()
        report = Report()
        report.error(
            resource, CODE, "",
            f"{what} cannot be translated, because of a fault of the control plane's ({reason}); "
            f"{outcome}",
            fix="the log says where it fails; it is tried again with each change",
        )  # fmt: skip
        return report.diagnostics
