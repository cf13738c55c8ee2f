"""Where services are listened for."""

from __future__ import annotations

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.translate import Options
from metaprotocol.translate.naming import LISTENER

from tests.python.translate.support import ORDERS, service, translated

NAME = f"{ORDERS}|20880"


def bound(annotation: str, *, ports: int = 1) -> dict[str, str]:
    """Port to the address and port that it is listened for at."""
    text = service().replace(
        "namespace: shop}",
        f'namespace: shop, annotations: {{metaprotocol.aeraki.io/bind: "{annotation}"}}}}',
    )
    if ports > 1:
        text = text.replace("ports: [", "ports: [{number: 7, name: tcp-metaprotocol-dubbo-2}, ")
    result = translated(text)
    assert result.diagnostics == ()
    return {name.rpartition("|")[2]: result.listener(name) for name in result.names(LISTENER)}


@pytest.mark.parametrize(
    ("annotation", "address"),
    [
        ("127.0.0.5", "127.0.0.5 20880"),
        ("127.0.0.5:99", "127.0.0.5 99"),
        ("127.0.0.5:0", "127.0.0.5 0"),
        ("::1", "::1 20880"),
        ("[::1]:99", "::1 99"),
        ("0.0.0.0", "0.0.0.0 20880"),
        (f"127.0.0.5, {ORDERS}=127.0.0.6:8", "127.0.0.6 8"),
        (f"{ORDERS}=127.0.0.6:8, 127.0.0.5", "127.0.0.6 8"),
        ("other.example=127.0.0.6", "127.0.0.2 20880"),
        ("tcp-metaprotocol-dubbo=127.0.0.6", "127.0.0.6 20880"),
    ],
)
def test_the_annotation_says_where(annotation: str, address: str) -> None:
    assert bound(annotation) == {"20880": address}


def test_each_port_may_have_its_own_address() -> None:
    assert bound("127.0.0.5, 7=127.0.0.6:77", ports=2) == {
        "20880": "127.0.0.5 20880",
        "7": "127.0.0.6 77",
    }


@pytest.mark.parametrize(
    ("addresses", "address"),
    [
        ("127.0.0.7", "127.0.0.7 20880"),
        ("10.0.0.1, 127.0.0.0/8, 127.0.0.8, 127.0.0.9", "127.0.0.8 20880"),
        ('"::1"', "::1 20880"),
        ("10.0.0.1", "127.0.0.1 20880"),
    ],
)
def test_the_first_loopback_address_of_the_service_is_used(addresses: str, address: str) -> None:
    assert translated(service(address=addresses)).listener(NAME) == address


def test_the_default_address_can_be_chosen() -> None:
    text = service(address="10.0.0.1")
    assert translated(text, Options(bind_address="0.0.0.0")).listener(NAME) == "0.0.0.0 20880"


def test_any_number_of_services_can_have_ports_from_the_kernel() -> None:
    text = service("a") + service("b")
    result = translated(text, Options(ephemeral_ports=True))
    assert result.diagnostics == ()
    assert [result.listener(name) for name in result.names(LISTENER)] == ["127.0.0.2 0"] * 2


A, B, C = (f"{name}.shop.svc.cluster.local" for name in "abc")


def plain(name: str, extra: str = "") -> str:
    """A service without addresses."""
    return service(name, extra=extra).replace("  addresses: [127.0.0.2]\n", "")


def test_services_without_addresses_get_their_own_where_they_have_a_port_in_common() -> None:
    result = translated(plain("a") + plain("b") + plain("c"))
    where = [result.listener(f"{host}|20880") for host in (A, B, C)]
    assert where[0] == "127.0.0.1 20880"
    assert all(address.startswith("127.") for address in where)
    assert len(set(where)) == 3
    assert {(item.severity, item.object) for item in result.said("own-address")} == {
        (Severity.INFO, "ServiceEntry shop/b"),
        (Severity.INFO, "ServiceEntry shop/c"),
    }
    assert result.codes == ["own-address", "own-address"]


def test_an_address_of_its_own_depends_on_the_host_alone() -> None:
    before = translated(plain("a") + plain("b") + plain("c")).listener(f"{C}|20880")
    assert translated(plain("c") + plain("b") + plain("a")).listener(f"{C}|20880") == before
    assert translated(plain("c") + plain("a")).listener(f"{C}|20880") == before


def test_an_address_that_cannot_be_meant_locally_is_as_none() -> None:
    text = plain("a", "  addresses: [240.240.0.1]") + plain("b", "  addresses: [240.240.0.2]")
    result = translated(text)
    assert len({result.listener(f"{host}|20880") for host in (A, B)}) == 2


def test_who_asks_for_an_address_has_it_before_one_that_may_be_anywhere() -> None:
    own = translated(plain("a") + plain("b")).listener(f"{B}|20880").partition(" ")[0]
    result = translated(plain("a") + plain("b") + service("c", address=own))
    assert result.listener(f"{C}|20880") == f"{own} 20880"
    assert result.listener(f"{B}|20880") not in (f"{own} 20880", "127.0.0.1 20880")
    assert result.codes == ["own-address"]


def test_an_address_that_is_reached_from_elsewhere_is_not_replaced_by_one_that_is_not() -> None:
    result = translated(plain("a") + plain("b"), Options(bind_address="192.0.2.1"))
    assert result.codes == ["address-conflict"]


def test_services_that_no_proxy_sees_together_share_an_address() -> None:
    text = service("a", extra="  exportTo: [one]") + service("b", extra="  exportTo: [two]")
    result = translated(text)
    assert result.diagnostics == ()
    assert len(result.names(LISTENER)) == 2


def test_for_one_envoy_they_do_not() -> None:
    text = service("a", extra="  exportTo: [one]") + service("b", extra="  exportTo: [two]")
    result = translated(text, Options(respect_export_to=False))
    assert result.codes == ["address-conflict"]
    assert result.update.visible_to == {}
