"""Reads the text of a file into resources and diagnostics, all of them at once.

A file may hold several documents and lists of resources; each stands by itself: what is right is
returned, whatever else is wrong. Objects of other programs (Jobs, ...) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from metaprotocol.diagnostics import Diagnostic, Origin, Severity, did_you_mean, shorten
from metaprotocol.resources.application_protocol import ApplicationProtocol
from metaprotocol.resources.base import Key, Metadata, Resource, known_fields
from metaprotocol.resources.kinds import KINDS, MODELS
from metaprotocol.resources.problems import explain, warnings
from metaprotocol.resources.types import AS_WRITTEN, is_resource_name
from metaprotocol.resources.unenforced import Unenforced
from metaprotocol.resources.unreadable import (
    FOR_ANY_HOST,
    GUARDS,
    Unreadable,
    guard_meant,
    hosts_in,
    kind_in,
)
from metaprotocol.resources.yaml_events import DEFAULT_LIMITS, Limits, YamlProblem
from metaprotocol.resources.yaml_positions import Path
from metaprotocol.resources.yaml_reader import Document, split_documents

__all__ = ["Limits", "LoadResult", "load_bytes", "load_text"]

_GROUPS = frozenset(kind.group for kind in KINDS if kind.model and not kind.model.foreign)
# Kinds of the same groups, which mean nothing here.
_PASSED_OVER = frozenset(
    kind.name for kind in KINDS if kind.model is None and kind.group in _GROUPS
)
_METADATA = frozenset(known_fields(Metadata))
_TYPE = frozenset({"apiVersion", "kind"})
_NAMING = frozenset({"metadata", "name", "namespace"})


@dataclass
class LoadResult:
    """What a file says."""

    resources: list[Resource] = field(default_factory=list)
    """In the order of the file, without those that have errors."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    """By line."""
    broken: set[Key] = field(default_factory=set)
    """Objects that the file has, with errors."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """What stands for those with errors, and for what could not be read at all, as far as more may
    be possible without them than with them."""
    complete: bool = True
    """False: something in the file could not be read so far that its object is known."""

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(item.severity is not Severity.ERROR for item in self.diagnostics)


def load_bytes(content: bytes, file: str, limits: Limits = DEFAULT_LIMITS) -> LoadResult:
    """Reads a file's content, which has to be UTF-8. Never raises for what is in it."""
    if len(content) > limits.bytes:
        return _unreadable(file, _too_large(len(content), limits))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = "is UTF-16, must be UTF-8"
        else:
            text = f"is not UTF-8: byte 0x{content[problem.start]:02x}"
        bad = YamlProblem(text, line, 0, code="bad-encoding", fix="save it as UTF-8")
        # Good enough to find the names of hosts: those are ASCII.
        return _unreadable(file, bad, content.replace(b"\0", b"").decode("latin-1"))
    return load_text(text, file, limits)


def load_text(text: str, file: str, limits: Limits = DEFAULT_LIMITS) -> LoadResult:
    """Reads a file's text. Never raises for what is in it. `file` is how diagnostics name it."""
    if len(text) > limits.bytes:
        return _unreadable(file, _too_large(len(text), limits))
    result = LoadResult()
    seen: dict[Key, Origin] = {}
    for number, document in enumerate(split_documents(text, file)):
        _Reading(document, f"{file}#{number}", limits, result, seen).run()
        if len(result.diagnostics) > limits.problems:
            break
    result.diagnostics.sort(key=lambda item: item.sort_key)
    if (rest := len(result.diagnostics) - limits.problems) > 0:
        del result.diagnostics[limits.problems :]
        message = f"has too many problems: {rest:,} more, and the rest was not read"
        last = result.diagnostics[-1].origin
        result.diagnostics.append(
            Diagnostic(Severity.ERROR, message, last, code="too-many-problems")
        )
        result.complete = False
        _add_unreadable(result, Unreadable.of(file, text=text), last)
    return result


def _too_large(size: int, limits: Limits) -> YamlProblem:
    message = f"has {size:,} bytes, and at most {limits.bytes:,} are read"
    return YamlProblem(message, 0, 0, code="too-large", fix="split it into several files")


def _unreadable(file: str, problem: YamlProblem, text: str | None = None) -> LoadResult:
    diagnostic = Diagnostic(
        Severity.ERROR,
        problem.message,
        Origin(file, problem.line, problem.column),
        fix=problem.fix,
        code=problem.code,
    )
    result = LoadResult(diagnostics=[diagnostic], complete=False)
    kind = kind_in(text) if text is not None else ""
    if kind is not None:
        _add_unreadable(result, Unreadable.of(file, kind=kind, text=text), diagnostic.origin)
    return result


def _add_unreadable(
    result: LoadResult,
    unreadable: Unreadable,
    origin: Origin | None,
    document: Document | None = None,
) -> None:
    unreadable.written_at(origin or Origin(unreadable.spec.place), document)
    result.unreadable.append(unreadable)


class _Reading:
    """Reads one document of a file into a result."""

    def __init__(
        self,
        document: Document,
        place: str,
        limits: Limits,
        result: LoadResult,
        seen: dict[Key, Origin],
    ) -> None:
        self._document = document
        self._place = place
        self._limits = limits
        self._result = result
        self._seen = seen
        self._keys: Mapping[Path, int] = {}

    def run(self) -> None:
        try:
            value, repeated, self._keys = self._document.value(self._limits)
        except YamlProblem as problem:
            self._unreadable(problem)
            self._stand_in(self._document, kind_in(self._document.text))
            return
        for duplicate in repeated:
            # Which of the two was meant nobody knows.
            self._unreadable(duplicate)
        if value is None:
            return
        keys = frozenset(item.key for item in repeated)
        if keys & _TYPE:
            self._stand_in(self._document, kind_in(self._document.text))
            return
        self._object(value, self._document, keys)

    def _unreadable(self, problem: YamlProblem) -> None:
        self._result.complete = False
        self._add(
            Diagnostic(
                Severity.ERROR,
                problem.message,
                Origin(self._document.file, problem.line, problem.column),
                fix=problem.fix,
                code=problem.code,
            )
        )

    def _stand_in(
        self, document: Document, kind: str | None, value: dict[str, Any] | None = None
    ) -> None:
        """Puts an Unreadable in place of an object, or of the whole document without ``value``."""
        if kind is None or (kind and kind not in GUARDS):
            return
        place = "/".join(map(str, (self._place, *document.prefix[1:])))
        key = hosts = created = None
        if value is not None and kind:
            key, hosts = _key_of(MODELS[kind], value), hosts_in(kind, value)
            created = value["metadata"].get("creationTimestamp") if key is not None else None
        unreadable = Unreadable.of(
            place, kind=kind, key=key, hosts=hosts, text=document.text, created=created
        )
        origin = _start(document)
        if key is not None:
            # Of two objects of one name the first counts, and its errors make no other of it.
            self._seen.setdefault(key, origin)
        _add_unreadable(self._result, unreadable, origin, document)

    def _add(self, diagnostic: Diagnostic) -> None:
        self._result.diagnostics.append(diagnostic)

    def _tell(
        self,
        document: Document,
        message: str,
        code: str,
        fix: str = "",
        *,
        field: str = "",
        name: str = "",
        severity: Severity = Severity.ERROR,
    ) -> None:
        self._add(
            Diagnostic(
                severity, message, document.origin_of(field), name, field, fix=fix, code=code
            )
        )

    def _object(self, value: Any, document: Document, repeated: frozenset[str]) -> None:
        if not isinstance(value, dict):
            self._result.complete = False
            self._stand_in(document, "")
            self._tell(
                document,
                f"is no resource but {_what(value)}",
                "no-resource",
                "resources have apiVersion, kind, metadata and spec",
            )
            return
        version, kind = value.get("apiVersion"), value.get("kind")
        if isinstance(kind, str) and (kind == "List" or _is_list_of_ours(kind)):
            self._list(value, document, repeated)
            return
        model = self._model(version, kind, value, document)
        if model is not None:
            self._resource(model, value, document, repeated)

    def _list(self, value: dict[str, Any], document: Document, repeated: frozenset[str]) -> None:
        items = value.get("items")
        if items is None:
            return
        if not isinstance(items, list):
            self._result.complete = False
            self._stand_in(document, "")
            self._tell(document, "must be a list", "wrong-type", field="items")
            return
        for index, item in enumerate(items):
            self._object(item, document.within((*document.prefix, "items", index)), repeated)

    def _model(
        self, version: Any, kind: Any, value: dict[str, Any], document: Document
    ) -> type[Resource] | None:
        """The model of an object; None, and what to say of it told, if there is none."""
        name = _object_name(value)
        if not isinstance(version, str) or not isinstance(kind, str):
            self._no_type(version, kind, value, document, name)
            return None
        group, _, number = version.rpartition("/")
        if kind in MODELS:
            model = MODELS[kind]
            if group == model.group and number in model.versions:
                return model
            if model.foreign or (
                group and group not in _GROUPS and did_you_mean(group, [model.group]) is None
            ):
                # Some other program's, of the same name. Without a group it is nobody's.
                self._pass_over(version, kind, value, document, name)
                return None
            self._result.complete = False
            self._stand_in(document, kind, value)
            known = [f"{model.group}/{version}" for version in model.versions]
            self._tell(
                document,
                f'"{shorten(version)}" is no version of {kind}',
                "unknown-version",
                f'write "{known[0]}"',
                field="apiVersion",
                name=name,
            )
            return None
        meant = guard_meant(kind, group)
        if group in _GROUPS and kind not in _PASSED_OVER:
            self._result.complete = False
            near = did_you_mean(kind, [*MODELS, *_PASSED_OVER])
            if near is None or near not in _PASSED_OVER:
                # Of a policy no word in the text says for which hosts it is.
                self._stand_in(document, _meant(meant, value), value)
            known = [name for name, model in MODELS.items() if model.group == group]
            fix = f'did you mean "{near}"?' if near else f"known: {', '.join(known)}"
            self._tell(
                document,
                f'"{shorten(kind)}" is no kind of {group}',
                "unknown-kind",
                fix,
                field="kind",
                name=name,
            )
            return None
        self._pass_over(version, kind, value, document, name)
        return None

    def _no_type(
        self, version: Any, kind: Any, value: dict[str, Any], document: Document, name: str
    ) -> None:
        meant = guard_meant(kind) if isinstance(kind, str) else None
        if not isinstance(kind, str) or kind in MODELS or meant is not None:
            known = kind if isinstance(kind, str) and kind in MODELS else _meant(meant, value)
            self._stand_in(document, known, value)
        for field_name, given in (("apiVersion", version), ("kind", kind)):
            if isinstance(given, str):
                continue
            self._result.complete = False
            fix = "resources have apiVersion, kind, metadata and spec"
            if field_name == "apiVersion" and isinstance(kind, str) and kind in MODELS:
                fix = f"add apiVersion: {MODELS[kind].group}/{MODELS[kind].versions[0]}"
            message = "is missing" if given is None else f"must be text, not {_what(given)}"
            code = "missing-field" if given is None else "wrong-type"
            self._tell(document, message, code, fix, field=field_name, name=name)

    def _pass_over(
        self, version: str, kind: str, value: dict[str, Any], document: Document, name: str
    ) -> None:
        asks = Unenforced.of(version.rpartition("/")[0], kind, value)
        if asks is not None and asks.key not in self._seen:
            origin = _start(document)
            self._seen[asks.key] = origin
            asks.written_at(origin, document)
            self._result.resources.append(asks)
        self._tell(
            document,
            f"{shorten(kind)} of {shorten(version)} is ignored",
            "passed-over",
            field="kind",
            name=name,
            severity=Severity.INFO,
        )

    def _resource(
        self,
        model: type[Resource],
        value: dict[str, Any],
        document: Document,
        repeated: frozenset[str],
    ) -> None:
        name = _object_name(value)
        certain = value
        if repeated:
            # Which of the repeated keys counts is not known, so the hosts are not either.
            certain = {} if repeated & _NAMING else {"metadata": value.get("metadata")}
        try:
            resource = model.model_validate(value, by_alias=True, by_name=False, context=AS_WRITTEN)
        except ValidationError as problem:
            key = _key_of(model, certain)
            if key is None:
                self._result.complete = False
            else:
                self._result.broken.add(key)
            self._stand_in(document, model.__name__, certain)
            found = explain(model, problem.errors(include_url=False), document, name)
            if model.foreign:  # nobody wrote it for us
                found = (replace(item, severity=Severity.WARNING) for item in found)
            self._result.diagnostics.extend(found)
            return
        if repeated:
            self._result.broken.add(resource.key)
            self._stand_in(document, model.__name__, certain)
            return
        origin = _start(document)
        if (first := self._seen.setdefault(resource.key, origin)) is not origin:
            self._tell(
                document,
                f"is there already, at line {first.line}",
                "duplicate-object",
                "the first is used; remove one, or give it another name",
                name=name,
            )
            self._stand_in(document, model.__name__, {"spec": value.get("spec")})
            return
        resource.written_at(origin, document)
        self._result.resources.append(resource)
        self._result.diagnostics.extend(warnings(resource, document, name, self._keys))


def _meant(kind: str | None, value: dict[str, Any]) -> str:
    """A kind that was meant, if its objects do not name the hosts they are for, so that no word in
    them tells; "" otherwise."""
    protocol = ApplicationProtocol.__name__
    if kind is not None and kind in (*FOR_ANY_HOST, protocol):
        return kind
    spec, version = value.get("spec"), value.get("apiVersion")
    ours = isinstance(version, str) and version.startswith(f"{ApplicationProtocol.group}/")
    return protocol if ours and isinstance(spec, dict) and "protocol" in spec else ""


def _is_list_of_ours(kind: str) -> bool:
    return kind.endswith("List") and kind.removesuffix("List") in MODELS


def _start(document: Document) -> Origin:
    """Where an object begins: the first line of its document that says something, which needs no
    reading of it again, or its place in a list."""
    if document.prefix:
        return document.origin_of("")
    text, line, start = document.text, document.line, 0
    while start < len(text):
        end = text.find("\n", start)
        written = text[start : end if end >= 0 else len(text)]
        said = written.strip()
        if said and not said.startswith(("#", "---", "%")):
            return Origin(document.file, line, len(written) - len(written.lstrip()) + 1)
        line += 1
        start += len(written) + 1
    return Origin(document.file, document.line)


def _what(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
    return "a mapping"


def _object_name(value: dict[str, Any]) -> str:
    """``MetaRouter shop/orders``, as far as it is known."""
    kind = value.get("kind")
    if not isinstance(kind, str):
        return ""
    model = MODELS.get(kind)
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        return shorten(kind)
    if model is not None and not model.namespaced:
        return f"{kind} {shorten(name)}"
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    place = namespace if isinstance(namespace, str) else "default"
    return f"{shorten(kind)} {shorten(place)}/{shorten(name)}"


def _key_of(model: type[Resource], value: dict[str, Any]) -> Key | None:
    """The key of an object that has errors, if those leave one."""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not is_resource_name(name):
        return None
    namespace = _namespace_of(value, metadata) if model.namespaced else ""
    return None if namespace is None else Key(model.__name__, namespace, name)


def _namespace_of(value: dict[str, Any], metadata: dict[str, Any]) -> str | None:
    """The namespace of an object that has errors; None if they leave open which was meant."""
    given = metadata.get("namespace")
    if given is not None:
        return given if isinstance(given, str) and is_resource_name(given) else None
    spec = value.get("spec")
    elsewhere = "namespace" in value or (isinstance(spec, dict) and "namespace" in spec)
    misspelt = any(name not in _METADATA for name in metadata)
    return None if elsewhere or misspelt else "default"
