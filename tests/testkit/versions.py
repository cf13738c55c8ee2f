"""What a change must not look at."""

from __future__ import annotations

from typing import Any

from metaprotocol.versioned import Versioned


class NeverAllOfIt(dict[Any, Any]):
    """A dictionary that may only be asked for single keys."""

    def refuse(self, *_: object) -> Any:
        """Whoever wants more fails."""
        raise AssertionError("everything is looked at")

    __iter__ = keys = values = items = copy = refuse


def forbid_looking_at_everything(least: int, *owners: object) -> int:
    """Of the dictionaries in these objects that have so many entries, no more than single ones can
    be had from now on. Returns how many dictionaries that are."""
    made: dict[int, NeverAllOfIt] = {}
    known: list[object] = []  # or another could be made in the same place

    def guarded(entries: dict[Any, Any]) -> NeverAllOfIt:
        if isinstance(entries, NeverAllOfIt):
            return entries
        if id(entries) not in made:
            known.append(entries)
            made[id(entries)] = NeverAllOfIt(entries)
        return made[id(entries)]

    for owner in owners:
        for name, value in vars(owner).items():
            if isinstance(value, Versioned) and len(value._base) >= least:
                value._base = guarded(value._base)
            elif isinstance(value, dict) and not isinstance(value, NeverAllOfIt):
                for key, inside in value.items():
                    if isinstance(inside, Versioned) and len(inside._base) >= least:
                        inside._base = guarded(inside._base)
                    elif type(inside) is dict and len(inside) >= least:
                        value[key] = guarded(inside)
                if len(value) >= least:
                    setattr(owner, name, guarded(value))
    return len(made)
