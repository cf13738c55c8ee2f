"""Istio's VirtualService: which requests to hosts go where.

On ports of ours it is read as Aeraki reads it: headers are metadata, and the method is the
metadata key `method`. It is Istio's schema in full; what of it can be honoured depends on the ports
it meets, so that nothing is told of one that meets none of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from metaprotocol.resources.base import Checked, Model, Problem, Resource, nulls
from metaprotocol.resources.meta_router import Destination, MirrorDestination
from metaprotocol.resources.service_entry import ISTIO_GROUP, ISTIO_VERSIONS, IstioVersion
from metaprotocol.resources.traffic import Percent
from metaprotocol.resources.types import Duration, ExportTo, NotNull, UInt32, regex_problem

__all__ = [
    "MESH",
    "Abort",
    "Delay",
    "Fault",
    "HeaderOperations",
    "Headers",
    "HttpMatch",
    "HttpRoute",
    "Retry",
    "Share",
    "TcpMatch",
    "TcpRoute",
    "TextMatch",
    "TlsRoute",
    "VirtualService",
    "VirtualServiceSpec",
]

MESH = "mesh"
"""Istio's word, among gateways, for all sidecars."""

Weight = Annotated[int, Field(ge=0, le=2**31 - 1)]
Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(str.lower)]


class TextMatch(Checked):
    """A condition on one value; without any kind the value only has to be there."""

    right_alone = frozenset({"exact", "prefix"})

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None
    """An RE2 expression for the whole value; Istio's `*` holds for each."""

    def problems(self) -> Iterator[Problem]:
        """None written out, several, or no expression."""
        kinds = ("exact", "prefix", "regex")
        yield from nulls(self, kinds)
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) > 1:
            yield Problem("", "several-match-kinds", f"has {' and '.join(given)}, must have one")
        if self.regex is not None and self.regex != "*":
            problem, fix = regex_problem(self.regex)
            if problem:
                yield Problem("regex", "bad-regex", problem, fix)


def _presence(value: object) -> object:
    return TextMatch() if value is None else value


Texts = dict[str, Annotated[TextMatch, BeforeValidator(_presence)]]


class HttpMatch(Model):
    """Conditions on a request and on who sends it, all of which must hold."""

    name: str = ""
    uri: TextMatch | None = None
    scheme: TextMatch | None = None
    method: Annotated[TextMatch | None, NotNull] = None
    authority: TextMatch | None = None
    headers: Texts = Field(default_factory=dict)
    port: UInt32 | None = None
    source_labels: dict[str, str] = Field(default_factory=dict)
    gateways: list[str] = Field(default_factory=list)
    query_params: Texts = Field(default_factory=dict)
    ignore_uri_case: bool | None = None
    without_headers: Texts = Field(default_factory=dict)
    source_namespace: str = ""
    stat_prefix: str = ""


class HeaderOperations(Model):
    """Changes to one direction."""

    set: dict[str, str] = Field(default_factory=dict)
    add: dict[str, str] = Field(default_factory=dict)
    remove: list[str] = Field(default_factory=list)


class Headers(Model):
    """Changes to requests and replies."""

    request: HeaderOperations = Field(default_factory=HeaderOperations)
    response: HeaderOperations = Field(default_factory=HeaderOperations)


class Share(Model):
    """A destination with its share of the requests."""

    destination: Destination
    weight: Weight = 0
    headers: Headers = Field(default_factory=Headers)


class ConnectionShare(Model):
    """A destination with its share of the connections."""

    destination: Destination
    weight: Weight = 0


class Redirect(Model):
    """Another place for the client to ask."""

    uri: str = ""
    authority: str = ""
    port: UInt32 | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str = ""
    redirect_code: UInt32 | None = None
    prefix_rewrite: str = ""


class Body(Model):
    """What stands in a reply."""

    string: str | None = None
    bytes: str | None = None


class DirectResponse(Model):
    """A reply of the proxy itself."""

    status: Annotated[int, Field(ge=100, le=599)]
    body: Body | None = None


class Delegate(Model):
    """Another VirtualService that has the routes."""

    name: str = ""
    namespace: str = ""


class RegexRewrite(Model):
    """A changed path."""

    match: str = ""
    rewrite: str = ""


class Rewrite(Model):
    """A changed path or host."""

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class Retry(Model):
    """When requests are sent once more."""

    attempts: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    per_try_timeout: Duration | None = None
    retry_on: Annotated[str, Field(max_length=1024)] = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration | None = None


class Delay(Model):
    """Requests that wait before they go on."""

    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None
    percentage: Percent | None = None


class Abort(Model):
    """Requests that get an error in place of a reply."""

    http_status: Annotated[int, Field(ge=200, le=599)] | None = None
    grpc_status: str | None = None
    http2_error: str | None = Field(default=None, alias="http2Error")
    percentage: Percent | None = None


class Fault(Model):
    """Faults on purpose."""

    delay: Delay | None = None
    abort: Abort | None = None


class CorsPolicy(Model):
    """What browsers may ask from elsewhere."""

    allow_origin: list[str] = Field(default_factory=list)
    allow_origins: list[TextMatch] = Field(default_factory=list)
    allow_methods: list[str] = Field(default_factory=list)
    allow_headers: list[str] = Field(default_factory=list)
    expose_headers: list[str] = Field(default_factory=list)
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class HttpRoute(Checked):
    """Conditions, one set of which must hold, and what becomes of the requests."""

    actions: ClassVar[tuple[str, ...]] = ("route", "redirect", "direct_response", "delegate")

    name: str = ""
    match: list[HttpMatch] = Field(default_factory=list)
    route: list[Share] = Field(default_factory=list)
    redirect: Redirect | None = None
    direct_response: Annotated[DirectResponse | None, NotNull] = None
    delegate: Delegate | None = None
    rewrite: Rewrite | None = None
    timeout: Duration | None = None
    retries: Retry | None = None
    fault: Annotated[Fault | None, NotNull] = None
    mirror: Destination | None = None
    mirrors: list[MirrorDestination] = Field(default_factory=list)
    mirror_percentage: Percent | None = None
    whole_mirror_percent: UInt32 | None = Field(default=None, alias="mirrorPercent")
    """Istio's older form of mirrorPercentage."""
    oldest_mirror_percent: UInt32 | None = Field(default=None, alias="mirror_percent")
    """And the one before that."""
    cors_policy: CorsPolicy | None = None
    headers: Headers = Field(default_factory=Headers)

    def problems(self) -> Iterator[Problem]:
        """Nothing to do, several things, or shares that are none."""
        given = [name for name in self.actions if getattr(self, name)]
        if len(given) != 1:
            what = "route, redirect, directResponse or delegate"
            yield Problem("", "bad-route", f"must have one of {what}")
        yield from _shares(self.route)


class TcpMatch(Model):
    """Conditions on a connection, all of which must hold."""

    destination_subnets: list[str] = Field(default_factory=list)
    port: UInt32 | None = None
    source_subnet: str = ""
    source_labels: dict[str, str] = Field(default_factory=dict)
    gateways: list[str] = Field(default_factory=list)
    source_namespace: str = ""


class TcpRoute(Checked):
    """Conditions, one set of which must hold, and where the connections go."""

    match: list[TcpMatch] = Field(default_factory=list)
    route: Annotated[list[ConnectionShare], Field(min_length=1)]

    def problems(self) -> Iterator[Problem]:
        """Shares that are none."""
        yield from _shares(self.route)


class TlsMatch(Model):
    """Conditions on a TLS connection, all of which must hold."""

    sni_hosts: list[str] = Field(default_factory=list)
    destination_subnets: list[str] = Field(default_factory=list)
    port: UInt32 | None = None
    source_labels: dict[str, str] = Field(default_factory=dict)
    gateways: list[str] = Field(default_factory=list)
    source_namespace: str = ""


class TlsRoute(Model):
    """Conditions, one set of which must hold, and where the TLS connections go."""

    match: list[TlsMatch] = Field(default_factory=list)
    route: list[ConnectionShare] = Field(default_factory=list)


class VirtualServiceSpec(Model):
    """Routes of hosts."""

    hosts: list[Host] = Field(default_factory=list)
    """None: others delegate to it."""
    gateways: list[str] = Field(default_factory=list)
    http: list[HttpRoute] = Field(default_factory=list)
    tls: list[TlsRoute] = Field(default_factory=list)
    tcp: list[TcpRoute] = Field(default_factory=list)
    export_to: list[ExportTo] = Field(default_factory=list)

    @property
    def in_mesh(self) -> bool:
        """Whether it is for clients with sidecars, rather than for gateways alone."""
        return not self.gateways or MESH in self.gateways


class VirtualService(Resource):
    """Routes the requests of hosts."""

    group: ClassVar[str] = ISTIO_GROUP
    versions: ClassVar[tuple[str, ...]] = ISTIO_VERSIONS

    api_version: IstioVersion = "networking.istio.io/v1"
    kind: Literal["VirtualService"] = "VirtualService"
    spec: VirtualServiceSpec


def _shares(shares: list[Share] | list[ConnectionShare]) -> Iterator[Problem]:
    if len(shares) > 1 and not any(share.weight for share in shares):
        yield Problem("route", "bad-weights", "has no weight above 0", "give each its share")
