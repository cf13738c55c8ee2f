"""Limits of resources to the engine's."""

from __future__ import annotations

from datetime import timedelta

from metaprotocol.config.v1 import Limits
from metaprotocol.resources.limits import Limits as Written

# The engine's own bound is a year, the resources' a day more.
_LONGEST_TIME = timedelta(days=365)


def limits_message(written: Written) -> Limits:
    """Those that are given."""
    made = Limits()
    for name in Written.model_fields:
        value = getattr(written, name)
        if isinstance(value, timedelta):
            getattr(made, name).FromTimedelta(min(value, _LONGEST_TIME))
        elif value is not None:
            setattr(made, name, value)
    return made


def put_over(limits: Limits, other: Limits) -> None:
    """Takes those of ``other`` in place of those that ``limits`` has."""
    given = [field.name for field, _ in other.ListFields()]
    for name in given:
        limits.ClearField(name)
    if given:
        limits.MergeFrom(other)
