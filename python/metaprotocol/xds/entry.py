"""One resource in one version."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from metaprotocol.audience import Audience, Clients
from metaprotocol.xds.offered import Offered, Plain
from metaprotocol.xds.schema import CDS, Schema, endpoints_name


def version_of(content: bytes) -> str:
    """The version of a resource with these bytes."""
    return blake2b(content, digest_size=8).hexdigest()


class Entry:
    """One version of one resource: its bytes, which all streams share. Immutable."""

    __slots__ = (
        "_delta_prefix",
        "_fingerprint",
        "_schema",
        "_sotw_prefix",
        "content",
        "endpoints",
        "name",
        "type_url",
        "variants",
        "version",
        "visible_to",
    )

    def __init__(self, schema: Schema, type_url: str, name: str, offered: Offered) -> None:
        message = offered.message
        self._schema = schema
        self.type_url = type_url
        self.name = name
        self.content = message.SerializeToString(deterministic=True)
        self.version = version_of(self.content)
        self.visible_to = offered.visible_to
        self.endpoints = endpoints_name(message) if type_url == CDS else None
        self.variants: Mapping[Clients, Entry | None] = {
            clients: Entry(schema, type_url, name, Plain(variant)) if variant is not None else None
            for clients, variant in sorted(
                offered.variants.items(), key=lambda item: item[0].narrowness, reverse=True
            )
        }
        """The narrowest first."""
        self._sotw_prefix: bytes | None = None
        self._delta_prefix: bytes | None = None
        self._fingerprint: int | None = None

    @property
    def restricted(self) -> bool:
        """Whether it is not the same for everyone."""
        return self.visible_to is not None or bool(self.variants)

    def seen_by(self, audience: Audience) -> Entry | None:
        """What these nodes get; None: nothing."""
        if self.visible_to is not None and audience.namespace not in self.visible_to:
            return None
        for clients, entry in self.variants.items():
            if clients.have(audience):
                return entry
        return self

    def same(self, other: Entry) -> bool:
        """Whether everyone gets the same of both."""
        return (
            self.version == other.version
            and self.visible_to == other.visible_to
            and _versions(self.variants) == _versions(other.variants)
        )

    @property
    def sotw_prefix(self) -> bytes:
        """What stands before ``content`` in a state-of-the-world response."""
        if self._sotw_prefix is None:
            self._sotw_prefix = self._schema.sotw_prefix(self.type_url, len(self.content))
        return self._sotw_prefix

    @property
    def delta_prefix(self) -> bytes:
        """What stands before ``content`` in a delta response."""
        if self._delta_prefix is None:
            self._delta_prefix = self._schema.delta_prefix(
                self.type_url, self.name, self.version, len(self.content)
            )
        return self._delta_prefix

    @property
    def fingerprint(self) -> int:
        """64 bits of name and version, which are added up to a version of a set."""
        if self._fingerprint is None:
            digest = blake2b(f"{self.name}\0{self.version}".encode(), digest_size=8)
            self._fingerprint = int.from_bytes(digest.digest())
        return self._fingerprint


def _versions(variants: Mapping[Clients, Entry | None]) -> dict[Clients, str]:
    return {clients: entry.version if entry else "" for clients, entry in variants.items()}
