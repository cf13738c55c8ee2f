"""RedisService and RedisDestination on real traffic: real Redis servers behind a real Envoy."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import metaprotocol
import pytest
from metaprotocol.resources.loader import load_text

from tests.testkit.certificates import Authority
from tests.testkit.mesh import save
from tests.testkit.redis_servers import (
    RedisServer,
    client_of,
    redis_program,
    running_cluster,
    running_redis,
)

redis = pytest.importorskip("redis")

CACHE = "cache.shop.svc.cluster.local"
SESSIONS = "sessions.shop.svc.cluster.local"
AUDIT = "audit.shop.svc.cluster.local"
PASSWORD = "a-password-that-nobody-sees"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = redis_program(tmp_path_factory.mktemp("redis"))
    if found is None:
        pytest.skip("there is no Redis server: tools/system_packages.sh peers")
    return found


@pytest.fixture(scope="module")
def servers(program: str) -> Iterator[dict[str, RedisServer]]:
    with ExitStack() as stack:
        yield {
            host: stack.enter_context(running_redis(program)) for host in (CACHE, SESSIONS, AUDIT)
        }


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    if "servers" in request.fixturenames:
        for server in request.getfixturevalue("servers").values():
            server.client.flushall()
            server.client.config_resetstat()


def entry(host: str, *ports: int, extra: str = "") -> str:
    endpoints = ", ".join(f"{{address: 127.0.0.1, ports: {{tcp-redis: {port}}}}}" for port in ports)
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host.partition(".")[0]}, namespace: shop}}
spec:
  hosts: [{host}]
  ports: [{{number: 6379, name: tcp-redis, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{endpoints}]
{extra}
---"""


def entries(servers: dict[str, RedisServer]) -> str:
    return "".join(entry(host, server.port) for host, server in servers.items())


def service(spec: str) -> str:
    return f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisService
metadata: {{name: cache, namespace: shop}}
spec:
  host: [{CACHE}]
{spec}
---"""


def destination(redis_spec: str) -> str:
    return f"""
apiVersion: redis.aeraki.io/v1alpha1
kind: RedisDestination
metadata: {{name: cache, namespace: shop}}
spec:
  host: {CACHE}
  trafficPolicy: {{connectionPool: {{redis: {redis_spec}}}}}
---"""


def secret(name: str, **values: str) -> str:
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: shop}}
stringData: {json.dumps(values)}
---"""


@contextmanager
def running(folder: Path, text: str, *, strict: bool = True) -> Iterator[metaprotocol.Proxy]:
    folder.mkdir(exist_ok=True)
    save(folder / "mesh.yaml", text)
    with metaprotocol.Proxy(folder, strict=strict) as proxy:
        yield proxy


def client(proxy: metaprotocol.Proxy, password: str = "", host: str = CACHE) -> Any:
    return client_of(proxy.port(host, 6379), password)


def until(holds: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def answer(proxy: metaprotocol.Proxy, password: str = "") -> str:
    """What a new client gets for a GET: its reply or its error."""
    try:
        return str(client(proxy, password).get("key"))
    except redis.RedisError as error:
        return f"{type(error).__name__}: {error}"


ROUTES = f"""
  redis:
  - match: {{key: {{prefix: "s:", removePrefix: true}}}}
    route: {{host: {SESSIONS}, port: 6379}}
  - match: {{key: {{prefix: "s:audit:"}}}}
    route: {{host: audit}}
  - route: {{host: {CACHE}}}
    mirror:
    - {{route: {{host: {AUDIT}}}, excludeReadCommands: true}}
"""


def test_the_longest_prefix_takes_a_key_and_what_no_prefix_fits_goes_to_the_last_route(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    with running(tmp_path / "mesh", entries(servers) + service(ROUTES)) as proxy:
        one = client(proxy)
        assert one.set("s:7", "session")
        assert one.set("s:audit:7", "audited")
        assert one.set("user:7", "cached")
        assert one.get("user:7") == "cached"
        assert (one.get("s:7"), one.get("s:audit:7")) == ("session", "audited")
        # Several keys of one command go each its way.
        assert one.mget(["s:7", "user:7"]) == ["session", "cached"]
        until(lambda: servers[AUDIT].calls("set") == 2, "the copy does not come")
    assert servers[SESSIONS].data() == {"7": "session"}
    assert servers[CACHE].data() == {"user:7": "cached"}
    assert servers[AUDIT].data() == {"s:audit:7": "audited", "user:7": "cached"}
    assert servers[AUDIT].calls("get") == 2 + 1  # data() and the route, no copy of a read


def test_a_changed_route_is_for_new_clients_and_closes_no_connection(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    with running(folder, entries(servers)) as proxy:
        before = client(proxy)
        before.set("key", "old")
        route = service(f"  redis: [{{route: {{host: {SESSIONS}}}}}]")
        save(folder / "mesh.yaml", entries(servers) + route)
        until(lambda: answer(proxy) == "None", "the new route is not used")
        assert before.get("key") == "old"
        assert servers[SESSIONS].calls("get") >= 1


def test_keys_are_spread_over_the_servers_and_stay_where_they_are(
    program: str, tmp_path: Path
) -> None:
    with (
        running_redis(program) as one,
        running_redis(program) as two,
        running(
            tmp_path / "mesh",
            entry(CACHE, one.port, two.port) + service("  settings: {enableHashtagging: true}\n"),
        ) as proxy,
    ):
        through = client(proxy)
        for number in range(100):
            through.set(f"key-{number}", number)
            through.set(f"{{user}}.{number}", number)
        assert [through.get(f"key-{number}") for number in range(100)] == list(map(str, range(100)))
        spread = [len(server.client.keys("key-*")) for server in (one, two)]
        assert sum(spread) == 100
        assert min(spread) > 10
        tagged = [len(server.client.keys("{user}.*")) for server in (one, two)]
        assert sorted(tagged) == [0, 100]


def test_passwords_of_both_sides_are_said_and_seen_nowhere(program: str, tmp_path: Path) -> None:
    front, back = f"front-{PASSWORD}", f"back-{PASSWORD}"
    text = (
        secret("front", password=front)
        + secret("back", token=f"{back}\n")
        + service("  settings: {auth: {secret: {name: front}}}\n")
        + destination("{auth: {secret: {name: back}}}")
    )
    with running_redis(program, password=back) as server:
        text += entry(CACHE, server.port)
        with running(tmp_path / "mesh", text) as proxy:
            assert client(proxy, front).set("key", "value")
            assert answer(proxy, front) == "value"
            assert answer(proxy).startswith("AuthenticationError")
            assert answer(proxy, "wrong").startswith("AuthenticationError")
            assert answer(proxy, back).startswith("AuthenticationError")
            admin = f"http://127.0.0.1:{proxy.envoy.admin_port}"
            seen = urllib.request.urlopen(f"{admin}/config_dump?include_eds").read().decode()
            seen += proxy.envoy.log() + repr(proxy.status) + repr(proxy.diagnostics)
            assert "redis_proxy" in seen
            assert PASSWORD not in seen
    mesh = metaprotocol.load(tmp_path / "mesh")
    assert PASSWORD not in mesh.envoy().to_yaml()
    assert PASSWORD not in repr(mesh.resources)


def test_a_user_and_a_password_in_clear_text_are_taken_and_seen_nowhere(
    program: str, tmp_path: Path
) -> None:
    acl = f"user app on >{PASSWORD} ~* +@all"
    plain = f"{{auth: {{plain: {{username: app, password: {PASSWORD}}}}}}}"
    text = destination(plain) + service(f"  settings: {plain}\n")
    with running_redis(program, arguments=["--user", *acl.split()[1:]]) as server:
        server.client.execute_command("ACL", "SETUSER", "default", "off")
        with running(tmp_path / "mesh", entry(CACHE, server.port) + text) as proxy:
            port = proxy.port(CACHE, 6379)
            assert client_of(port, PASSWORD, username="app").set("key", "value")
            with pytest.raises(redis.AuthenticationError):
                client_of(port, PASSWORD, username="other").get("key")
            url = f"http://127.0.0.1:{proxy.envoy.admin_port}/config_dump?include_eds"
            assert PASSWORD not in urllib.request.urlopen(url).read().decode()


def test_a_new_password_of_a_secret_is_in_force_at_once(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    auth = service("  settings: {auth: {secret: {name: front}}}\n")
    with running(folder, entries(servers) + auth + secret("front", password="old")) as proxy:
        pid = proxy.envoy.pid
        assert answer(proxy, "old") == "None"
        save(folder / "mesh.yaml", entries(servers) + auth + secret("front", password="new"))
        until(lambda: answer(proxy, "new") == "None", "the new password is not taken")
        assert answer(proxy, "old").startswith("AuthenticationError")
        assert proxy.envoy.pid == pid


def test_without_its_secret_a_service_answers_errors_and_never_without_password(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    auth = service("  settings: {auth: {secret: {name: front}}}\n")
    good = entries(servers) + auth + secret("front", password="front")
    with running(folder, good) as proxy:
        servers[CACHE].client.set("key", "value")
        assert answer(proxy, "front") == "value"
        # What cannot be read leaves in force what was good.
        broken = (
            "\nkind: Secret\nmetadata: {name: front, namespace: shop}\ndata: {password: '%%'}\n"
        )
        save(folder / "mesh.yaml", entries(servers) + auth + f"\napiVersion: v1{broken}")
        until(lambda: any(item.code == "bad-base64" for item in proxy.diagnostics), "not told")
        assert answer(proxy, "front") == "value"
        # Without the Secret nobody can be asked for a password, so nobody is served.
        save(folder / "mesh.yaml", entries(servers) + auth)
        until(lambda: any(item.code == "no-secret" for item in proxy.diagnostics), "not told")
        until(lambda: "no upstream host" in answer(proxy), "it is not shut")
        save(folder / "mesh.yaml", good)
        until(lambda: answer(proxy, "front") == "value", "it is not served again")


def test_a_service_whose_redis_service_cannot_be_read_is_shut(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    broken = service("  settings: {auth: {secret: {nane: front}}}\n")
    with running(tmp_path / "mesh", entries(servers) + broken, strict=False) as proxy:
        assert "no upstream host" in answer(proxy)
        assert client(proxy, host=SESSIONS).get("key") is None  # the others are served
        codes = {item.code for item in proxy.diagnostics}
        assert {"unknown-field", "fail-closed"} <= codes


def test_commands_for_a_service_that_is_not_there_get_an_error_and_the_others_their_reply(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    routes = f"""
  redis:
  - match: {{key: {{prefix: "gone:"}}}}
    route: {{host: gone.shop.svc.cluster.local}}
  - route: {{host: {CACHE}}}
"""
    with running(tmp_path / "mesh", entries(servers) + service(routes), strict=False) as proxy:
        one = client(proxy)
        assert one.set("key", "value")
        with pytest.raises(redis.ResponseError, match="no upstream host"):
            one.get("gone:1")
        assert one.get("key") == "value"
        (told,) = (item for item in proxy.diagnostics if item.code == "no-host")
        assert told.field == "spec.redis[0].route.host"
        assert told.origin is not None


def test_a_redis_cluster_is_asked_for_its_slots_and_replicas_take_what_is_read(
    program: str, tmp_path: Path
) -> None:
    with running_cluster(program, password=PASSWORD) as nodes:
        *masters, replica = nodes
        text = (
            entry(CACHE, masters[0].port)
            + destination(f"{{mode: CLUSTER, auth: {{plain: {{password: {PASSWORD}}}}}}}")
            + service("  settings: {readPolicy: PREFER_REPLICA, enableRedirection: true}\n")
        )
        with running(tmp_path / "mesh", text) as proxy:
            through = client(proxy)
            until(lambda: "no upstream" not in answer(proxy), "the slots are not known")
            for number in range(60):
                assert through.set(f"key-{number}", number)
            spread = [master.client.dbsize() for master in masters]
            assert sum(spread) == 60
            assert min(spread) > 10
            until(lambda: replica.client.dbsize() == spread[0], "nothing is replicated")
            replica.client.config_resetstat()
            masters[0].client.config_resetstat()
            found = [through.get(f"key-{number}") for number in range(60)]
            assert found == list(map(str, range(60)))
            assert (replica.calls("get"), masters[0].calls("get")) == (spread[0], 0)


def test_a_cluster_is_found_by_the_endpoints_that_are_named(program: str, tmp_path: Path) -> None:
    with running_cluster(program, masters=2) as nodes:
        seeds = [f"127.0.0.1:{node.port}" for node in nodes[:2]]
        spec = f"{{mode: CLUSTER, discoveryEndpoints: {json.dumps(seeds)}}}"
        # The service itself has an endpoint that nobody is at.
        with running(tmp_path / "mesh", entry(CACHE, 1) + destination(spec)) as proxy:
            until(lambda: answer(proxy) == "None", "the cluster is not found")
            through = client(proxy)
            assert all(through.set(f"key-{number}", number) for number in range(30))


def test_servers_are_reached_by_tls_as_a_destination_rule_says(
    program: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("redis", dns=(CACHE,))
    tls = (identity.certificate, identity.key, authority.certificate)
    rule = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: cache, namespace: shop}}
spec:
  host: {CACHE}
  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {authority.certificate}, sni: SNI}}}}
---"""
    with running_redis(program, tls=tls, password=PASSWORD) as server:
        text = entry(CACHE, server.port) + destination(
            f"{{auth: {{plain: {{password: {PASSWORD}}}}}}}"
        )
        good = rule.replace("SNI", CACHE + f", subjectAltNames: [{CACHE}]")
        with running(tmp_path / "mesh", text + good) as proxy:
            assert client(proxy).set("key", "value")
            assert answer(proxy) == "value"
        other = rule.replace("SNI", CACHE + ", subjectAltNames: [other.example]")
        with running(tmp_path / "other", text + other) as proxy:
            assert "upstream failure" in answer(proxy)


def test_faults_are_for_their_commands_alone(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    faults = """
  faults:
  - {type: ERROR, percentage: {value: 100}, commands: [GET]}
  - {type: DELAY, delay: 300ms, commands: [INCRBY]}
"""
    with running(tmp_path / "mesh", entries(servers) + service(faults)) as proxy:
        one = client(proxy)
        assert one.set("key", "1")
        with pytest.raises(redis.ResponseError, match="Fault Injected"):
            one.get("key")
        began = time.monotonic()
        assert one.incr("key") == 2
        assert time.monotonic() - began >= 0.2  # its clock is that of the last event
        assert servers[CACHE].calls("get") == 0


def test_a_server_that_does_not_answer_costs_its_own_clients_the_time_that_is_set(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(silent.accept()[0]), daemon=True)
        thread.start()
        at = silent.getsockname()[1]
        text = entry(CACHE, at) + entry(SESSIONS, servers[SESSIONS].port)
        with running(
            tmp_path / "mesh", text + service("  settings: {opTimeout: 400ms}\n")
        ) as proxy:
            began = time.monotonic()
            assert "upstream" in answer(proxy)
            assert time.monotonic() - began >= 0.3  # its clock is that of the last event
            assert client(proxy, host=SESSIONS).set("key", "value")
        thread.join(10)
        for connection in taken:
            connection.close()


def test_metrics_count_commands_where_that_is_asked_for(
    servers: dict[str, RedisServer], tmp_path: Path
) -> None:
    settings = "  settings: {enableCommandStats: true, caseInsensitive: true}\n"
    routes = f'  redis: [{{match: {{key: {{prefix: "U:"}}}}, route: {{host: {SESSIONS}}}}}]\n'
    with running(tmp_path / "mesh", entries(servers) + service(settings + routes)) as proxy:
        one = client(proxy)
        assert one.set("u:7", "value")
        with pytest.raises(redis.ResponseError, match="no upstream host"):
            one.get("v:7")
        url = f"http://127.0.0.1:{proxy.envoy.admin_port}/stats?filter=redis"
        stats = urllib.request.urlopen(url).read().decode()
        assert f"||{SESSIONS}.redis_cluster.upstream_commands.set.total: 1" in stats
    assert servers[SESSIONS].data() == {"u:7": "value"}


def test_what_is_wrong_with_a_password_is_told_without_it() -> None:
    for auth in (
        f"{{plain: {PASSWORD}}}",
        f"{{plain: {{pasword: {PASSWORD}}}}}",
        f"{{plain: {{password: [{PASSWORD}]}}}}",
        f"{{plain: {{password: {PASSWORD}, username: {{a: {PASSWORD}}}}}}}",
        f"{PASSWORD}",
        "{plain: {password: 27182818}}",
    ):
        for text in (service(f"  settings: {{auth: {auth}}}\n"), destination(f"{{auth: {auth}}}")):
            loaded = load_text(text, "mesh.yaml")
            told = "\n".join(map(repr, loaded.diagnostics))
            assert loaded.diagnostics
            assert PASSWORD not in told
            assert "27182818" not in told
    loaded = load_text(secret("a", password=PASSWORD).replace("stringData", "data"), "mesh.yaml")
    assert loaded.diagnostics
    assert PASSWORD not in repr(loaded.diagnostics)
