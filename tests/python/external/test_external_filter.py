"""Filters in libraries of their own: how they are loaded, refused, and tried without an Envoy. What
a hostile one can do while it runs is in tests/cpp/filter/library_filter_test.cc."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from metaprotocol.codec_library import LibraryUnusable, look_at_filter
from metaprotocol.engine import ConfigInvalid, ConnectionInfo
from metaprotocol.engine.trial import FilterTrial, Reply

from tests.python.external.building import PAGE, WARDEN, library

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

ROOT = Path(__file__).resolve().parents[3]


# A library by hand, as a C program would have it. CHANGE and GLOBAL are replaced.
TABLE = """
#include <cstddef>
#include <cstdlib>
#include "metaprotocol/filter.h"
GLOBAL
extern "C" const metaprotocol_filter_table* metaprotocol_filter(void) {
  static metaprotocol_filter_table table = {};
  static const metaprotocol_filter_host* host = nullptr;
  static int32_t key = 0;
  table.abi = METAPROTOCOL_FILTER_ABI;
  table.size = sizeof table;
  table.name = "small";
  table.create = [](metaprotocol_bytes, const metaprotocol_filter_host* given, void* setup,
                    const metaprotocol_sink*) -> void* {
    host = given;
    key = host->request_key(setup, {"user", 4});
    return &table;
  };
  table.destroy = [](void*) {};
  table.on_request = [](void*, void* request) -> int32_t {
    metaprotocol_bytes value;
    if (host->get(request, key, 0, &value) != 0) return METAPROTOCOL_CONTINUE;
    host->answer(request, "denied", {"no user", 7});
    return METAPROTOCOL_ANSWER;
  };
  CHANGE
  return &table;
}
"""
LEAST = 48


def table(change: str = "", outside: str = "") -> str:
    return TABLE.replace("GLOBAL", outside).replace("CHANGE", change)


@pytest.fixture(scope="module")
def warden(tmp_path_factory: pytest.TempPathFactory) -> str:
    return library(tmp_path_factory.mktemp("warden"), WARDEN.read_text())


def test_requests_pass_or_get_an_answer(warden: str) -> None:
    trial = FilterTrial(warden)
    passed = trial.call(
        {"method": "get", "tenant": "acme"}, reply=Reply({"a": "b"}, "exception", b"it fails")
    )
    assert passed.sent == {"method": "get", "tenant": "acme", "x-warden": "let acme pass"}
    assert passed.route == "default"
    assert passed.reply == Reply({"a": "b"}, "exception", b"it fails")
    assert passed.answer is None
    refused = trial.call({"method": "get"})
    assert (refused.sent, refused.route, refused.answer) == (None, None, "denied: no tenant")
    told = trial.call({"tenant": "acme"}, one_way=True)
    assert told.sent is not None
    assert told.reply is None
    assert trial.call({}, one_way=True) == type(told)(None, None, None, 0.0, {"denied": 1})


def test_options_that_nobody_asks_for_are_told_with_those_there_are(warden: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"library\.options: .*no option kye; there are key"):
        FilterTrial(warden, {"kye": "user"})
    with pytest.raises(ConfigInvalid, match=r"library\.options: .*\"\" cannot be a metadata key"):
        FilterTrial(warden, {"key": ""})
    assert FilterTrial(warden, {"key": "connection.sni"}).call({}).answer == (
        "denied: no connection.sni"
    )
    client = ConnectionInfo()
    client.sni = "shop.example"
    assert FilterTrial(warden, {"key": "connection.sni"}).call({}, client=client).sent is not None
    with pytest.raises(ConfigInvalid, match=r'"connection\.nothing" cannot be a metadata key'):
        FilterTrial(warden, {"key": "connection.nothing"})


def test_a_table_by_hand_is_as_good(tmp_path: Path) -> None:
    trial = FilterTrial(library(tmp_path, table()))
    assert trial.call({"user": "eve"}).sent == {"user": "eve"}
    assert trial.call({}).answer == "denied: no user"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("table.abi = 2;", "is made for version 2 of the interface; this is 1"),
        (f"table.size = {LEAST - 8};", f"has a table of {LEAST - 8} bytes; the least is {LEAST}"),
        (f"table.size = {LEAST};", "has none of the functions before_route, on_request, on_resp"),
        ("table.create = nullptr;", "lacks the function create"),
        ("table.destroy = nullptr;", "lacks the function destroy"),
        ("table.on_request = nullptr;", "has none of the functions before_route, on_request"),
        ("table.name = nullptr;", "is a filter without a name"),
        ('table.name = "a\\nb";', "is a filter whose name is not of printable"),
        ("table.traits = 1u << 20;", "has traits that this build does not know: 1048576"),
        ("table.traits = METAPROTOCOL_WAITS;", "waits, but lacks the function on_request or on_ti"),
        ("return nullptr;", "returns no table"),
        (
            "table.create = [](metaprotocol_bytes, const metaprotocol_filter_host*, void*,"
            " const metaprotocol_sink*) -> void* { return nullptr; };",
            r"options: .*refuses its options without a reason",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path: Path, change: str, says: str) -> None:
    made = library(tmp_path, table(change))
    with pytest.raises(ConfigInvalid, match=says) as raised:
        FilterTrial(made)
    assert str(raised.value).startswith("route_tables[0].filters[0].library.")


def test_what_is_no_filter_is_told_by_its_path(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    codec = library(tmp_path, PAGE.read_text(), "page")
    # For another machine: the ELF header says which.
    foreign = tmp_path / "foreign.so"
    content = bytearray(Path(codec).read_bytes())
    content[18:20] = (0xF3).to_bytes(2, "little")  # EM_RISCV
    foreign.write_bytes(content)
    for path, says in (
        ("/nowhere/filter.so", "cannot be loaded: .*No such file"),
        (str(text), "cannot be loaded: "),
        (str(foreign), "cannot be loaded: "),
        (codec, "exports no function metaprotocol_filter"),
    ):
        with pytest.raises(ConfigInvalid, match=rf"library\.path: \".*: {says}"):
            FilterTrial(path)


def test_an_older_table_lacks_what_came_later(tmp_path: Path) -> None:
    """What lies behind its size is no part of it, nor is half a pointer."""
    for extra in (0, 4):
        change = (
            f"table.size = offsetof(metaprotocol_filter_table, on_timer) + {extra};"
            "table.on_timer = [](void*, void*) -> int32_t { std::abort(); };"
            "table.on_end = [](void*, void*, const metaprotocol_end_info*) { std::abort(); };"
        )
        made = library(tmp_path, table(change), f"older{extra}")
        assert FilterTrial(made).call({"user": "eve"}).sent is not None


def test_a_newer_table_has_what_is_not_called(tmp_path: Path) -> None:
    text = table("table.size = sizeof room;").replace(
        "static metaprotocol_filter_table table = {};",
        "static struct { metaprotocol_filter_table old; void* more[4]; } room = {};"
        "static metaprotocol_filter_table& table = room.old;",
    )
    assert FilterTrial(library(tmp_path, text)).call({"user": "eve"}).sent is not None


def test_a_library_sees_how_much_the_host_can_do(tmp_path: Path) -> None:
    change = """
      table.create = [](metaprotocol_bytes, const metaprotocol_filter_host* given, void*,
                        const metaprotocol_sink*) -> void* {
        host = given;
        return given->size == sizeof *given ? &table : nullptr;
      };
      table.on_end = [](void*, void*, const metaprotocol_end_info* end) {
        if (end->size != sizeof *end) std::abort();
      };
      table.on_request = [](void*, void* request) -> int32_t {
        metaprotocol_request_info info;
        host->info(request, &info);
        return info.size == sizeof info ? METAPROTOCOL_CONTINUE : -1;
      };
    """
    assert FilterTrial(library(tmp_path, table(change))).call({}).sent is not None


@pytest.mark.parametrize(
    ("outside", "change", "says"),
    [
        ("int at_load = (std::abort(), 1);", "", "ends the process .*: SIGABRT"),
        ("", "*(volatile int*)8 = 1;", "ends the process that loads it: SIGSEGV"),
        ("", "table.abi = 9;", "is made for version 9"),
    ],
)
def test_a_filter_is_looked_at_where_its_crash_costs_nobody_else(
    tmp_path: Path, outside: str, change: str, says: str
) -> None:
    made = library(tmp_path, table(change, outside))
    with pytest.raises(LibraryUnusable, match=says) as raised:
        look_at_filter(made)
    assert raised.value.crashed == says.startswith("ends")
