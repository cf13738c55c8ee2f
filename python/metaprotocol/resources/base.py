"""What all resources have in common: metadata, identity, and where they were written."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from metaprotocol.diagnostics import Origin
from metaprotocol.errors import InvalidResources
from metaprotocol.resources.types import ResourceName, Timestamp, error

__all__ = [
    "Checked",
    "Key",
    "Metadata",
    "Model",
    "Problem",
    "Resource",
    "SourceDocument",
    "underscore",
]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a model as a whole, told of one of its fields."""

    field: str
    """Path below the model, in YAML names: ``route``, ``route[0].weight``; empty: the model."""
    code: str
    message: str
    fix: str = ""


def underscore(field: str, name: str | None) -> Iterator[Problem]:
    """The doubt about a name that DNS and Kubernetes would not take."""
    if name is not None and "_" in name:
        message = "has '_', which is no part of DNS names"
        yield Problem(
            field, "underscore", message, "Kubernetes refuses it; '-' is right everywhere"
        )


class Model(BaseModel):
    """Base of every part of a resource: immutable, strict about types, without unknown fields.

    Attributes have Python names; YAML has the same in camelCase. Both may be used in code."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        populate_by_name=True,
        alias_generator=to_camel,
        allow_inf_nan=False,
        # Texts may be long, and are shown by us where they matter.
        hide_input_in_errors=True,
    )

    reserved: ClassVar[dict[str, str]] = {}
    """YAML names of fields that are to come -> what to do until then."""
    no_effect: ClassVar[dict[str, str]] = {}
    """Attributes that nothing honours, whatever else is given -> why, or what to use. What depends
    on other fields is told where it is translated."""
    confidential: ClassVar[frozenset[str]] = frozenset()
    """YAML names of fields of which no message shows what is written, there or below."""
    no_meaning: ClassVar[dict[str, str]] = {}
    """The same of attributes that are for other programs, and of which nobody here would expect
    anything."""

    def doubts(self) -> Iterator[Problem]:
        """What is taken as it is written, though it may not be what was meant: warnings."""
        yield from ()

    def __init__(self, /, **data: Any) -> None:
        """Of the fields, by their Python or YAML names. InvalidResources if they are wrong, which
        says of each what to write instead."""
        try:
            super().__init__(**data)
        except ValidationError as found:
            from metaprotocol.resources.problems import explain_made_in_code

            raise InvalidResources(explain_made_in_code(type(self), found, data)) from None

    # Tells pydantic that this is no more than its own, which reading a file need not go through.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Only what was given."""
        for name, value in super().__repr_args__():
            if name in self.model_fields_set:
                yield name, value


class Checked(Model):
    """Base of parts with conditions between their fields. A validator of its own costs something
    for each of thousands of objects, so that only these have one."""

    right_alone: ClassVar[frozenset[str]] = frozenset()
    """Attributes that are right if nothing else is given, and not None: most parts have only
    one."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong between fields that are right each by itself."""
        yield from ()

    @model_validator(mode="after")
    def _check(self) -> Checked:
        given = self.__pydantic_fields_set__
        if len(given) == 1:
            (name,) = given
            if name in self.right_alone and getattr(self, name) is not None:
                return self
        found = tuple(self.problems())
        if found:
            text = "; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in found)
            raise error("problems", text, problems=found)
        return self


def nulls(part: Model, names: Iterable[str]) -> Iterator[Problem]:
    """Attributes that are written, with nothing in them."""
    for name in names:
        if name in part.model_fields_set and getattr(part, name) is None:
            message = "has nothing in it"
            yield Problem(to_camel(name), "null", message, "write what it is to be")


class Key(NamedTuple):
    """Identifies a resource."""

    kind: str
    namespace: str
    """Empty for resources of the whole cluster."""
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"


class SourceDocument(Protocol):
    """The YAML document that a resource was read from."""

    def origin_of(self, field: str) -> Origin:
        """Where a field is written, or the nearest enclosing one that is."""


def _nothing(_: object) -> None:
    return None


class Metadata(Model):
    """Name, namespace, labels and annotations, and what Kubernetes notes down beside them."""

    name: ResourceName
    namespace: ResourceName = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Timestamp | None = None

    # Bookkeeping of Kubernetes, taken so that `kubectl get -o yaml` can be read again. It plays no
    # part in whether two resources are the same.
    generation: int | None = None
    uid: str = ""
    resource_version: str = ""
    generate_name: str = ""
    self_link: str = ""
    deletion_timestamp: Timestamp | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner_references: Annotated[Any, BeforeValidator(_nothing)] = None
    managed_fields: Annotated[Any, BeforeValidator(_nothing)] = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        # Tools that print resources write `labels: null`, `creationTimestamp: null`.
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data

    def _compared(self) -> tuple[object, ...]:
        return (
            self.name,
            self.namespace,
            self.labels,
            self.annotations,
            self.creation_timestamp,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metadata) and self._compared() == other._compared()

    __hash__ = None  # type: ignore[assignment]


_IN_CODE = Origin("")


def _in_code() -> Origin:
    return _IN_CODE


def _no_document() -> SourceDocument | None:
    return None


class Resource(Model):
    """One object of a file. Two are equal if they say the same, wherever they are written."""

    group: ClassVar[str]
    versions: ClassVar[tuple[str, ...]]
    """API versions that are read, the preferred one first."""
    namespaced: ClassVar[bool] = True
    foreign: ClassVar[bool] = False
    """Another program's, of which some are read: other kinds and versions of its group are none of
    our business."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: Any
    status: Annotated[Any, BeforeValidator(_nothing)] = None
    """What a controller says of the object; not ours to read."""

    # A default would be copied deeply for every resource.
    _origin: Origin = PrivateAttr(default_factory=_in_code)
    _document: SourceDocument | None = PrivateAttr(default_factory=_no_document)

    @functools.cached_property
    def key(self) -> Key:
        """Identifies the resource; the API version is no part of it."""
        namespace = self.metadata.namespace if self.namespaced else ""
        return Key(self.kind, namespace, self.metadata.name)

    @property
    def origin(self) -> Origin:
        """Where the resource begins; without file if it was made in code."""
        return self._origin

    def origin_of(self, field: str) -> Origin:
        """Where a field (``spec.routes[0].match``) is written. If it is not written, where the
        nearest enclosing one is."""
        return self._document.origin_of(field) if self._document else self._origin

    def written_at(self, origin: Origin, document: SourceDocument | None) -> None:
        """Notes where the resource was read. Called by the loader."""
        self._origin = origin
        self._document = document

    def to_dict(self) -> dict[str, Any]:
        """As in YAML, with only what was given."""
        content: dict[str, Any] = self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude={"status"}
        )
        return {"apiVersion": self.api_version, "kind": self.kind} | content

    def _said(self) -> tuple[object, ...]:
        """What two that are equal have in common."""
        return (self.metadata, self.spec)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Resource)
            and type(self) is type(other)
            and self._said() == other._said()
        )

    __hash__ = None  # type: ignore[assignment]


@functools.cache
def known_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The YAML names of a model's fields."""
    return tuple(info.alias or name for name, info in model.model_fields.items())


_NAMES: dict[frozenset[str], set[str]] = {}
"""Sets of the names of fields, of the forms of objects that were seen first."""
_MOST_NAMES = 10_000


def share_names(value: object) -> None:
    """Has a model and all in it share with others the set of the fields that were given, of which
    each would have its own, the largest part of a small one. They are never changed."""
    if isinstance(value, BaseModel):
        given = value.model_fields_set
        names = frozenset(given)
        if len(_NAMES) < _MOST_NAMES:
            _NAMES.setdefault(names, given)
        object.__setattr__(value, "__pydantic_fields_set__", _NAMES.get(names, given))
        for item in value.__dict__.values():
            share_names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            share_names(item)
    elif isinstance(value, dict):
        for item in value.values():
            share_names(item)
