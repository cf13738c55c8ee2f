"""A real Envoy takes every part of the generated configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from metaprotocol.envoy.binary import find_module
from metaprotocol.envoy.config import Bootstrap, Carrier, ConfigBuilder
from metaprotocol.envoy.process import EnvoyProcess

from tests.testkit.stage import eventually, running_envoy

GOLDEN = Path(__file__).resolve().parents[1] / "python" / "golden"
# TLS needs certificates, and is in test_tls.py; discovery needs a server or files.
PARTS = ["listener", "listener_extra", "cluster", "cluster_policy"]


@pytest.mark.parametrize("name", PARTS)
def test_a_golden_part_is_taken(builder: ConfigBuilder, name: str) -> None:
    content = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    bootstrap = builder.to_dict(builder.bootstrap(Bootstrap()))
    if name.startswith("listener"):
        content["address"]["socket_address"]["port_value"] = 0
        bootstrap["static_resources"]["listeners"].append(content)
    else:
        bootstrap["static_resources"]["clusters"].append(content)
    # The golden parts name the module without a path.
    with EnvoyProcess(bootstrap, module_dir=find_module().parent) as envoy:
        assert content["name"] in str(envoy.config_dump())


async def test_the_golden_carrier_and_worker_cluster_are_taken(builder: ConfigBuilder) -> None:
    bootstrap = builder.to_dict(builder.bootstrap(Bootstrap()))
    carrier = yaml.safe_load((GOLDEN / "carrier.yaml").read_text())
    unique = Carrier().address
    text = yaml.safe_dump(carrier).replace("@carrier", unique)
    bootstrap["static_resources"]["listeners"] = [yaml.safe_load(text)]
    bootstrap["static_resources"]["clusters"] = [
        yaml.safe_load((GOLDEN / "worker_cluster.yaml").read_text())
    ]
    with EnvoyProcess(bootstrap, module_dir=find_module().parent) as envoy:
        carriers = f"listener.{unique}.downstream_cx_total"
        await eventually(lambda: envoy.stats().get(carriers), "the module connects to itself")


def test_a_bootstrap_with_the_admin_page_is_taken(builder: ConfigBuilder) -> None:
    with running_envoy(builder, Bootstrap(admin_page=True)) as envoy:
        assert '"abi"' in envoy.admin("/metaprotocol/version")
