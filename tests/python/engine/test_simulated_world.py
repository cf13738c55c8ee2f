"""The whole proxy in a simulated world: virtual time, virtual servers, faults at every point.

Hypothesis writes the script, a list of small actions; the world checks after each of them and when
all is over what must always hold:

* each request that expects a reply gets exactly one, and its own;
* nothing is delivered to another session;
* one-way messages are forwarded at most once, and never answered;
* malformed bytes harm only the connection they came on;
* a lost upstream fails only the requests that were on it;
* when everything has ended nothing is left: no exchange, no session, no lease, no gauge.

``HYPOTHESIS_PROFILE=thorough`` runs for minutes instead of seconds. A failure prints its script.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.python.engine.world import Action, World

settings.register_profile(
    "fast", max_examples=400, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", parent=settings.get_profile("fast"), max_examples=20_000)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

NUMBER = st.integers(min_value=0, max_value=255)
ACTIONS = st.lists(
    st.builds(Action, kind=st.sampled_from(World.KINDS), a=NUMBER, b=NUMBER),
    min_size=1,
    max_size=120,
)


@settings(PROFILE)
@given(script=ACTIONS, mode=st.sampled_from(["SHARED", "EXCLUSIVE", "PER_SESSION"]))
def test_every_request_gets_its_own_reply_whatever_happens(script: list[Action], mode: str) -> None:
    world = World(mode)
    for action in script:
        world.play(action)
    world.finish()


def test_a_quiet_world_answers_everything() -> None:
    world = World("SHARED")
    for number in range(50):
        world.play(Action("open", number, 0))
        world.play(Action("request", number, number))
    world.finish()
    # Two of the five methods are for the proxy to answer: no route, and a direct reply.
    assert world.replies_by_servers == 30
    assert world.replies_by_the_proxy == 20
