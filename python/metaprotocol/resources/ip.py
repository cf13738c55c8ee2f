"""Texts as IP addresses. Each is looked at several times, and reading one takes a while."""

from __future__ import annotations

import functools
import ipaddress
from typing import TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=50_000)
def ip_address(text: str) -> IpAddress | None:
    """The address; None if it is none, but a name or a network."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
