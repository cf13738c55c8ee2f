"""AuthorizationPolicies whose action is CUSTOM: which service is asked about their requests.

The services are named in the mesh's configuration, as Istio's ``extensionProviders``. One that
cannot be asked has said no: what meets its policies is denied.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from metaprotocol.config.v1 import ExternalAuthorization
from metaprotocol.diagnostics import did_you_mean
from metaprotocol.resources.config_map import MESH_CONFIG, ConfigMap, GrpcAuthorizer
from metaprotocol.translate.authorization import MadePolicy
from metaprotocol.translate.plan import Place
from metaprotocol.translate.protocols import CodecInfo
from metaprotocol.translate.reporting import Report
from metaprotocol.translate.routes import Known, Table, asked_cluster

_FIELD = "spec.provider.name"
_LONGEST = timedelta(seconds=60)
"""The engine's bounds."""
_MOST_BODY = 65536
_MOST_RULES = 10_000
_MOST_KEYS = 64

_CONNECTION = "connection."

TOLD_ANNOTATION = "metaprotocol.aeraki.io/check-metadata"
"""Of a policy: metadata keys, besides those of its rules, that the service is told of."""


def ask(
    policies: Sequence[MadePolicy],
    mesh: ConfigMap | None,
    codec: CodecInfo,
    known: Known,
    table: Table,
    report: Report,
) -> tuple[MadePolicy, ...]:
    """Has a table ask about the requests that meet those of the policies that want it; these. None
    if nobody can be asked, which is reported."""
    asking = tuple(policy for policy in policies if policy.provider)
    provider = _chosen(asking, mesh, report) if asking else None
    if provider is None:
        return ()
    cluster = asked_cluster(
        f"outbound|{provider.port}||{provider.host}", Place(asking[0].owner, _FIELD),
        "an authorization service", known, table, report,
    )  # fmt: skip
    check = _check(provider, asking, cluster, codec, report)
    if check is not None:
        table.message.custom_authorization.CopyFrom(check)
    return asking


def _chosen(
    asking: Sequence[MadePolicy], mesh: ConfigMap | None, report: Report
) -> GrpcAuthorizer | None:
    """Who is asked; None: nobody can be."""
    name = asking[0].provider
    others = [policy for policy in asking if policy.provider != name]
    for policy in others:
        # As in Istio.
        report.error(
            policy.owner, "several-providers", _FIELD,
            f"{asking[0].owner.key} has another one asked about the same service; "
            "both deny what meets them",
            value=policy.provider, fix="one service is asked about all of a service's requests",
        )  # fmt: skip
    if others:
        return None
    if sum(len(policy.rules) for policy in asking) > _MOST_RULES:
        report.error(
            asking[0].owner, "too-many-rules", "spec.rules",
            f"all that ask {name} have more than {_MOST_RULES} together; they deny what meets them",
        )  # fmt: skip
        return None
    known = mesh.providers if mesh is not None else {}
    provider = known.get(name)
    if provider is not None and provider.envoy_ext_authz_grpc is not None:
        return provider.envoy_ext_authz_grpc
    if provider is not None and provider.envoy_ext_authz_http is not None:
        why = "is asked by HTTP, which says nothing of these requests"
        fix = "a provider with envoyExtAuthzGrpc can be asked"
    elif name in known:
        why = f"is no envoyExtAuthzGrpc of ConfigMap {MESH_CONFIG} with service and port"
        fix = "give it both, once"
    else:
        why = f"is not among the extensionProviders of ConfigMap {MESH_CONFIG}"
        meant = did_you_mean(name, [key for key, value in known.items() if value is not None])
        has = ", ".join(sorted(known)) or "none"
        fix = f'did you mean "{meant}"?' if meant else f"it has {has}"
    for policy in asking:
        report.error(
            policy.owner, "no-provider", _FIELD, f"{why}; what meets the policy is denied",
            value=name, fix=fix,
        )  # fmt: skip
    return None


def _check(
    provider: GrpcAuthorizer,
    asking: Sequence[MadePolicy],
    cluster: str,
    codec: CodecInfo,
    report: Report,
) -> ExternalAuthorization | None:
    """What the engine is to ask the service in that cluster; None: of no request."""
    rules = [rule for policy in asking for rule in policy.message.rules]
    if not rules:
        return None
    check = ExternalAuthorization(
        cluster=cluster, failure_mode_allow=provider.fail_open, any_of=rules
    )
    check.metadata.extend(_told(asking, codec, report))
    check.timeout.FromTimedelta(max(min(provider.wait, _LONGEST), timedelta(milliseconds=1)))
    body = provider.include_request_body_in_check
    if body is not None:
        check.max_body_bytes = min(body.max_request_bytes, _MOST_BODY)
        if body.max_request_bytes > _MOST_BODY:
            report.warning(
                asking[0].owner, "out-of-bounds", _FIELD,
                f"maxRequestBytes of the provider is more than {_MOST_BODY}, which are sent",
                value=asking[0].provider,
            )  # fmt: skip
    return check


def _told(asking: Sequence[MadePolicy], codec: CodecInfo, report: Report) -> list[str]:
    """The metadata keys that the service is told of: all of the protocol's own, those of the rules,
    and those that the policies' annotation names. None, if it is no more than the first."""
    own = list(codec.metadata_keys)
    more = {
        condition.key: None
        for policy in asking
        for rule in policy.message.rules
        for condition in rule.match
        if not condition.key.startswith(_CONNECTION)
    }
    for policy in asking:
        written = policy.owner.metadata.annotations.get(TOLD_ANNOTATION, "")
        more |= {item.strip(): None for item in written.split(",") if item.strip()}
    others = [key for key in more if key not in own]
    room = _MOST_KEYS - len(own)
    for key in others[room:]:
        report.warning(
            asking[0].owner, "out-of-bounds", "spec.rules",
            f"more than {_MOST_KEYS} metadata keys; {asking[0].provider} is not told of this one",
            value=key,
        )  # fmt: skip
    return [*own, *others[:room]] if others else []
