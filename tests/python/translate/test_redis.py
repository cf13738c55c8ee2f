"""RedisService and RedisDestination: who decides, what is told, and what stays shut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.api.explain_redis import RedisSnapshot, explain_redis
from metaprotocol.diagnostics import Severity
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Translator
from metaprotocol.translate.istio import istio_objects
from metaprotocol.translate.naming import CLUSTER, FILTER, LISTENER
from metaprotocol.translate.secret_files import SecretFiles

from tests.python.translate.support import Translated, envoy_types, read, read_broken, rule

CACHE, OTHER = "cache.shop.svc.cluster.local", "other.shop.svc.cluster.local"
WRITTEN = Options(secrets=SecretFiles(Path("/run/secrets"), b"key"))


def entry(host: str = CACHE, port: str = "{number: 6379, name: tcp-redis, protocol: TCP}") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host.partition(".")[0]}, namespace: shop}}
spec:
  hosts: [{host}]
  ports: [{port}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.1}}]
---
"""


def redis(kind: str, spec: str, name: str = "cache", namespace: str = "shop") -> str:
    return f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
---
"""


def secret(**values: str) -> str:
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: shop}"
    return f"{head}\nstringData: {json.dumps(values)}\n---\n"


def made(text: str, options: Options = WRITTEN, *, broken: bool = False) -> Translated:
    translator = Translator(envoy_types(), options)
    resources = (read_broken if broken else read)(text)
    return Translated(translator, translator.update(Inventory.of(resources), None))


def proxy(found: Translated, host: str = CACHE) -> dict[str, Any]:
    """The RedisProxy in a listener."""
    listener = found.message(LISTENER, f"{host}|6379")
    config: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def is_shut(found: Translated) -> bool:
    routes = proxy(found)["prefix_routes"]
    cluster = routes.get("catch_all_route", {}).get("cluster")
    return list(routes) == ["catch_all_route"] and cluster not in found.names(CLUSTER)


AUTH = f"{{host: [{CACHE}], settings: {{auth: {{secret: {{name: a}}}}}}}}"


def test_a_port_is_redis_by_its_name_and_all_commands_go_to_the_service() -> None:
    found = made(entry())
    assert found.codes == []
    assert proxy(found)["prefix_routes"] == {
        "catch_all_route": {"cluster": f"outbound|6379||{CACHE}"}
    }
    assert found.names(FILTER) == []  # not by ECDS, with which Envoy crashes
    cluster = found.cluster(f"outbound|6379||{CACHE}")
    assert cluster["lb_policy"] == "MAGLEV"
    assert "load_balancing_policy" not in cluster


@pytest.mark.parametrize("name", ["tcp-redis-2", "redis", "TCP-REDIS", "tcp"])
def test_names_of_redis_ports(name: str) -> None:
    app_protocol = ", appProtocol: redis" if name == "tcp" else ""
    found = made(entry(port=f"{{number: 6379, name: {name}{app_protocol}}}"))
    assert found.names(LISTENER) == [f"{CACHE}|6379"]


def test_one_object_decides_the_oldest_of_the_services_own_namespace() -> None:
    spec = f"{{host: [{CACHE}], settings: {{opTimeout: %s}}}}"
    text = entry() + redis("RedisService", spec % "7s", "a")
    text += redis("RedisService", spec % "8s", "b") + redis(
        "RedisService", spec % "9s", "first", "far"
    )
    found = made(text)
    assert proxy(found)["settings"]["op_timeout"] == "7s"
    assert [item.object for item in found.said("redis-conflict")] == ["RedisService shop/b"]
    assert [item.object for item in found.said("other-namespace")] == ["RedisService far/first"]


def test_what_is_for_no_redis_port_is_told() -> None:
    thrift = entry(port="{number: 9090, name: tcp-metaprotocol-thrift, protocol: TCP}")
    for kind, host in (("RedisService", f"[{CACHE}]"), ("RedisDestination", CACHE)):
        spec = f"{{host: {host}}}"
        assert made(thrift + redis(kind, spec)).codes == ["no-redis-port"]
        assert made(redis(kind, spec)).codes == ["no-host"]
    spec = f"{{host: [{CACHE}], redis: [{{route: {{host: {OTHER}, port: 7}}}}]}}"
    found = made(entry() + entry(OTHER) + redis("RedisService", spec))
    (told,) = found.said("no-redis-port")
    assert (told.field, told.value) == ("spec.redis[0].route.port", "7")
    assert found.names(CLUSTER) == [f"outbound|6379||{host}" for host in (CACHE, OTHER)]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (None, "no-secret"),
        ({"user": "a"}, "no-secret-value"),
        ({"password": " \n"}, "no-secret-value"),
    ],
)
def test_without_its_password_a_port_is_shut(values: dict[str, str] | None, code: str) -> None:
    text = secret(**values) if values is not None else ""
    found = made(entry() + redis("RedisService", AUTH) + text)
    assert is_shut(found)
    assert found.codes == [code]
    upstream = "{connectionPool: {redis: {auth: {secret: {name: a}}}}}"
    spec = f"{{host: {CACHE}, trafficPolicy: {upstream}}}"
    found = made(entry() + redis("RedisDestination", spec) + text)
    assert (found.names(CLUSTER), found.codes) == ([], [code])


def test_a_secret_gives_password_or_token_and_a_new_value_is_another_file() -> None:
    text = entry() + redis("RedisService", AUTH)
    files = set()
    for values in ({"token": "t"}, {"token": "t", "password": "p"}, {"password": "q "}):
        found = made(text + secret(**values))
        (name,) = (source["filename"] for source in proxy(found)["downstream_auth_passwords"])
        wanted = (values.get("password") or values["token"]).strip().encode()
        assert dict(found.update.secrets) == {name: wanted}
        files.add(name)
    assert len(files) == 3
    # The same again is the same file; who has another key cannot tell which.
    found = made(text + secret(token="t"))
    assert set(found.update.secrets) < files
    other = made(text + secret(token="t"), Options(secrets=SecretFiles(Path("/run/secrets"), b"b")))
    assert not set(other.update.secrets) & files


def test_where_secrets_are_mounted_they_are_named_and_nothing_else_is_possible() -> None:
    mounted = Options()
    found = made(entry() + redis("RedisService", AUTH), mounted)
    name = "/etc/metaprotocol/secrets/shop/a/password"
    assert proxy(found)["downstream_auth_passwords"] == [{"filename": name}]
    assert (found.codes, dict(found.update.secrets)) == ([], {})
    found = made(entry() + redis("RedisService", AUTH.replace("secret: {name: a}", PLAIN)), mounted)
    assert is_shut(found)
    assert found.codes == ["plain-password"]
    # For one Envoy alone, somebody puts the file there.
    alone = replace(mounted, secrets=SecretFiles(alone=True))
    found = made(entry() + redis("RedisService", AUTH.replace("secret: {name: a}", PLAIN)), alone)
    assert found.codes == []
    assert made(entry() + redis("RedisService", AUTH), alone).codes == ["no-secret"]


PLAIN = "plain: {password: p}"


def test_what_cannot_be_read_shuts_what_it_may_be_for() -> None:
    broken = redis("RedisService", f"{{host: [{CACHE}], setings: {{}}}}")
    found = made(entry() + entry(OTHER) + broken, broken=True)
    assert is_shut(found)
    assert found.codes.count("fail-closed") == 1
    assert proxy(found, OTHER)["prefix_routes"] == {
        "catch_all_route": {"cluster": f"outbound|6379||{OTHER}"}
    }
    broken = redis("RedisDestination", f"{{host: {CACHE}, trafficPolicy: 7}}")
    found = made(entry() + entry(OTHER) + broken, broken=True)
    assert found.names(CLUSTER) == [f"outbound|6379||{OTHER}"]
    assert found.codes.count("fail-closed") == 1


@pytest.mark.parametrize("auth", ["", "{secret: }", "{plain: }", "{secret: , plain: }"])
def test_a_password_that_is_null_is_not_no_password(auth: str) -> None:
    broken = redis("RedisService", f"{{host: [{CACHE}], settings: {{auth: {auth}}}}}")
    assert is_shut(made(entry() + broken, broken=True))
    pool = f"connectionPool: {{redis: {{auth: {auth}}}}}"
    broken = redis("RedisDestination", f"{{host: {CACHE}, trafficPolicy: {{{pool}}}}}")
    assert made(entry() + broken, broken=True).names(CLUSTER) == []


def test_what_envoy_does_not_do_for_redis_is_told() -> None:
    spec = f"""{{host: {CACHE}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7,
      connectTimeout: 3s}}}}}}}}"""
    found = made(entry() + redis("RedisDestination", spec))
    (told,) = found.said("no-effect")
    assert told.field == "spec.trafficPolicy.connectionPool.tcp.maxConnections"
    assert found.cluster(f"outbound|6379||{CACHE}")["connect_timeout"] == "3s"
    fault = f"{{host: [{CACHE}], faults: [{{type: ERROR, percentage: {{value: 0.5}}}}]}}"
    found = made(entry() + redis("RedisService", fault))
    (told,) = found.said("out-of-bounds")
    assert "1 is used" in told.message
    whole = {"numerator": 10000, "denominator": "MILLION"}
    assert proxy(found)["faults"][0]["fault_enabled"] == {"default_value": whole}


def test_a_changed_secret_changes_what_names_it_and_nothing_else() -> None:
    text = entry() + entry(OTHER) + redis("RedisService", AUTH)
    translator = Translator(envoy_types(), WRITTEN)
    before = Inventory.of(read(text + secret(password="p")))
    first = translator.update(before, None)
    after = Inventory.of(read(text + secret(password="q")))
    second = translator.update(after, after.changes_since(before))
    assert list(second.changed_since(first)) == [LISTENER]
    assert list(second.changed_since(first)[LISTENER]) == [f"{CACHE}|6379"]
    again = Translator(envoy_types(), WRITTEN).update(after, None)
    assert again.resources == second.resources
    assert again.secrets == second.secrets


def test_a_command_is_explained() -> None:
    spec = f"""
  host: [{CACHE}]
  settings: {{caseInsensitive: true, auth: {{{PLAIN}}}}}
  redis:
  - {{match: {{key: {{prefix: "S:"}}}}, route: {{host: {OTHER}}}}}
  - match: {{key: {{prefix: "s:admin:", removePrefix: true}}}}
    route: {{host: {CACHE}}}
    mirror: [{{route: {{host: {OTHER}}}, percentage: {{value: 12.5}}, excludeReadCommands: true}}]
  faults: [{{type: ERROR, commands: [SET], percentage: {{value: 5}}}}]"""
    found = made(entry() + entry(OTHER) + redis("RedisService", spec))
    snapshot = RedisSnapshot(f"{CACHE}|6379", proxy(found))
    written = explain_redis(snapshot, "SET", "s:Admin:7")
    assert written.route == 'prefix "s:admin:"'
    assert written.sent_key == "7"
    assert written.mirrors == ((f"outbound|6379||{OTHER}", 12.5),)
    assert written.faults == ("5 % of them: gets an error",)
    assert written.needs_login
    read_only = explain_redis(snapshot, "get", "s:admin:7")
    assert (read_only.mirrors, read_only.faults) == ((), ())
    shorter = explain_redis(snapshot, "GET", "s:7")
    assert shorter.destinations == ((f"outbound|6379||{OTHER}", 100.0),)
    assert shorter.passed == ("s:admin:",)
    assert explain_redis(snapshot, "GET", "t:7").route is None


def test_in_a_mesh_a_redis_cluster_without_tls_of_its_own_is_told_of() -> None:
    spec = f"{{host: {CACHE}, trafficPolicy: {{connectionPool: {{redis: {{mode: CLUSTER}}}}}}}}"
    text = entry() + redis("RedisDestination", spec)
    made_for_istio = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    (told,) = (item for item in made_for_istio.diagnostics if item.severity is Severity.WARNING)
    assert (told.code, told.object) == ("no-mutual-tls", "RedisDestination shop/cache")
    assert made(text).codes == []
    (cluster,) = (
        patch["patch"]["value"]
        for item in made_for_istio.objects
        for patch in item["spec"]["configPatches"]
        if (patch["applyTo"], patch["patch"]["operation"]) == ("CLUSTER", "ADD")
    )
    # Pods come and go: they are asked for by the service's name.
    (locality,) = cluster["load_assignment"]["endpoints"]
    (found,) = locality["lb_endpoints"]
    assert found["endpoint"]["address"]["socket_address"]["address"] == CACHE
    assert "transport_socket" not in cluster


def test_in_a_mesh_a_redis_cluster_has_the_certificates_of_the_sidecars_agent() -> None:
    spec = f"{{host: {CACHE}, trafficPolicy: {{connectionPool: {{redis: {{mode: CLUSTER}}}}}}}}"
    tls = "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://a/ns/b/sa/c']}}"
    text = entry() + redis("RedisDestination", spec) + rule(tls, name="cache", host=CACHE)
    made_for_istio = istio_objects(Inventory.of(read(text)), Options(), envoy_types())
    assert [it for it in made_for_istio.diagnostics if it.severity is not Severity.INFO] == []
    written = json.dumps(made_for_istio.objects)
    assert '"sds-grpc"' in written
    assert "spiffe://a/ns/b/sa/c" in written
    assert f'"sni": "outbound_.6379_._.{CACHE}"' in written
    assert made(text).codes == ["tls-istio-mutual"], "outside Istio there are no such certificates"
