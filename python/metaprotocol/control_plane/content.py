"""Resources with what was found wrong when they were read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from metaprotocol.diagnostics import Diagnostic
from metaprotocol.resources import Inventory, Resource
from metaprotocol.sources.files import load_folder


@dataclass(frozen=True)
class Content:
    """Resources by file, and the diagnostics of reading them."""

    inventory: Inventory = field(default_factory=Inventory)
    diagnostics: tuple[Diagnostic, ...] = ()

    @classmethod
    def copy_of(cls, content: Content) -> Content:
        """The same, in an inventory of its own."""
        inventory = Inventory()
        given = content.inventory
        inventory.replace_files({file: given.in_file(file) for file in given.files})
        return cls(inventory, content.diagnostics)


def in_code(resources: Iterable[Resource]) -> Content:
    """Resources that were made in code. Of those with one name the last counts."""
    return Content(Inventory.of(resources))


def read_folder(path: Path) -> Content:
    """The resources in a folder's files, or in one file, as they are now."""
    return Content(*load_folder(path))
