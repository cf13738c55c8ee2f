"""What each feature costs: the list of features, and the table that comes of measuring them."""

from __future__ import annotations

import json
from typing import Any

from bench.features import NOTHING, Feature, differences, feature_plan, features_in
from bench.measure import Result

EMPTY: dict[str, Any] = {"config": {}, "table": {}, "route": {}, "policy": {}}
TOLD = {"token_bucket": {}, "enable_x_ratelimit_headers": True}
LISTED: list[dict[str, Any]] = [
    {"name": NOTHING, **EMPTY},
    {
        "name": "changes to request and reply",
        **EMPTY,
        "route": {"request_mutation": [], "response_mutation": []},
    },
    {"name": "told of", **EMPTY, "table": {"local_rate_limit": TOLD}},
    {"name": "all of these", **EMPTY, "table": {"local_rate_limit": TOLD, "authorization": {}}},
]


def listed() -> list[Feature]:
    return features_in(json.dumps(LISTED))


def test_all_are_measured_also_those_that_change_replies() -> None:
    found = {feature.name: feature for feature in listed()}
    assert list(found) == [item["name"] for item in LISTED]
    assert found["changes to request and reply"].route == LISTED[1]["route"]
    assert found["all of these"].table["local_rate_limit"] == TOLD
    (case,) = feature_plan(listed(), quick=True, rounds=0).cases
    assert case.longer_replies, "clients take what is added"
    assert found["all of these"].cluster == "feature-all-of-these"


def test_what_counts_is_the_difference_within_a_round() -> None:
    (case,) = feature_plan(listed(), quick=True, rounds=0).cases
    plain, ours = Result(case, case.proxies[0]), Result(case, case.proxies[1])
    for base, more in ((1.0, 0.5), (9.0, 0.4), (2.0, 7.0)):
        plain.add(cpu_us_per_request=base)
        ours.add(cpu_us_per_request=base + more)
    assert differences(ours, plain) == 0.5
