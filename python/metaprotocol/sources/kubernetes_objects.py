"""What objects of the Kubernetes API say, and their last good versions. No waiting is done here.

An object comes as JSON, checked by the API server against whatever CRD is installed there, which
may be older or newer than this program, or Aeraki's own: it is read and checked like a file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from pydantic import ValidationError

from metaprotocol.diagnostics import Diagnostic, Origin, Severity
from metaprotocol.kubernetes.reflector import ApiKind
from metaprotocol.resources.base import Key, Resource, share_names
from metaprotocol.resources.config_map import MESH_CONFIG, ROOT_NAMESPACE
from metaprotocol.resources.kinds import KINDS, Kind, find_kind
from metaprotocol.resources.problems import explain, warnings
from metaprotocol.resources.unenforced import Unenforced
from metaprotocol.resources.unreadable import GUARDS, Unreadable, hosts_in
from metaprotocol.resources.yaml_positions import Position
from metaprotocol.sources.folder import Content, LastGood

__all__ = [
    "CONTROLLER_LABEL",
    "FOLLOWED",
    "ORIGIN",
    "ObjectState",
    "ReadObject",
    "read_object",
    "to_keep",
    "trimmed",
]

Json: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

ORIGIN = Origin("kubernetes")
"""Of everything that comes from here; the object's own name says the rest."""

CONTROLLER_LABEL = "metaprotocol.aeraki.io/controller"
"""On everything that a controller of ours writes: by which installation. Not to be read again."""

# In a cluster, EndpointSlices and Pods say what these would.
_SAID_ELSEWHERE = ("Endpoints", "Deployment", "StatefulSet")
# Where there is a cluster istiod enforces it, or nobody; without the other requests go on alike.
_NOT_ESSENTIAL = ("AuthorizationPolicy", "Gateway", "Telemetry", "ConfigMap")
# What is not read, but told of where somebody has written it.
_TOLD_OF = ("RequestAuthentication",)
# What our controller writes as well.
_WRITTEN = ("VirtualService",)
_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")
# What is in Secrets is for those who mount them, and for nobody else to read.
_NOT_FOLLOWED = (*_SAID_ELSEWHERE, "Secret")
# Of all ConfigMaps one, for which the rights are enough that are for this one alone.
_ONLY = {"ConfigMap": (ROOT_NAMESPACE, MESH_CONFIG)}
_UNREAD = {
    "ConfigMap": "policies with action CUSTOM deny what meets them, outside Istio's sidecars"
}

FOLLOWED: tuple[ApiKind, ...] = (
    *(
        ApiKind(
            kind.group,
            kind.name,
            kind.plural,
            kind.versions,
            kind.namespaced,
            essential=kind.name not in _NOT_ESSENTIAL,
            selector=f"!{CONTROLLER_LABEL}" if kind.name in _WRITTEN else "",
            only=_ONLY.get(kind.name),
            unread=_UNREAD.get(kind.name, ApiKind.unread),
        )
        for kind in KINDS
        if kind.model is not None and kind.name not in _NOT_FOLLOWED
    ),
    *(
        ApiKind(kind.group, kind.name, kind.plural, _ISTIO_VERSIONS, essential=False)
        for kind in KINDS
        if kind.name in _TOLD_OF
    ),
)
"""The kinds that are followed in a cluster."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionTimestamp",
    "uid",
    "generation",
)


def without_managers(value: Json) -> Json:
    """An object without what the API server and kubectl note of who has said which field, which is
    longer than the object."""
    metadata = dict(value.get("metadata") or {})
    metadata.pop("managedFields", None)
    if _LAST_APPLIED in (annotations := metadata.get("annotations") or {}):
        metadata["annotations"] = {
            name: text for name, text in annotations.items() if name != _LAST_APPLIED
        }
    return {**value, "metadata": metadata}


def told_of(value: Json) -> Json:
    """What of an object is needed to say something of it, once it has been read."""
    metadata = value.get("metadata") or {}
    names = ("namespace", "name", "uid", "generation", "resourceVersion")
    made: Json = {key: value[key] for key in ("apiVersion", "kind") if key in value}
    made["metadata"] = {name: metadata[name] for name in names if name in metadata}
    conditions = (value.get("status") or {}).get("conditions")
    if conditions and "/" in str(value.get("apiVersion")):  # not a Pod's
        made["status"] = {"conditions": conditions}
    return made


def trimmed(value: Json) -> Json:
    """An object without what changes and says nothing to us: bookkeeping, and most of a status.
    Two that are the same need not be read twice."""
    metadata = value.get("metadata") or {}
    made = {**value, "metadata": {key: metadata[key] for key in _METADATA if key in metadata}}
    status = made.pop("status", None) or {}
    match value.get("kind"):
        case "Pod":
            spec = value.get("spec") or {}
            made["metadata"].pop("annotations", None)
            made["spec"] = {
                "containers": [
                    {key: item[key] for key in ("name", "ports") if key in item}
                    for item in spec.get("containers") or ()
                ]
            }
            made["status"] = {
                "phase": status.get("phase") or "Pending",
                "podIP": status.get("podIP") or "",
                "conditions": [
                    {"type": item.get("type"), "status": item.get("status")}
                    for item in status.get("conditions") or ()
                    if item.get("type") == "Ready"
                ],
            }
        case "EndpointSlice":  # has an annotation with the time of the last change
            made["metadata"].pop("annotations", None)
            made["metadata"].pop("generation", None)
        case "ServiceEntry" if status.get("addresses"):
            made["status"] = {"addresses": status["addresses"]}
    return made


# Positions of an object are asked for one after the other.
_parsed = lru_cache(maxsize=16)(json.loads)


class _Written:
    """Values that have no lines: fields are found, places are not."""

    file = ORIGIN.file

    def __init__(self, text: bytes) -> None:
        self._text = text

    def position(self, path: Path) -> Position | None:
        value: Any = _parsed(self._text)
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        if not isinstance(value, str | int | float | bool):
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        return Position(0, 0, 0, 0, text, not isinstance(value, str), {})

    def origin_of(self, _field: str | Path) -> Origin:
        return ORIGIN

    def origin_of_one(self, _path: Path, _keys: Mapping[Path, int] | None) -> Origin:
        return ORIGIN


@dataclass(frozen=True)
class ReadObject:
    """What is known of one object."""

    text: bytes
    """As it was read, trimmed, in JSON: as objects it would take ten times the memory."""
    resource: Resource | None
    """What counts: the object, its last good version, or what stands in its place."""
    diagnostics: tuple[Diagnostic, ...] = ()
    is_good: bool = False
    """Whether ``resource`` is what ``text`` says."""

    @property
    def good(self) -> Resource | None:
        """The last good version, if there was one."""
        return None if isinstance(self.resource, Unreadable) else self.resource


class ObjectState:
    """All objects, by a name of their own: ``MetaRouter shop/orders``."""

    def __init__(self, last_good: LastGood | None = None) -> None:
        """``last_good``: what objects said before the program was started."""
        self._objects: dict[str, ReadObject] = {}
        self._last_good = last_good

    @property
    def diagnostics(self) -> Iterable[Diagnostic]:
        """All that is wrong with them."""
        for item in self._objects.values():
            yield from item.diagnostics

    def read(self, changed: dict[str, tuple[ApiKind, Json | None]]) -> dict[str, ReadObject | None]:
        """What these objects say, of those that say something else than before; None: they are
        gone. Changes nothing here, and may run in a thread."""
        found: dict[str, ReadObject | None] = {}
        for place, (kind, value) in changed.items():
            known = self._objects.get(place)
            if value is None:
                if known is not None:
                    found[place] = None
                continue
            value = trimmed(value)
            if known is not None and known.text == _text(value):
                continue
            item = read_object(place, kind, value, known.good if known else None)
            if known is None and isinstance(item.resource, Unreadable):
                before = self._before(place, kind, value)
                item = read_object(place, kind, value, before)
            found[place] = item
        return found

    def _before(self, place: str, kind: ApiKind, value: Json) -> Resource | None:
        """What an object said when it was last right, before the program was started. That is
        read, and checked, like any other object; of another one that had its name it is nothing."""
        if self._last_good is None:
            return None
        uid = value["metadata"].get("uid")
        for content in self._last_good.contents(place)[0]:
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
                kept = json.loads(content)
                read = read_object(place, kind, kept)
                if read.is_good and kept["metadata"].get("uid") == uid:
                    return read.resource
        return None

    def take(self, found: dict[str, ReadObject | None]) -> dict[str, tuple[Resource, ...]]:
        """Makes what was found the state. Returns the resources for the inventory."""
        made: dict[str, tuple[Resource, ...]] = {}
        for place, item in found.items():
            if item is None:
                self._objects.pop(place, None)
            else:
                self._objects[place] = item
            made[place] = (item.resource,) if item is not None and item.resource else ()
        return made


def read_object(
    place: str, followed: ApiKind, value: Json, before: Resource | None = None
) -> ReadObject:
    """What an object says, or with errors its last good version. ``place`` is how diagnostics name
    it, ``value`` is ``trimmed``."""
    text = _text(value)
    kind = find_kind(followed.group, followed.name)
    if kind is None:
        told = _told(
            place,
            f"{followed.name} is not supported, the object is ignored",
            "unsupported-kind",
            "only MetaProtocol is: ApplicationProtocol and MetaRouter",
        )
        return ReadObject(text, None, (told,))
    if kind.model is None:
        asks = Unenforced.of(kind.group, kind.name, value)
        if asks is not None:
            asks.written_at(ORIGIN, None)
        return ReadObject(text, asks)
    written = _Written(text)
    try:
        resource = kind.model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as problem:
        found = list(explain(kind.model, problem.errors(include_url=False), written, place))
        if kind.model.foreign:  # nobody wrote it for us
            found = [replace(item, severity=Severity.WARNING) for item in found]
        return _broken(place, kind, value, text, before, found)
    share_names(resource)
    resource.written_at(ORIGIN, written)
    doubts = tuple(warnings(resource, written, place))
    return ReadObject(text, resource, doubts, is_good=True)


def to_keep(found: Mapping[str, ReadObject | None]) -> dict[str, Content | None]:
    """What is to be kept of these for the next start: of objects without which more may be
    possible, what is right. None: nothing any more."""
    kept: dict[str, Content | None] = {}
    for place, item in found.items():
        if item is None:
            kept[place] = None
        elif item.is_good and item.resource is not None and item.resource.kind in GUARDS:
            kept[place] = Content(item.text, (item.resource.key,), whole=True)
    return kept


def _broken(
    place: str,
    kind: Kind,
    value: Json,
    text: bytes,
    before: Resource | None,
    found: list[Diagnostic],
) -> ReadObject:
    """An object with errors: its last good version, or something that keeps its hosts shut."""
    if before is not None:
        told = _told(
            place, "its last good version stays in use until the errors are fixed", "last-good"
        )
        return ReadObject(text, before, (*found, told))
    if not kind.guarded:
        return ReadObject(text, None, tuple(found))
    metadata = value["metadata"]
    key = _key_of(kind, value)
    made = Unreadable.of(
        place,
        kind=kind.name,
        key=key,
        hosts=hosts_in(kind.name, value),
        text=text.decode(),
        created=metadata.get("creationTimestamp"),
    )
    made.written_at(ORIGIN, None)
    return ReadObject(text, made, tuple(found))


def _key_of(kind: Kind, value: Json) -> Key:
    metadata = value["metadata"]
    return Key(
        kind.name,
        str(metadata.get("namespace") or "default") if kind.namespaced else "",
        str(metadata.get("name") or ""),
    )


def _text(value: Json) -> bytes:
    return json.dumps(value).encode()


def _told(place: str, message: str, code: str, fix: str = "") -> Diagnostic:
    return Diagnostic(Severity.WARNING, message, ORIGIN, place, fix=fix, code=code)
