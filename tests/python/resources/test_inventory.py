"""The inventory: what a changed file changes, and which of two versions counts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaprotocol.resources import Changes, Inventory, Key, Resource, load_text

from tests.python.resources.samples import AERAKI_ROUTER, ALL, changed, load_one, router


def named(name: str, namespace: str = "shop", *, route: str = "only") -> Resource:
    text = changed(router(name=route), "metadata", {"name": name, "namespace": namespace})
    loaded: Resource = load_one(text)
    return loaded


def key(name: str, namespace: str = "shop") -> Key:
    return Key("MetaRouter", namespace, name)


def test_a_new_file_adds_a_changed_one_updates_and_a_gone_one_removes() -> None:
    inventory = Inventory()
    first = inventory.replace_file("a.yaml", [named("a"), named("b")])
    assert first == Changes(added=frozenset({key("a"), key("b")}))
    second = inventory.replace_file("a.yaml", [named("a", route="new"), named("c")])
    assert second == Changes(
        added=frozenset({key("c")}),
        updated=frozenset({key("a")}),
        removed=frozenset({key("b")}),
    )
    assert inventory.replace_file("a.yaml", []).removed == {key("a"), key("c")}
    assert len(inventory) == 0
    assert inventory.files == []


def test_the_same_again_is_no_change_but_other_lines_are_told() -> None:
    inventory = Inventory()
    inventory.replace_file("a.yaml", load_text(router(), "a.yaml").resources)
    shifted = load_text("# more\n\n" + router(), "a.yaml").resources
    changes = inventory.replace_file("a.yaml", shifted)
    assert not changes
    assert changes.moved == {key("orders")}
    assert inventory[key("orders")].origin.line == 3


def test_of_one_object_in_two_files_the_first_file_by_name_counts() -> None:
    inventory = Inventory()
    inventory.replace_file("b.yaml", [named("a", route="b")])
    changes = inventory.replace_file("a.yaml", [named("a", route="a")])
    assert changes.updated == {key("a")}
    (diagnostic,) = inventory.diagnostics
    assert diagnostic.code == "duplicate-object"
    assert diagnostic.object == "MetaRouter shop/a"
    # Without the first the second counts again.
    assert inventory.replace_file("a.yaml", []).updated == {key("a")}
    assert inventory.diagnostics == []
    assert inventory.meta_routers[0].spec.routes[0].name == "b"


def test_an_object_that_moves_to_another_file_is_never_gone() -> None:
    inventory = Inventory()
    inventory.replace_file("a.yaml", [named("a")])
    changes = inventory.replace_files({"a.yaml": [], "b.yaml": [named("a")]})
    assert changes == Changes(moved=frozenset({key("a")}))
    assert key("a") in inventory


def test_each_kind_is_listed_by_namespace_and_name() -> None:
    inventory = Inventory()
    inventory.replace_file("z", [named("b", "x"), named("a", "y")])
    inventory.replace_file("a", [named("a", "x"), *load_text("---\n".join(ALL), "a").resources])
    names = [(item.key.namespace, item.key.name) for item in inventory.meta_routers]
    assert names == [("shop", "orders"), ("x", "a"), ("x", "b"), ("y", "a")]
    assert [item.key.name for item in inventory.service_entries] == ["orders"]
    assert [item.key.name for item in inventory.destination_rules] == ["orders"]
    assert [item.key.name for item in inventory.application_protocols] == ["dubbo"]
    assert len(list(inventory)) == len(inventory) == 7


def test_resources_made_in_code_need_no_file() -> None:
    inventory = Inventory.of([named("a"), load_one(AERAKI_ROUTER)])
    assert set(inventory) == {key("a"), key("orders")}


CONTENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), st.sampled_from(["1", "2"]), max_size=3),
    max_size=3,
)
MADE = {(name, route): named(name, route=route) for name in "xyz" for route in "12"}


@given(st.lists(CONTENTS, max_size=6))
def test_changes_always_lead_from_what_was_to_what_is(
    steps: list[dict[str, dict[str, str]]],
) -> None:
    inventory = Inventory()
    files: dict[str, dict[str, str]] = {}
    for step in steps:
        before = dict(inventory)
        files |= step
        changes = inventory.replace_files(
            {file: [MADE[item] for item in content.items()] for file, content in step.items()}
        )
        expected: dict[Key, Resource] = {}
        for file in sorted(files, reverse=True):
            expected |= {key(name): MADE[name, route] for name, route in files[file].items()}
        assert dict(inventory) == expected
        assert changes.added == expected.keys() - before.keys()
        assert changes.removed == before.keys() - expected.keys()
        assert changes.updated == {
            item for item in before.keys() & expected.keys() if before[item] != expected[item]
        }
        contested = sum(len(content) for content in files.values()) - len(expected)
        assert len(inventory.diagnostics) == contested


@pytest.mark.parametrize("files", [50, 5000])
def test_one_changed_file_costs_the_same_among_many(files: int) -> None:
    one, two = named("r0"), named("r0", route="changed")
    made = changed(router(), "metadata.name", "r0")
    inventory = Inventory()
    for index in range(files):
        resource = load_text(made.replace("r0", f"r{index}"), "a").resources
        inventory.replace_file(f"f{index}", resource)
    took = []
    for _ in range(100):
        begun = time.process_time()
        assert inventory.replace_file("f0", [two]).updated
        assert inventory.replace_file("f0", [one]).updated
        took.append(time.process_time() - begun)
    assert min(took) / 2 < 0.002
