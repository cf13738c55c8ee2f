"""One control plane serves Envoys of several releases: what it sends is the same for each."""

from __future__ import annotations

from functools import cache

import envoys
import pytest
from metaprotocol.envoy.binary import TESTED_RELEASES, find_envoy
from metaprotocol.envoy.config import Bootstrap, Carrier, ConfigBuilder
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.resources import Inventory
from metaprotocol.translate import Options, Translator

from tests.python.translate.support import case_names, case_text, read

OTHERS = [release for release in TESTED_RELEASES if not find_envoy().version.startswith(release)]


@cache
def types(release: str) -> EnvoyTypes:
    return EnvoyTypes.from_binary(envoys.installed(release) if release else find_envoy().path)


def messages(release: str, case: str) -> dict[tuple[str, str], bytes]:
    translator = Translator(types(release), Options())
    translator.update(Inventory.of(read(case_text(case))), None)
    return {
        (type_url, name): message.SerializeToString(deterministic=True)
        for type_url, resources in translator.resources.items()
        for name, message in resources.items()
    }


@pytest.mark.parametrize("case", case_names())
@pytest.mark.parametrize("release", OTHERS)
def test_every_release_gets_the_same_bytes(release: str, case: str) -> None:
    assert messages(release, case) == messages("", case)


@pytest.mark.parametrize("release", OTHERS)
def test_every_release_takes_the_same_bootstrap(release: str) -> None:
    bootstrap = Bootstrap(carrier=Carrier("@carrier"), admin_page=True)
    made = [ConfigBuilder(types(each)).bootstrap(bootstrap) for each in (release, "")]
    assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(
        deterministic=True
    )
