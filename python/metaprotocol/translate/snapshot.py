"""What a translation has come to: immutable, so that everybody may read it at any time, in any
thread, while the next one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from google.protobuf.message import Message

from metaprotocol.audience import Clients
from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources import Inventory, Key, Resource
from metaprotocol.translate.naming import TYPE_URLS
from metaprotocol.translate.visibility import Namespaces
from metaprotocol.versioned import Versioned, differing


@dataclass(frozen=True, slots=True)
class Made:
    """An Envoy resource, and what it was made from."""

    message: Message
    origins: tuple[Key, ...]
    """The resources it was made from, the one that people would look into first in front."""
    visible_to: Namespaces
    """The namespaces whose proxies may see it; None: all."""
    variants: Mapping[Clients, Message | None] = field(default_factory=dict)
    """What some of them get in place of ``message``; None: nothing."""

    def says_the_same_as(self, other: Made) -> bool:
        """Whether everybody gets the same, whatever it was made from."""
        return (
            self.visible_to == other.visible_to
            and self.message == other.message
            and self.variants == other.variants
        )


Everything = Mapping[str, Mapping[str, Made]]
"""By type URL and name."""


def _nothing() -> Everything:
    return MappingProxyType({url: MappingProxyType({}) for url in TYPE_URLS})


@dataclass(frozen=True)
class Snapshot:
    """One generation of a translation, as a whole. What is the same as in the one before is the
    same object, and its mappings are ``Versioned``, so that comparing two costs what differs."""

    generation: int = 0
    """Counts the translator's snapshots; 0: nothing was translated yet."""
    inventory: Inventory = field(default_factory=Inventory)
    """What was translated. Not to be changed."""
    made: Everything = field(default_factory=_nothing)
    diagnostics: tuple[Diagnostic, ...] = ()
    """All that hold, in order of their places."""
    hosts: tuple[str, ...] = ()
    """The hosts that were translated again for this generation."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files that messages name, and what has to be in them before an Envoy gets those."""

    @cached_property
    def resources(self) -> Mapping[str, Mapping[str, Message]]:
        """The messages alone, by type URL and name."""
        return {
            url: {name: made.message for name, made in names.items()}
            for url, names in self.made.items()
        }

    @cached_property
    def visible_to(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Of those that are not for all: the namespaces whose proxies may see them."""
        return {
            (url, name): made.visible_to
            for url, names in self.made.items()
            for name, made in names.items()
            if made.visible_to is not None
        }

    def find(self, type_url: str, name: str) -> Made | None:
        """The Envoy resource of that type and name."""
        return self.made.get(type_url, {}).get(name)

    def origins(self, type_url: str, name: str) -> tuple[Resource, ...]:
        """The resources that an Envoy resource was made from; none if there is no such resource."""
        made = self.find(type_url, name)
        found = (self.inventory.get(key) for key in (made.origins if made else ()))
        return tuple(resource for resource in found if resource is not None)

    def changed_since(self, before: Snapshot) -> dict[str, dict[str, Message | None]]:
        """What is new or another than in an earlier snapshot; None: it is gone. In order of types
        and names."""
        changed: dict[str, dict[str, Message | None]] = {}
        for url in sorted(self.made.keys() | before.made.keys()):
            now, then = self.made.get(url, {}), before.made.get(url, {})
            names = {
                name
                for name in differing(now, then)
                if name not in now or _differs(now[name], then.get(name))
            }
            if names:
                changed[url] = {
                    name: now[name].message if name in now else None for name in sorted(names)
                }
        return changed


def shared(
    made: Mapping[str, Versioned[str, Made]], before: Everything
) -> dict[str, Versioned[str, Made]]:
    """``made`` with the objects of ``before`` wherever they say the same."""
    result: dict[str, Versioned[str, Made]] = {}
    for url, now in made.items():
        then = before.get(url, {})
        kept = {name: _older(item, then.get(name)) for name, item in now.items()}
        if not isinstance(then, Versioned) or differing(kept, then):
            then = Versioned(kept)
        result[url] = then
    return result


def _older(made: Made, before: Made | None) -> Made:
    return before if before is not None and made == before else made


def _differs(made: Made, before: Made | None) -> bool:
    return before is None or not made.says_the_same_as(before)
