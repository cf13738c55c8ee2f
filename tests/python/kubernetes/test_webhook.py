"""The webhook as an API server meets it: over TLS, with a certificate that is made, kept in a
Secret, made known and renewed."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from metaprotocol.controller.admission import Admission
from metaprotocol.controller.certificate_files import CertificateFiles
from metaprotocol.controller.certificates import OwnCertificate, Pair, issue, names_in, read_pair
from metaprotocol.controller.webhook import Webhook
from metaprotocol.envoy.config import ConfigBuilder
from metaprotocol.kubernetes import Client, Connection
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options
from prometheus_client import CollectorRegistry

from tests.testkit import stage
from tests.testkit.api_server import ADMISSION, CORE, ApiServer

NAME = "metaprotocol.metaprotocol-system.svc"
CONFIGURATION = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: metaprotocol}
webhooks:
- name: validate.metaprotocol.aeraki.io
  clientConfig: {service: {name: metaprotocol, namespace: metaprotocol-system}}
"""
ROUTER = """
apiVersion: metaprotocol.aeraki.io/v1alpha1
kind: MetaRouter
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders.example]
  routes:
  - match: {attributes: {method: {regex: "%s"}}}
    route: [{destination: {host: orders.example}}]
"""


def asked(value: Any, before: Any = None, operation: str = "CREATE") -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "7-7",
            "kind": {
                "group": "metaprotocol.aeraki.io",
                "version": "v1alpha1",
                "kind": "MetaRouter",
            },
            "name": "orders",
            "namespace": "shop",
            "operation": operation,
            "object": value,
            "oldObject": before,
        },
    }


def trusting(authorities: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authorities.decode())


class Served:
    """A webhook, and how to ask it."""

    def __init__(self, webhook: Webhook, registry: CollectorRegistry) -> None:
        self.webhook = webhook
        self.registry = registry

    def counted(self, verdict: str) -> float:
        labels = {"verdict": verdict}
        return self.registry.get_sample_value("metaprotocol_admission_reviews_total", labels) or 0

    async def post(self, content: bytes, authorities: bytes) -> tuple[int, bytes]:
        url = f"https://127.0.0.1:{self.webhook.port}/validate"
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                url, data=content, ssl=trusting(authorities), server_hostname=NAME
            ) as answer,
        ):
            return answer.status, await answer.read()

    async def ask(self, review: Any, authorities: bytes) -> dict[str, Any]:
        status, content = await self.post(json.dumps(review).encode(), authorities)
        assert status == 200, content
        answer = json.loads(content)
        assert answer["apiVersion"] == "admission.k8s.io/v1"
        response: dict[str, Any] = answer["response"]
        assert response["uid"] == "7-7"
        return response


@asynccontextmanager
async def serving(
    builder: ConfigBuilder,
    pair: Pair | None = None,
    admission: Admission | None = None,
    *,
    read_seconds: float = 240,
) -> AsyncIterator[Served]:
    registry = CollectorRegistry()
    webhook = Webhook(
        admission or Admission(builder.types, Options()),
        Inventory,
        host="127.0.0.1",
        port=0,
        registry=registry,
        read_seconds=read_seconds,
    )
    running = asyncio.create_task(webhook.run())
    try:
        if pair is not None:
            webhook.use(pair.certificate, pair.key)
            await eventually(lambda: webhook.port)
        yield Served(webhook, registry)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        webhook.close()


async def eventually(condition: Callable[[], object]) -> None:
    await stage.eventually(condition, timeout=60)


HOUR = timedelta(hours=1)


async def test_a_bad_object_is_refused_with_field_value_and_why(builder: ConfigBuilder) -> None:
    pair = issue([NAME], HOUR)
    async with serving(builder, pair) as served:
        bad = yaml.safe_load(ROUTER % "a{2000}")
        answer = await served.ask(asked(bad), pair.authorities)
        assert answer["allowed"] is False
        status = answer["status"]
        assert (status["code"], status["reason"]) == (422, "Invalid")
        field = "spec.routes[0].match.attributes.method.regex"
        assert status["message"].startswith(
            f'MetaRouter shop/orders is invalid: {field}: "a{{2000}}" is not a valid RE2 expression'
        )
        assert "until it is fixed" not in status["message"], "it is not stored at all"
        (cause,) = status["details"]["causes"]
        assert (cause["reason"], cause["field"]) == ("FieldValueInvalid", field)
        assert status["details"]["kind"] == "MetaRouter"
        assert answer["warnings"][0].startswith("spec.hosts[0]: ")

        good = await served.ask(asked(yaml.safe_load(ROUTER % "a")), pair.authorities)
        assert good["allowed"] is True
        assert "status" not in good
        assert (served.counted("refused"), served.counted("allowed")) == (1, 1)


async def test_all_errors_are_told_together(builder: ConfigBuilder) -> None:
    pair = issue([NAME], HOUR)
    async with serving(builder, pair) as served:
        value = yaml.safe_load(ROUTER % "(")
        value["spec"]["hosts"] = []
        value["spec"]["rotues"] = value["spec"]["routes"] * 40
        answer = await served.ask(asked(value), pair.authorities)
        message = answer["status"]["message"]
        assert message.count("\n* ") == len(answer["status"]["details"]["causes"]) >= 3
        assert len(message) <= 8000


async def test_what_was_stored_with_an_error_may_still_get_labels_and_be_deleted(
    builder: ConfigBuilder,
) -> None:
    pair = issue([NAME], HOUR)
    async with serving(builder, pair) as served:
        stored = yaml.safe_load(ROUTER % "(")
        labelled = {**stored, "metadata": {**stored["metadata"], "labels": {"team": "a"}}}
        answer = await served.ask(asked(labelled, stored, "UPDATE"), pair.authorities)
        assert answer["allowed"] is True
        other = yaml.safe_load(ROUTER % "((")
        ending = {**other, "metadata": {**other["metadata"], "deletionTimestamp": "2026-01-01"}}
        answer = await served.ask(asked(ending, stored, "UPDATE"), pair.authorities)
        assert answer["allowed"] is True
        answer = await served.ask(asked(other, stored, "UPDATE"), pair.authorities)
        assert answer["allowed"] is False


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[" * 100_000, 400),
        (b'"x"', 400),
        (b'{"apiVersion": "admission.k8s.io/v1"}', 400),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "1"}}', 400),
        (b'{"apiVersion": "admission.k8s.io/v1", "request": {"uid": 1}}', 400),
        (b" " * (8 * 2**20 + 1), 413),
    ],
    ids=["nothing", "deep", "text", "no request", "other version", "no uid", "too long"],
)
async def test_what_is_no_review_is_rejected(
    builder: ConfigBuilder, content: bytes, status: int
) -> None:
    pair = issue([NAME], HOUR)
    async with serving(builder, pair) as served:
        assert (await served.post(content, pair.authorities))[0] == status


async def test_a_fault_of_our_own_is_no_verdict(builder: ConfigBuilder) -> None:
    class Broken(Admission):
        def review(self, *_: Any) -> Any:
            raise RuntimeError("as the test wants it")

    pair = issue([NAME], HOUR)
    async with serving(builder, pair, Broken(builder.types, Options())) as served:
        content = json.dumps(asked(yaml.safe_load(ROUTER % "a"))).encode()
        assert (await served.post(content, pair.authorities))[0] == 500
        assert served.counted("failed") == 1


async def test_more_than_a_few_reviews_at_once_are_not_kept(builder: ConfigBuilder) -> None:
    """Peers that begin a review and do not go on: what they may hold is bounded, and others are
    told at once instead of waiting."""
    pair = issue([NAME], HOUR)
    async with serving(builder, pair) as served:
        head = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
        idle = []
        for _ in range(16):
            _, writer = await asyncio.open_connection(
                "127.0.0.1",
                served.webhook.port,
                ssl=trusting(pair.authorities),
                server_hostname=NAME,
            )
            writer.write(head)
            await writer.drain()
            idle.append(writer)
        await eventually(lambda: served.webhook.waiting == 16)
        content = json.dumps(asked(yaml.safe_load(ROUTER % "a"))).encode()
        assert (await served.post(content, pair.authorities))[0] == 503
        for writer in idle:
            writer.close()
        await eventually(lambda: not served.webhook.waiting)
        assert (await served.post(content, pair.authorities))[0] == 200


async def test_a_review_that_does_not_come_to_its_end_is_given_up(builder: ConfigBuilder) -> None:
    pair = issue([NAME], HOUR)
    async with serving(builder, pair, read_seconds=0.1) as served:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.webhook.port, ssl=trusting(pair.authorities), server_hostname=NAME
        )
        writer.write(b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_peers_that_break_off_or_send_no_http_are_not_worth_a_line_in_the_log(
    builder: ConfigBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    pair = issue([NAME], HOUR)
    head = b"POST /validate HTTP/1.1\r\nHost: x\r\n"
    async with serving(builder, pair) as served:
        for sent in (
            head + b"Content-Length: 1000\r\n\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"\0" * 1000,
        ):
            _, writer = await asyncio.open_connection(
                "127.0.0.1",
                served.webhook.port,
                ssl=trusting(pair.authorities),
                server_hostname=NAME,
            )
            writer.write(sent)
            await writer.drain()
            if b"Content-Length" in sent:
                await eventually(lambda: served.webhook.waiting)
            writer.transport.abort()
        await eventually(lambda: served.counted("failed") and not served.webhook.waiting)
        assert (await served.ask(asked(None), pair.authorities))["allowed"] is True
    ours = [item for item in caplog.records if item.name.startswith(("metaprotocol", "aiohttp"))]
    assert not [item for item in ours if item.levelname != "INFO"]


def test_a_pair_that_does_not_go_together_leaves_the_old_one_in_use(builder: ConfigBuilder) -> None:
    async def run() -> None:
        one, other = issue([NAME], HOUR), issue([NAME], HOUR)
        async with serving(builder, one) as served:
            with pytest.raises(ValueError, match="do not go together"):
                served.webhook.use(other.certificate, one.key)
            with pytest.raises(ValueError, match="do not go together"):
                served.webhook.use(b"", b"")
            answer = await served.ask(asked(None), one.authorities)
            assert answer["allowed"] is True

    asyncio.run(run())


# --- certificates


def test_a_certificate_is_for_its_names_and_known_by_its_authority_and_those_before() -> None:
    first = issue([NAME, "127.0.0.1", "::1"], HOUR)
    assert first.names() == {NAME, "127.0.0.1", "::1"}
    second = issue([NAME], HOUR, first)
    assert second.authorities.count(b"BEGIN CERTIFICATE") == 2
    expired = issue([NAME], HOUR, now=datetime.now(UTC) - 2 * HOUR)
    assert issue([NAME], HOUR, expired).authorities.count(b"BEGIN CERTIFICATE") == 1
    for _ in range(5):
        second = issue([NAME], HOUR, second)
    assert second.authorities.count(b"BEGIN CERTIFICATE") == 4


def test_a_certificate_is_due_after_two_thirds_of_its_time() -> None:
    now = datetime.now(UTC)
    pair = issue([NAME], HOUR)
    assert not pair.due(now + HOUR * 0.55)
    assert pair.due(now + HOUR * 0.7)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"ca.crt": "eA==", "tls.crt": "eA==", "tls.key": "eA=="},
        {"ca.crt": 1, "tls.crt": 2, "tls.key": 3},
        {**issue([NAME], HOUR).data(), "tls.key": issue([NAME], HOUR).data()["tls.key"]},
        {**issue([NAME], HOUR).data(), "ca.crt": ""},
    ],
    ids=["nothing", "empty", "no PEM", "no text", "another's key", "no authority"],
)
def test_a_secret_without_a_usable_pair_is_as_none(data: object) -> None:
    assert read_pair({"data": data}) is None


def test_the_names_are_those_by_which_the_api_server_asks() -> None:
    configuration = yaml.safe_load(CONFIGURATION)
    assert names_in(configuration) == {NAME}
    configuration["webhooks"][0]["clientConfig"] = {"url": "https://127.0.0.1:1234/validate"}
    assert names_in(configuration) == {"127.0.0.1"}


class Replica:
    """One that keeps the certificate."""

    def __init__(self, client: Client, *, leads: bool, lifetime: timedelta = HOUR) -> None:
        self.leads = leads
        self.shown: list[tuple[bytes, bytes]] = []
        self.own = OwnCertificate(
            client,
            lambda certificate, key: self.shown.append((certificate, key)),
            may_write=lambda: self.leads,
            configuration="metaprotocol",
            namespace="metaprotocol-system",
            secret="metaprotocol-webhook",
            lifetime=lifetime,
        )


@asynccontextmanager
async def replicas(
    folder: Path, *made: dict[str, Any]
) -> AsyncIterator[tuple[ApiServer, list[Replica]]]:
    async with ApiServer(served=[*CORE, *ADMISSION]) as server:
        server.load(CONFIGURATION)
        async with Client(Connection(server.kubeconfig(folder))) as client:
            found = [Replica(client, **options) for options in made]
            tasks = [asyncio.create_task(item.own.run()) for item in found]
            try:
                yield server, found
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def secret(server: ApiServer) -> Pair | None:
    found = server.find("secrets", "metaprotocol-system", "metaprotocol-webhook")
    return read_pair(found) if found is not None else None


def bundle(server: ApiServer) -> bytes:
    found = server.find("validatingwebhookconfigurations", "", "metaprotocol")
    assert found is not None
    text = found["webhooks"][0]["clientConfig"].get("caBundle") or ""
    return base64.b64decode(text)


async def test_two_new_replicas_show_one_certificate_that_is_known(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"leads": False}, {"leads": False}) as (server, both):
        await eventually(lambda: all(item.shown for item in both))
        await eventually(lambda: both[0].shown[-1] == both[1].shown[-1])
        pair = secret(server)
        assert pair is not None
        assert both[0].shown[-1] == (pair.certificate, pair.key)
        assert pair.names() == {NAME}
        await eventually(lambda: bundle(server) == pair.authorities)
        found = server.find("validatingwebhookconfigurations", "", "metaprotocol")
        assert found is not None
        assert found["webhooks"][0]["clientConfig"]["service"]["name"] == "metaprotocol"


async def test_the_leader_renews_and_no_certificate_is_shown_before_it_is_known(
    tmp_path: Path,
) -> None:
    short = timedelta(seconds=15)
    async with replicas(
        tmp_path, {"leads": True, "lifetime": short}, {"leads": False, "lifetime": short}
    ) as (server, (leader, other)):
        unknown: list[bytes] = []

        def look() -> bool:
            """Looks whether what is in the Secret, from where it is shown, is known."""
            pair = secret(server)
            if pair is not None and (leader.shown or other.shown):
                authority = pair.authorities.partition(b"-----END CERTIFICATE-----")[0]
                if authority not in bundle(server):
                    unknown.append(authority)
            return len(leader.shown) >= 3 and len(other.shown) >= 3

        await eventually(lambda: bundle(server) and leader.shown and other.shown)
        await eventually(look)
        assert not unknown
        assert bundle(server).count(b"BEGIN CERTIFICATE") >= 2, "the one before is known too"


async def test_nobody_renews_who_does_not_lead(tmp_path: Path) -> None:
    short = timedelta(seconds=10)
    async with replicas(tmp_path, {"leads": False, "lifetime": short}) as (server, (replica,)):
        await eventually(lambda: replica.shown)
        pair = secret(server)
        assert pair is not None
        await eventually(lambda: pair.due(datetime.now(UTC)))
        await asyncio.sleep(1.5)  # some looks of half a second
        assert secret(server) == pair
        replica.leads = True
        await eventually(lambda: len(replica.shown) > 1)


async def test_a_bundle_that_somebody_takes_away_comes_back(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"leads": False, "lifetime": timedelta(seconds=60)}) as (
        server,
        (replica,),
    ):
        await eventually(lambda: replica.shown and bundle(server))
        right = bundle(server)
        server.load(CONFIGURATION)
        assert not bundle(server)
        await eventually(lambda: bundle(server) == right)


async def test_a_secret_that_somebody_spoils_is_made_again(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"leads": True, "lifetime": timedelta(seconds=60)}) as (
        server,
        (replica,),
    ):
        await eventually(lambda: replica.shown)
        found = server.find("secrets", "metaprotocol-system", "metaprotocol-webhook")
        assert found is not None
        server.put({**found, "data": {**found["data"], "tls.key": "eA=="}})
        await eventually(lambda: len(replica.shown) == 2)
        pair = secret(server)
        assert pair is not None
        assert replica.shown[-1] == (pair.certificate, pair.key)
        await eventually(lambda: pair.authorities in bundle(server))


async def test_another_name_of_the_service_is_another_certificate(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"leads": True, "lifetime": timedelta(seconds=60)}) as (
        server,
        (replica,),
    ):
        await eventually(lambda: replica.shown)
        server.load(CONFIGURATION.replace("{name: metaprotocol, namespace", "{name: x, namespace"))
        await eventually(lambda: len(replica.shown) > 1)
        pair = secret(server)
        assert pair is not None
        assert pair.names() == {"x.metaprotocol-system.svc"}


async def test_without_the_configuration_it_says_so(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"leads": True}) as (server, (replica,)):
        server.remove("validatingwebhookconfigurations", "", "metaprotocol")
        await eventually(lambda: "no ValidatingWebhookConfiguration" in replica.own.problem
                         or replica.shown)  # fmt: skip
        server.load(CONFIGURATION)
        await eventually(lambda: replica.shown and not replica.own.problem)


async def test_files_are_read_again_when_both_are_new(tmp_path: Path) -> None:
    shown: list[bytes] = []
    pairs = [issue([NAME], HOUR) for _ in range(2)]
    contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def use(certificate: bytes, key: bytes) -> None:
        file = tmp_path / "both.pem"
        file.write_bytes(key + certificate)
        try:
            contexts.load_cert_chain(file)
        except ssl.SSLError as error:
            raise ValueError("not together") from error
        shown.append(certificate)

    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    files = CertificateFiles(certificate, key, use, look_seconds=0.02)
    task = asyncio.create_task(files.run())
    try:
        await eventually(lambda: files.problem)
        certificate.write_bytes(pairs[0].certificate)
        key.write_bytes(pairs[0].key)
        await eventually(lambda: shown == [pairs[0].certificate])
        certificate.write_bytes(pairs[1].certificate)
        await eventually(lambda: files.problem == "not together")
        assert len(shown) == 1
        key.write_bytes(pairs[1].key)
        await eventually(lambda: shown[1:] == [pairs[1].certificate] and not files.problem)
    finally:
        task.cancel()
