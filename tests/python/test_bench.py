"""What the benchmark makes of what it measures: mistakes that its figures would not show."""

from __future__ import annotations

from pathlib import Path

from bench.instructions import instructions_by_library
from bench.plan import META_DUBBO, Home, beside, full_plan

PROFILE = """\
# callgrind format
events: Ir

ob=(1) /opt/envoy
fn=(1) main
10 100
+3 20
cob=(2) /opt/libmodule.so
cfn=(2) work
calls=4 7
* 5000
ob=(2)
fn=(2)
7 5000
-2 30
ob=(1)
fn=(3) end
* 1
"""


def test_instructions_count_where_they_are_spent(tmp_path: Path) -> None:
    profile = tmp_path / "callgrind.out"
    profile.write_text(PROFILE)
    assert instructions_by_library(profile) == {"envoy": 121, "libmodule.so": 5030}


def test_two_builds_are_compared_like_with_like() -> None:
    for case in beside(full_plan()).cases:
        ours = [proxy for proxy in case.proxies if proxy.home is Home.ENVOY]
        theirs = [proxy for proxy in case.proxies if proxy.home is Home.BESIDE]
        assert [proxy.listener for proxy in ours] == [proxy.listener for proxy in theirs]
        assert all(proxy.name == META_DUBBO.name for proxy in case.proxies)
