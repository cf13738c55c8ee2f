"""Objects that ask for something which nothing here does.

Who finds an AuthorizationPolicy in the folder believes that it holds. These objects are kept, so
that each can be told of, with the services that it leaves as they are.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Self

from pydantic import Field

from metaprotocol.resources.base import Key, Metadata, Model, Resource
from metaprotocol.resources.kinds import find_kind

__all__ = ["Unenforced", "UnenforcedSpec"]


class UnenforcedSpec(Model):
    """What is known of it."""

    kind: str
    namespace: str
    name: str
    effect: str
    """What it means that it is not enforced."""
    effect_in_istio: str = ""
    """The same where istiod enforces the rest of it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The labels of the pods it is for; none: those of all in its namespace."""


class Unenforced(Resource):
    """Stands for an object of another kind, with the key of that."""

    group: ClassVar[str] = "metaprotocol.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    spec: UnenforcedSpec

    @classmethod
    def of(cls, group: str, kind: str, value: dict[str, Any]) -> Self | None:
        """What stands for an object, if it is one that asks for something."""
        known = find_kind(group, kind)
        metadata = value.get("metadata")
        if known is None or not known.effect or not isinstance(metadata, dict):
            return None
        name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
        if not isinstance(name, str) or not isinstance(namespace, str):
            return None
        spec = value.get("spec")
        content = spec if isinstance(spec, dict) else {}
        return cls(
            api_version=f"{cls.group}/{cls.versions[0]}",
            kind="Unenforced",
            metadata=Metadata(name="unenforced"),
            spec=UnenforcedSpec(
                kind=kind,
                namespace=namespace,
                name=name,
                effect=known.effect,
                effect_in_istio=known.effect_in_istio,
                labels=_labels(content),
            ),
        )

    @functools.cached_property
    def key(self) -> Key:
        """That of the object."""
        return Key(self.spec.kind, self.spec.namespace, self.spec.name)


def _labels(spec: dict[str, Any]) -> dict[str, str]:
    for path in (("selector", "matchLabels"), ("workloadSelector", "labels")):
        found: Any = spec
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict) and found:
            return {str(name): str(value) for name, value in found.items()}
    return {}
