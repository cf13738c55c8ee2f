"""The exceptions of this package: whatever it raises on purpose is an ``Error``.

Each has the standard exception as a base as well that one would expect in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from metaprotocol.diagnostics import Diagnostic

__all__ = ["Error", "InvalidResources", "NotFound", "NotRunning", "ResourcesNotFound"]


class Error(Exception):
    """The base of all exceptions of this package."""


class InvalidResources(Error, ValueError):
    """Resources have errors, in files or in code: ``diagnostics`` are all of them, and the text
    lists them with what to do."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(item) for item in self.diagnostics))


class ResourcesNotFound(Error, FileNotFoundError):
    """There is no such folder or file of resources."""


class NotFound(Error, LookupError):
    """There is no such service."""


class NotRunning(Error, RuntimeError):
    """The proxy is not running, or runs already."""
