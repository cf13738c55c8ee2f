"""What is written but cannot be read, and what it may be about.

A MetaRouter with an error may be the one that denies something, a DestinationRule the one that asks
for TLS. Where no good version of it is known, an ``Unreadable`` stands in its place, so that the
hosts that it may be about can be kept shut instead of being served as if it were not there.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError

from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources.base import Key, Metadata, Model, Resource
from metaprotocol.resources.kinds import MODELS, guards
from metaprotocol.resources.types import host_problem
from metaprotocol.resources.virtual_service import MESH

__all__ = [
    "FOR_ANY_HOST",
    "GUARDS",
    "Unreadable",
    "UnreadableSpec",
    "guard_meant",
    "hosts_in",
    "kind_in",
]

GUARDS = guards()
"""Kinds without which more may be possible than with them."""

ANY_HOST = "*"
"""In ``GUARDS``: objects of the kind do not name the hosts they are for."""

FOR_ANY_HOST = tuple(kind for kind, field in GUARDS.items() if field == ANY_HOST)

# Nothing is found of a kind that is no plain word: one in a block, an alias, or with escapes.
_KIND = re.compile(r"""["']?\bkind["']?\s*:\s*(?:[!&]\S*\s+)*(?:["']?(\w+)(?![\w\\]))?""")
_COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
_WORD = re.compile(r"[\w*.-]+")
# What "\x6f" stands for is no word of the text, nor is one that goes on in the next line.
_HIDDEN = re.compile(r"\\(x|u|U|\r?\n)")

_MOST_KINDS = 100
"""Words for kinds in one text that are compared with those of GUARDS."""


class UnreadableSpec(Model):
    """What is known of it."""

    kind: str = ""
    """One of GUARDS; empty: any of them."""
    namespace: str = ""
    name: str = ""
    """Of the object; empty: not known."""
    place: str = ""
    """Tells those without a name apart."""
    hosts: list[str] | None = None
    """What it is for: hosts, as written, or protocols; None: cannot be told."""
    words: list[str] | None = None
    """If that cannot be told: all words in it, in small letters. None: even these are not known."""
    spares: list[str] = Field(default_factory=list)
    """Hosts that were served without it when it came: they go on as they are."""


class Unreadable(Resource):
    """Stands for an object, a document or a file that cannot be read. It has the key of the object
    if that is known, so that a good version takes its place."""

    group: ClassVar[str] = "metaprotocol.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    spec: UnreadableSpec

    @classmethod
    def of(
        cls,
        place: str,
        *,
        kind: str = "",
        key: Key | None = None,
        namespace: str = "",
        hosts: Iterable[str] | None = None,
        text: str | None = None,
        created: object = None,
    ) -> Self:
        """``namespace`` is where it is if its key is not its own. Without ``hosts``, ``text`` is
        where they are, if that could be read at least.
        ``created`` is its creationTimestamp, as written."""
        words = None
        if hosts is None and text is not None and not _HIDDEN.search(text):
            words = sorted({word.strip(".").lower() for word in _WORD.findall(text)})
        spec = UnreadableSpec(
            kind=kind,
            namespace=key.namespace if key else namespace,
            name=key.name if key else "",
            place=place,
            hosts=list(hosts) if hosts is not None else None,
            words=words,
        )
        version = f"{cls.group}/{cls.versions[0]}"
        metadata = Metadata(name="unreadable")
        if created is not None:
            with contextlib.suppress(ValidationError):
                metadata = Metadata.model_validate(
                    {"name": "unreadable", "creationTimestamp": created}
                )
        return cls(api_version=version, kind="Unreadable", metadata=metadata, spec=spec)

    @functools.cached_property
    def key(self) -> Key:
        """That of the object, if it is known."""
        spec = self.spec
        if spec.kind and spec.name:
            return Key(spec.kind, spec.namespace, spec.name)
        return Key("Unreadable", "", spec.place)

    @property
    def guards_hosts(self) -> bool:
        """It is for hosts, not for protocols."""
        return self.spec.kind != "ApplicationProtocol"

    def may_be(self, kind: str) -> bool:
        """Whether it may be an object of that kind. An ApplicationProtocol only says how a codec is
        set, so that what may be anything is not taken for one; and of what is for any host there
        must be a word in the text, the kind or its group, or nothing else could be served beside
        a file with errors."""
        if self.spec.kind:
            return self.spec.kind == kind
        if kind in FOR_ANY_HOST:
            words = self.spec.words or ()
            return kind.lower() in words or MODELS[kind].group in words
        return kind != "ApplicationProtocol"

    def may_be_for(self, kind: str, host: str) -> bool:
        """Whether it may be an object of that kind for a service's host."""
        return self.may_be(kind) and (kind in FOR_ANY_HOST or self._may_name(host))

    def may_concern(self, host: str) -> bool:
        """Whether it may be an object of any kind for a service's host."""
        return any(map(self.may_be, FOR_ANY_HOST)) or self._may_name(host)

    def _may_name(self, host: str) -> bool:
        """Whether it may name a service's host, of which a short name is the first label."""
        spec, host = self.spec, host.lower()
        if not self.guards_hosts:
            return True
        if spec.hosts is not None:
            return any(self.names(written, host, spec.namespace) for written in spec.hosts)
        return spec.words is None or any(self.names(word, host) for word in spec.words)

    @staticmethod
    def names(written: str, host: str, namespace: str = "") -> bool:
        """Whether ``written`` may mean ``host``; without a namespace, a short name in any."""
        written, host = written.lower(), host.lower()
        if written.startswith("*"):
            return host.endswith(written[1:])
        if "." in written or written == host:
            return written == host
        return host.startswith(f"{written}.{namespace}." if namespace else f"{written}.")

    def sparing(self, hosts: Iterable[str]) -> Unreadable:
        """The same, which spares these hosts."""
        spec = self.spec.model_copy(update={"spares": sorted(hosts)})
        made = self.model_copy(update={"spec": spec})
        made.written_at(self._origin, self._document)
        return made


def guard_meant(kind: str, group: str | None = None) -> str | None:
    """The kind, of ``GUARDS``, that was probably meant by a word, in that API group if it is one
    that has any; None: none of them."""
    guards = [name for name in GUARDS if MODELS[name].group == group] or list(GUARDS)
    return kind if kind in guards else did_you_mean(kind, guards)


def kind_in(text: str) -> str | None:
    """The kind of object that a text which cannot be read may be: one of GUARDS, or "" if it may
    be any of them; None if it is of other kinds alone, whose absence opens nothing."""
    kinds = set(_KIND.findall(_COMMENT.sub("", text)))
    if "" in kinds:
        return ""
    guards = [kind for kind in GUARDS if kind in kinds or f"{kind}List" in kinds]
    if not guards:
        # At most a few are looked at: more make no object.
        meant = {guard_meant(kind) for kind in sorted(kinds - MODELS.keys())[:_MOST_KINDS]}
        guards = sorted(kind for kind in meant if kind is not None)
    if len(guards) == 1:
        return guards[0]
    return None if kinds and not guards and "List" not in kinds else ""


def hosts_in(kind: str, value: dict[str, Any]) -> list[str] | None:
    """What an object with errors is for, if those leave it readable: a MetaRouter's hosts, a
    DestinationRule's host, an ApplicationProtocol's protocol; nothing, if it is a VirtualService
    for gateways alone. None if they do not."""
    if GUARDS.get(kind) == ANY_HOST:
        return [ANY_HOST]
    spec = value.get("spec")
    if not isinstance(spec, dict):
        return None
    if kind == "VirtualService" and _for_gateways(spec.get("gateways")):
        return []
    found = spec.get(GUARDS[kind]) if kind in GUARDS else None
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list) or not found:
        return None
    hosts = [host.lower() for host in found if isinstance(host, str) and host]
    if len(hosts) != len(found):
        return None
    wrong = kind != "ApplicationProtocol" and any(
        host_problem(host.removeprefix("*.")) for host in hosts if host != "*"
    )
    return None if wrong else hosts


def _for_gateways(gateways: object) -> bool:
    """Whether these are a VirtualService's gateways, and clients with sidecars not among them."""
    return (
        isinstance(gateways, list)
        and bool(gateways)
        and all(isinstance(gateway, str) for gateway in gateways)
        and MESH not in gateways
    )
