"""ApplicationProtocol: which codec speaks a protocol named in port names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from metaprotocol.resources.access_log import AccessLog
from metaprotocol.resources.base import Checked, Problem, Resource
from metaprotocol.resources.declaration import Declaration
from metaprotocol.resources.library_filter import LibraryFilters, named_twice
from metaprotocol.resources.limits import Limits
from metaprotocol.resources.request_metrics import RequestMetrics
from metaprotocol.resources.tracing import Tracing

__all__ = ["ApplicationProtocol", "ApplicationProtocolSpec"]

_CODEC_PREFIX = "aeraki.meta_protocol.codec."


class ApplicationProtocolSpec(Limits, Checked):
    """A protocol: its name in port names, the codec that reads and writes it, and limits for all
    its services."""

    protocol: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the protocol, as in port names: `dubbo` in `tcp-metaprotocol-dubbo`. Letters and
    digits, without `-`."""
    codec: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Name of the codec: `dubbo`, or as Aeraki writes it, `aeraki.meta_protocol.codec.dubbo`."""
    declaration: Declaration | None = None
    """The protocol itself, in place of a codec: how its messages are laid out, and what their
    fields mean."""
    library: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The codec in a shared library of its own, in place of one of the build: its absolute path,
    which must be the same where Envoy runs and where the control plane does."""
    upstream_connections: Literal["shared", "exclusive", "per_session"] | None = None
    """How requests use upstream connections. `shared`: requests of many clients on one connection,
    for protocols with a correlation id. `exclusive`: one request at a time. `per_session`: each
    client connection has its own. Without it the codec's own way is used."""
    options: Annotated[
        dict[str, JsonValue] | None,
        WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    ] = None
    """Options of the codec; its documentation has them."""

    access_logs: Annotated[list[AccessLog], Field(max_length=16)] = Field(default_factory=list)
    """What is written of the requests of all services of the protocol, unless a MetaRouter says
    otherwise."""

    generate_request_ids: bool = False
    """Whether requests without metadata `x-request-id` get one: a random UUID."""

    tracing: Tracing | None = None
    """Spans of the requests of all services of the protocol, unless a MetaRouter says otherwise."""

    request_metrics: RequestMetrics | None = None
    """Istio's metrics of them, unless a MetaRouter says otherwise."""

    filters: LibraryFilters = Field(default_factory=list)
    """Filters in shared libraries that the requests of all services of the protocol pass, in this
    order, after authorization and limits."""

    @property
    def codec_name(self) -> str:
        """The codec's own name: `dubbo`; the protocol's if that is declared or in a library."""
        if self.codec is None:
            return self.protocol
        return self.codec.removeprefix(_CODEC_PREFIX)

    def problems(self) -> Iterator[Problem]:
        """A name that no port name could have; not one of codec, declaration and library."""
        if not (self.protocol.isascii() and self.protocol.isalnum()):
            plain = "".join(c for c in self.protocol if c.isascii() and c.isalnum())
            fix = f'write "{plain}" and name ports "tcp-metaprotocol-{plain}"' if plain else ""
            message = "must be letters and digits only, because '-' ends it in a port name"
            yield Problem("protocol", "bad-protocol", message, fix)
        ways = [self.codec, self.declaration, self.library]
        if sum(way is not None for way in ways) != 1:
            field = "codec" if self.codec is not None else ""
            message = "must have exactly one of codec, declaration and library"
            yield Problem(field, "codec-or-declaration", message)
        if self.declaration is not None and self.options is not None:
            yield Problem("options", "no-options", "are for codecs; a declaration has none")
        if self.library is not None and not self.library.startswith("/"):
            yield Problem("library", "bad-library", "must be an absolute path")
        yield from named_twice(self.filters)
        if self.codec is not None and not self.codec_name:
            yield Problem("codec", "bad-codec", "names no codec", "such as dubbo or thrift")


class ApplicationProtocol(Resource):
    """Makes a protocol known under a name that port names use, and says which codec speaks it."""

    group: ClassVar[str] = "metaprotocol.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    namespaced: ClassVar[bool] = False

    api_version: Literal["metaprotocol.aeraki.io/v1alpha1"] = "metaprotocol.aeraki.io/v1alpha1"
    kind: Literal["ApplicationProtocol"] = "ApplicationProtocol"
    spec: ApplicationProtocolSpec
