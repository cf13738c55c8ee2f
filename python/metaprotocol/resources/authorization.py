"""Who may send which requests: Istio's AuthorizationPolicy, and Aeraki's for Dubbo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metaprotocol.resources.base import Checked, Model, Problem, Resource
from metaprotocol.resources.types import IpRange, NotNull

__all__ = [
    "AuthorizationCondition",
    "AuthorizationOperation",
    "AuthorizationPolicy",
    "AuthorizationRule",
    "AuthorizationSource",
    "DubboAuthorizationPolicy",
    "DubboOperation",
    "PolicyTarget",
]

_MAX_VALUE = 1024
_MAX_VALUES = 1024
_MAX_RULES = 512
_MAX_LABELS = 64
_MAX_TARGETS = 64

Value = Annotated[str, Field(min_length=1, max_length=_MAX_VALUE)]
Values = Annotated[list[Value], Field(max_length=_MAX_VALUES)]
Ranges = Annotated[list[IpRange], Field(max_length=_MAX_VALUES)]
Labels = Annotated[dict[str, str], Field(max_length=_MAX_LABELS)]


class _NoEmptyLists(Checked):
    """A part whose lists, where they are written, say something: would one with nothing in it be
    for everything, or for nothing?"""

    def problems(self) -> Iterator[Problem]:
        """Lists with nothing in them."""
        for name, info in type(self).model_fields.items():
            if name in self.model_fields_set and getattr(self, name) in ([], None):
                yield Problem(info.alias or name, "empty", "has no entry", "take it away")


class _NotEmpty(_NoEmptyLists):
    """A part that says something."""

    def problems(self) -> Iterator[Problem]:
        """Nothing in it."""
        found = list(super().problems())
        yield from found
        if not found and not any(getattr(self, name) for name in type(self).model_fields):
            yield Problem("", "empty", "says nothing", "take it away, or say for what it is")


class DubboSource(_NotEmpty):
    """Who sends a request. All fields that are given must hold; of each, one of the values. Names
    are exact, `abc*`, `*abc`, or `*` for any. Without TLS nobody has an identity."""

    principals: Values = Field(default_factory=list)
    """Identities, as in `cluster.local/ns/shop/sa/web`."""
    not_principals: Values = Field(default_factory=list)
    """None of these."""
    namespaces: Values = Field(default_factory=list)
    """Namespaces, as identities have them."""
    not_namespaces: Values = Field(default_factory=list)
    """None of these."""


class AuthorizationSource(DubboSource):
    """Who sends a request. All fields that are given must hold; of each, one of the values. Names
    are exact, `abc*`, `*abc`, or `*` for any. Without TLS nobody has an identity."""

    service_accounts: Values = Field(default_factory=list)
    """Service accounts, as `name` or `namespace/name`."""
    not_service_accounts: Values = Field(default_factory=list)
    """None of these."""
    ip_blocks: Ranges = Field(default_factory=list)
    """Addresses that connections come from: `10.0.0.0/8`, `10.0.0.7`."""
    not_ip_blocks: Ranges = Field(default_factory=list)
    """None of these."""
    remote_ip_blocks: Ranges = Field(default_factory=list)
    """As `ipBlocks`: our protocols do not say for whom a proxy has sent a request."""
    not_remote_ip_blocks: Ranges = Field(default_factory=list)
    """None of these."""
    request_principals: Values = Field(default_factory=list)
    """Of tokens, which our protocols do not have."""
    not_request_principals: Values = Field(default_factory=list)
    """Likewise."""


class DubboOperation(_NotEmpty):
    """What is asked for. All fields that are given must hold; of each, one of the values."""

    interfaces: Values = Field(default_factory=list)
    """Dubbo's interfaces."""
    not_interfaces: Values = Field(default_factory=list)
    """None of these."""
    methods: Values = Field(default_factory=list)
    """Methods of them."""
    not_methods: Values = Field(default_factory=list)
    """None of these."""


class AuthorizationOperation(_NotEmpty):
    """What is asked for. All fields that are given must hold; of each, one of the values."""

    methods: Values = Field(default_factory=list)
    """Methods, as the protocol names them."""
    not_methods: Values = Field(default_factory=list)
    """None of these."""
    ports: Values = Field(default_factory=list)
    """Ports of the service."""
    not_ports: Values = Field(default_factory=list)
    """None of these."""
    hosts: Values = Field(default_factory=list)
    """HTTP's; no request of ours has one."""
    not_hosts: Values = Field(default_factory=list)
    """Likewise."""
    paths: Values = Field(default_factory=list)
    """HTTP's; no request of ours has one."""
    not_paths: Values = Field(default_factory=list)
    """Likewise."""


class AuthorizationCondition(_NoEmptyLists):
    """A condition on something else."""

    key: Value
    """`request.headers[name]` for metadata of the request, such as an attachment; `source.ip`,
    `source.namespace`, `source.principal`, `source.serviceAccount`, `destination.port`,
    `connection.sni`."""
    values: Values = Field(default_factory=list)
    """One of these."""
    not_values: Values = Field(default_factory=list)
    """None of these."""

    def problems(self) -> Iterator[Problem]:
        """No value to compare with."""
        found = list(super().problems())
        yield from found
        if not found and not self.values and not self.not_values:
            yield Problem("values", "empty", "needs values, or notValues")


class FromDubbo(Model):
    """One of the senders."""

    source: DubboSource
    """Who."""


class ToDubbo(Model):
    """One of the things asked for."""

    operation: DubboOperation
    """What."""


class From(Model):
    """One of the senders."""

    source: AuthorizationSource
    """Who."""


class To(Model):
    """One of the things asked for."""

    operation: AuthorizationOperation
    """What."""


class DubboRule(_NoEmptyLists):
    """Requests of one of the senders for one of the operations."""

    from_: Annotated[list[FromDubbo], Field(max_length=_MAX_RULES)] | None = Field(
        default=None, alias="from"
    )
    """Who sends them; without it anybody."""
    to: Annotated[list[ToDubbo], Field(max_length=_MAX_RULES)] | None = None
    """What they ask for; without it anything."""


class AuthorizationRule(_NoEmptyLists):
    """Requests of one of the senders for one of the operations, if all conditions hold."""

    from_: Annotated[list[From], Field(max_length=_MAX_RULES)] | None = Field(
        default=None, alias="from"
    )
    """Who sends them; without it anybody."""
    to: Annotated[list[To], Field(max_length=_MAX_RULES)] | None = None
    """What they ask for; without it anything."""
    when: Annotated[list[AuthorizationCondition], Field(max_length=_MAX_RULES)] | None = None
    """What must hold besides."""


class DubboAuthorizationSpec(Model):
    """What becomes of the requests that meet one of the rules."""

    action: Literal["ALLOW", "DENY"] = "ALLOW"
    """With DENY they are denied; with ALLOW all others are. Denials come first."""
    rules: Annotated[list[DubboRule], Field(max_length=_MAX_RULES)] = Field(default_factory=list)
    """Without rules no request meets the policy."""


class DubboAuthorizationPolicy(Resource):
    """Who may send which requests to the Dubbo services of a namespace."""

    group: ClassVar[str] = "dubbo.aeraki.io"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: Literal["dubbo.aeraki.io/v1alpha1"] = "dubbo.aeraki.io/v1alpha1"
    kind: Literal["DubboAuthorizationPolicy"] = "DubboAuthorizationPolicy"
    spec: DubboAuthorizationSpec = Field(default_factory=DubboAuthorizationSpec)


class WorkloadLabels(Model):
    """Which pods."""

    match_labels: Labels = Field(default_factory=dict)
    """Labels that they have; none: all of the namespace."""


class PolicyTarget(Model):
    """What a policy is attached to, by its name."""

    group: str = ""
    """Of its kind."""
    kind: Literal["Service", "ServiceEntry", "Gateway", "GatewayClass"]
    """A service of ours, or a gateway, which is not configured."""
    name: Value
    """Its name."""
    namespace: str = ""
    """That of the policy."""


class PolicyProvider(Model):
    """One of the `extensionProviders` of the mesh's configuration."""

    name: Value
    """Its name there."""


class AuthorizationSpec(Checked):
    """What becomes of the requests that meet one of the rules."""

    selector: Annotated[WorkloadLabels | None, NotNull] = None
    """The pods it is for; without it all of the namespace, or of the mesh in the root namespace."""
    target_ref: Annotated[PolicyTarget | None, NotNull] = None
    """The one service, or the gateway, that it is for."""
    target_refs: Annotated[list[PolicyTarget], Field(max_length=_MAX_TARGETS)] | None = None
    """Several of them."""
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    """With CUSTOM a service is asked about them, with DENY they are denied, with ALLOW all others
    are, in this order; with AUDIT they are counted."""
    provider: PolicyProvider | None = None
    """Who is asked with CUSTOM."""
    rules: Annotated[list[AuthorizationRule], Field(max_length=_MAX_RULES)] = Field(
        default_factory=list
    )
    """Without rules no request meets the policy."""

    def problems(self) -> Iterator[Problem]:
        """Who is asked, if somebody is, and what it is for."""
        if self.target_refs == []:
            yield Problem("targetRefs", "empty", "has no entry", "take it away")
        if self.action == "CUSTOM" and self.provider is None:
            message = "is missing: action CUSTOM asks somebody"
            yield Problem("provider", "missing-field", message, "write provider: {name: ...}")
        if self.action != "CUSTOM" and self.provider is not None:
            message = f"is asked nothing with action {self.action}"
            yield Problem("provider", "provider", message, "remove it, or write action: CUSTOM")


class AuthorizationPolicy(Resource):
    """Who may send which requests to the services of a namespace."""

    group: ClassVar[str] = "security.istio.io"
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: Literal["security.istio.io/v1", "security.istio.io/v1beta1"] = (
        "security.istio.io/v1"
    )
    kind: Literal["AuthorizationPolicy"] = "AuthorizationPolicy"
    spec: AuthorizationSpec = Field(default_factory=AuthorizationSpec)
