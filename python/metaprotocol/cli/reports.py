"""Diagnostics in the formats that others read: editors and people, GitHub's workflow log, SARIF.

Files are named as from the working directory, so that a terminal, an editor and GitHub find them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from metaprotocol.diagnostics import Diagnostic, Origin, Severity, printable

Located = Callable[[Diagnostic], Diagnostic]
"""Gives a diagnostic's file the name that it has from the working directory."""

_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_SARIF = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def located(folder: Path | None) -> Located:
    """For the diagnostics of a folder, or of one file, as it is given on the command line; None:
    they are not about files."""
    if folder is None:
        return lambda diagnostic: diagnostic
    base = folder.parent if folder.is_file() else folder
    shown = _from_here(base)

    def name(file: str) -> str:
        if not file or PurePath(file).is_absolute():
            return file
        return os.path.normpath(shown / file)

    return lambda diagnostic: diagnostic.named(name)


def _from_here(path: Path) -> Path:
    """Relative to the working directory, if it is below it."""
    if path.is_absolute():
        here = Path.cwd()
        for known in (here, here.resolve()):
            if path.is_relative_to(known):
                return path.relative_to(known)
    return path


def github(diagnostics: Sequence[Diagnostic]) -> str:
    """Workflow commands, which GitHub shows beside the lines of a pull request
    (docs.github.com, "Workflow commands for GitHub Actions")."""
    return "".join(_command(item) + "\n" for item in diagnostics)


def _command(item: Diagnostic) -> str:
    properties = {"title": item.code}
    if item.origin is not None and item.origin.file:
        properties["file"] = item.origin.file
        properties["line"] = str(item.origin.line or 1)
        if item.origin.column:
            properties["col"] = str(item.origin.column)
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{_GITHUB[item.severity]} {listed}::{_data(_text(item))}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def sarif(diagnostics: Sequence[Diagnostic], version: str) -> dict[str, Any]:
    """A log of the Static Analysis Results Interchange Format 2.1.0 (OASIS)."""
    codes = sorted({_code(item) for item in diagnostics})
    driver = {
        "name": "metaprotocol",
        "version": version,
        "rules": [{"id": code} for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(item, codes) for item in diagnostics],
    }
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(item: Diagnostic, codes: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": _code(item),
        "ruleIndex": codes.index(_code(item)),
        "level": _SARIF[item.severity],
        "message": {"text": _text(item)},
    }
    place: dict[str, Any] = {}
    if item.origin is not None and item.origin.file:
        place["physicalLocation"] = _location(item.origin)
    if item.object:
        name = f"{item.object}: {item.field}" if item.field else item.object
        place["logicalLocations"] = [{"fullyQualifiedName": name}]
    if place:
        result["locations"] = [place]
    if item.related is not None and item.related.file:
        result["relatedLocations"] = [{"physicalLocation": _location(item.related)}]
    return result


def _location(origin: Origin) -> dict[str, Any]:
    region = {"startLine": origin.line or 1}
    if origin.column:
        region["startColumn"] = origin.column
    return {"artifactLocation": {"uri": _uri(origin.file)}, "region": region}


def _uri(file: str) -> str:
    path = PurePath(file)
    quoted = quote(os.fsencode(path.as_posix()))
    return f"file://{quoted}" if path.is_absolute() else quoted


def _code(item: Diagnostic) -> str:
    return item.code or "problem"


def _text(item: Diagnostic) -> str:
    """All but the place, which readers show in their own way."""
    return str(replace(item, origin=None))
