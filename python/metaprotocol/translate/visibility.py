"""``exportTo``: the namespaces whose proxies see a resource."""

from __future__ import annotations

from collections.abc import Sequence

Namespaces = frozenset[str] | None
"""None: all of them."""


def exported_to(export_to: Sequence[str] | None, namespace: str) -> Namespaces:
    """``exportTo`` of an object of ``namespace``: "." is that one, "*" or nothing all, "~" none."""
    if not export_to or "*" in export_to:
        return None
    return frozenset(namespace if name == "." else name for name in export_to if name != "~")


def both(one: Namespaces, other: Namespaces) -> Namespaces:
    """The namespaces that are in both."""
    if one is None:
        return other
    return one if other is None else one & other


def meet(one: Namespaces, other: Namespaces) -> bool:
    """Whether some namespace may be in both."""
    common = both(one, other)
    return common is None or bool(common)
