"""Secrets of Kubernetes, as far as another object names one. What is in them is in no message, and
in no representation."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from metaprotocol.resources.base import Resource
from metaprotocol.resources.types import error

__all__ = ["Secret"]

_LARGEST = 1 << 20
"""Kubernetes' bound."""


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        fix = "encode it, or write the text itself in stringData"
        raise error("bad-base64", "is no base64", fix=fix) from None
    return value


def _or_nothing(value: Any) -> Any:
    # As Kubernetes' own programs print what is empty.
    return {} if value is None else value


Encoded = Annotated[str, Field(max_length=2 * _LARGEST), AfterValidator(_base64)]


class Secret(Resource):
    """Values that not everybody may read."""

    model_config = ConfigDict(extra="ignore")

    group: ClassVar[str] = ""
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    foreign: ClassVar[bool] = True
    confidential: ClassVar[frozenset[str]] = frozenset({"data", "stringData"})

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    spec: Any = None
    data: Annotated[dict[str, Encoded], BeforeValidator(_or_nothing)] = Field(
        default_factory=dict, repr=False
    )
    """Values in base64."""
    string_data: Annotated[dict[str, str], BeforeValidator(_or_nothing)] = Field(
        default_factory=dict, repr=False
    )
    """Values as they are, which go over those of ``data``."""

    def value(self, key: str) -> bytes | None:
        """The value with that key; None: there is none."""
        if (text := self.string_data.get(key)) is not None:
            return text.encode()
        encoded = self.data.get(key)
        return base64.b64decode(encoded) if encoded is not None else None

    def has(self, key: str) -> bool:
        """Whether there is a value with that key."""
        return key in self.string_data or key in self.data

    @property
    def value_keys(self) -> list[str]:
        """The keys of its values."""
        return sorted({*self.data, *self.string_data})

    def _said(self) -> tuple[object, ...]:
        return (self.metadata, self.data, self.string_data)
