"""Codecs in libraries of their own, behind the C ABI: what loads, and what is told if not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.codec_library import LibraryUnusable, look_at
from metaprotocol.engine import (
    Codec,
    Config,
    ConfigInvalid,
    DecodeError,
    Direction,
    LocalReply,
    Message,
    MessageKind,
)

from tests.python.external.building import PAGE, STREAMS, library, page
from tests.testkit import streams

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

LEAST = 80  # bytes of the oldest table: all up to and including `reply`


@pytest.fixture(scope="module")
def page_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    return library(tmp_path_factory.mktemp("page"), PAGE.read_text())


def external(path: str, options: str = "", name: str = "") -> Codec:
    return Codec(name, options, library=path)


def test_a_library_is_a_codec_like_any_other(page_library: str) -> None:
    codec = external(page_library)
    assert codec.traits["name"] == "page"
    assert codec.traits["metadata_keys"] == ["method"]
    message = codec.decode(Direction.REQUEST, page(b"get"))
    assert isinstance(message, Message)
    assert (message.id, message.metadata) == (7, [(b"method", b"get")])
    assert codec.encode(Direction.REQUEST, page(b"get"), id=9) == page(b"get", 9)
    reply = codec.reply(page(b"get"), LocalReply.NO_ROUTE, "nothing")
    assert reply == page(b"no_route: nothing", body=b"", kind=b"R")
    beat = page(b"", kind=b"H", body=b"")
    assert codec.heartbeat_reply(Direction.REQUEST, beat) == page(b"", kind=b"A", body=b"")
    whole = page(b"get") + page(b"put", 8)
    for direction in (Direction.REQUEST, Direction.RESPONSE):
        assert codec.check(direction, whole)[:2] == (None, 2)
        for at in range(len(whole)):
            for byte in (0, 0x7F, 0x80, 0xFF):
                broken = whole[:at] + bytes([byte]) + whole[at + 1 :]
                assert codec.check(direction, broken)[0] is None


def test_a_protocol_is_called_as_its_configuration_calls_it(page_library: str) -> None:
    assert external(page_library, name="pages").traits["name"] == "pages"


def test_two_builds_of_one_codec_stand_side_by_side(tmp_path: Path) -> None:
    """The class has external linkage, and what is static in inline functions of such is one for all
    libraries of a process: nothing of that may tell builds from one another."""
    text = PAGE.read_text()
    one = external(library(tmp_path, text, "one"))
    other = external(
        library(
            tmp_path,
            text.replace('"method"', '"name"').replace("return {kHead};", "return {kHead - 9};"),
            "two",
        )
    )
    assert one.traits["metadata_keys"] == ["method"]
    assert other.traits["metadata_keys"] == ["name"]
    assert one.encode(Direction.REQUEST, page(b"get"), id=7) == page(b"get")
    assert len(other.encode(Direction.REQUEST, page(b"get"), id=7)) == 9 + len(page(b"get"))


def config(**protocol: object) -> str:
    return json.dumps({"name": "f", "protocol": protocol, "route_tables": [{"name": "t"}]})


def test_a_configuration_names_a_library(page_library: str) -> None:
    Config(config(codec="page", library=page_library))
    for protocol, says in (
        ({"codec": "dubbo", "library": page_library}, "protocol.codec: .*is a codec of this build"),
        ({"codec": "page", "library": "page.so"}, "protocol.library: .*must be an absolute path"),
        ({"codec": "page", "library": "/nowhere.so"}, "protocol.library: .*cannot be loaded: "),
        (
            {"codec": "page", "library": page_library, "options": {"a": 1}},
            "protocol.options: .*page has no options",
        ),
        (
            {"codec": "page", "library": page_library, "declaration": {"framing": {}}},
            "protocol.library: .*cannot be together with a declaration",
        ),
    ):
        with pytest.raises(ConfigInvalid, match=says):
            Config(config(**protocol))


# A library by hand, as a C program would have it. CHANGE, DECODE, ENCODE and GLOBAL are replaced.
TABLE = """
#include <cstdlib>
#include "metaprotocol/codec.h"
GLOBAL
static void* Create(metaprotocol_bytes, const metaprotocol_sink*) { return (void*)1; }
static void Decode(void*, void*, int32_t, metaprotocol_bytes bytes,
                   const metaprotocol_decode_options*, metaprotocol_message* message,
                   const metaprotocol_metadata* metadata, metaprotocol_result* result) {
  (void)bytes; (void)message; (void)metadata; (void)result;
  DECODE
}
static int32_t Encode(void*, int32_t, const metaprotocol_message*, metaprotocol_bytes bytes,
                      const metaprotocol_encode_options*, const metaprotocol_sink* out,
                      metaprotocol_encoded* encoded) {
  (void)bytes; (void)out; (void)encoded;
  ENCODE
  return 1;
}
static int32_t Reply(void*, const metaprotocol_reply_context*, const char*, metaprotocol_bytes,
                     const metaprotocol_sink*) { return 0; }
extern "C" const metaprotocol_codec_table* metaprotocol_codec(void) {
  static metaprotocol_codec_table table = {};
  static const char* keys[300] = {"one", "two"};
  (void)keys;
  table.abi = METAPROTOCOL_CODEC_ABI;
  table.size = sizeof table;
  table.name = "small";
  table.create = Create;
  table.decode = Decode;
  table.encode = Encode;
  table.reply = Reply;
  CHANGE
  return &table;
}
"""
WHOLE = "message->length = bytes.size; result->status = METAPROTOCOL_MESSAGE;"


def table(**parts: str) -> str:
    text = TABLE
    for part in ("GLOBAL", "CHANGE", "DECODE", "ENCODE"):
        text = text.replace(part, parts.get(part.lower(), ""))
    return text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("table.abi = 2;", "is made for version 2 of the interface; this is 1"),
        (f"table.size = {LEAST - 8};", f"has a table of {LEAST - 8} bytes; the least is {LEAST}"),
        ("table.decode = nullptr;", "lacks the function decode"),
        ("table.encode = nullptr;", "lacks the function encode"),
        ("table.reply = nullptr;", "lacks the function reply"),
        ("table.create = nullptr;", "lacks the function create"),
        ("table.delete_state = [](void*, void*) {};", "without the other"),
        ("table.name = nullptr;", "is a codec without a name"),
        ('table.name = "a\\nb";', "is a codec whose name is not of printable"),
        ("table.id_bits = 16;", "has ids of 16 bits; 0, 32 and 64 are possible"),
        ("table.traits = METAPROTOCOL_MULTIPLEXED;", "is multiplexed without ids"),
        ("table.traits = METAPROTOCOL_STREAMS;", "has streams without ids"),
        ("table.traits = 1u << 20;", "has traits that this build does not know: 1048576"),
        ("table.key_count = 3;", "has no keys where it counts some"),
        ("table.keys = keys; table.key_count = 3;", "has a key without a name"),
        ("table.keys = keys; table.key_count = 300;", "has 300 keys; the most is 256"),
        ("keys[1] = keys[0]; table.keys = keys; table.key_count = 2;", "has the key one twice"),
        (
            'keys[0] = "connection.sni"; table.keys = keys; table.key_count = 1;',
            "has the key connection.sni; connection",
        ),
        ("return nullptr;", "returns no table"),
        (
            "table.create = [](metaprotocol_bytes, const metaprotocol_sink*) -> void* {"
            " return nullptr; };",
            "refuses its options without a reason",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path: Path, change: str, says: str) -> None:
    made = library(tmp_path, table(change=change))
    with pytest.raises(ValueError, match=says):
        external(made)


def test_what_is_no_library_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be loaded: .*No such file"):
        external("/nowhere/codec.so")
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(ValueError, match="cannot be loaded: "):
        external(str(text))
    other = library(tmp_path, "int other() { return 1; }")
    with pytest.raises(ValueError, match="exports no function metaprotocol_codec"):
        external(other)
    missing = table(**{"global": "void missing();", "decode": "missing();"})
    with pytest.raises(ValueError, match=r"cannot be loaded: .*undefined symbol: .*missing"):
        external(library(tmp_path, missing, "missing"))


def test_a_library_that_was_mended_loads_from_the_same_path(tmp_path: Path) -> None:
    made = library(tmp_path, table(change="return nullptr;"))
    with pytest.raises(ValueError, match="returns no table"):
        external(made)
    Path(made).unlink()  # a new file: never write into one that is loaded
    assert external(library(tmp_path, table())).traits["name"] == "small"


def test_an_older_table_lacks_what_came_later(tmp_path: Path) -> None:
    """It ends behind `reply`; what lies behind that is no part of it, nor is half a pointer."""
    for size in (LEAST, LEAST + 4):
        change = (
            f"table.size = {size};"
            "table.destroy = [](void*) { std::abort(); };"
            "table.ping = [](void*, uint64_t, const metaprotocol_sink*) -> int32_t {"
            " std::abort(); };"
        )
        codec = external(library(tmp_path, table(change=change, decode=WHOLE), f"older{size}"))
        assert isinstance(codec.decode(Direction.REQUEST, b"x"), Message)
        assert codec.heartbeat_reply(Direction.REQUEST, b"x") is None
        assert codec.check(Direction.REQUEST, b"x")[0] is None, "its ping is not called"
        del codec  # nor is its destroy


def test_a_table_of_before_there_were_streams_has_none(tmp_path: Path) -> None:
    """What lies behind its end is not called, and a kind that it could not know is an error."""
    change = (
        "table.id_bits = 32; table.size = offsetof(metaprotocol_codec_table, reset_stream);"
        "table.grant_window = [](void*, const metaprotocol_reply_context*, int32_t, uint64_t,"
        " const metaprotocol_sink*) -> int32_t { std::abort(); };"
    )
    decode = f"{WHOLE} if (bytes.data[0] == 'S') message->kind = METAPROTOCOL_KIND_STREAM_OPEN;"
    codec = external(library(tmp_path, table(change=change, decode=decode)))
    assert isinstance(codec.decode(Direction.REQUEST, b"x"), Message)
    with pytest.raises(DecodeError, match="unknown kind"):
        codec.decode(Direction.REQUEST, b"S")


def test_streams_keep_the_rules(tmp_path: Path) -> None:
    codec = Codec("streams", library=library(tmp_path, STREAMS.read_text()))
    for kind in "QSDLFZW":
        data = streams.Message(kind, 7, b"12", keys="a=b").encode()
        rule, messages, _ = codec.check(Direction.REQUEST, data)
        assert (rule, messages) == (None, 1), kind
        seen = codec.decode(Direction.REQUEST, data)
        assert isinstance(seen, Message)
        assert (seen.kind == MessageKind.STREAM_OPEN) == (kind == "S")
        assert seen.metadata == [(b"a", b"b")]


def test_a_newer_table_has_what_is_not_called(tmp_path: Path) -> None:
    text = table(change="table.size = sizeof room;", decode=WHOLE).replace(
        "static metaprotocol_codec_table table = {};",
        "static struct { metaprotocol_codec_table old; void* more[4]; } room = {};"
        "metaprotocol_codec_table& table = room.old;",
    )
    codec = external(library(tmp_path, text))
    assert isinstance(codec.decode(Direction.REQUEST, b"x"), Message)


def test_a_library_sees_how_large_the_structs_are_that_it_is_given(tmp_path: Path) -> None:
    """By which one that was made for a newer interface knows where to stop."""
    decode = f"""
      struct Newer {{ metaprotocol_message known; uint64_t later; }};
      {WHOLE}
      if (message->size >= sizeof(Newer)) reinterpret_cast<Newer*>(message)->later = 1;
      message->id = message->size == sizeof *message && result->size == sizeof *result &&
                    metadata->size == sizeof *metadata;
    """
    made = library(tmp_path, table(change="table.id_bits = 32;", decode=decode))
    message = external(made).decode(Direction.REQUEST, b"x")
    assert isinstance(message, Message)
    assert message.id == 1


@pytest.mark.parametrize(
    ("decode", "says"),
    [
        ("", "broken"),
        ("result->status = METAPROTOCOL_NEED_MORE; result->need = 1;", "asks for no more than"),
        ("result->status = METAPROTOCOL_NEED_MORE; result->need = ~0ull;", "over the size limit"),
        ("result->status = METAPROTOCOL_MESSAGE;", "cannot be so long"),
        (WHOLE + "message->length = 99;", "cannot be so long"),
        (WHOLE + "message->length = ~0ull;", "cannot be so long"),
        (WHOLE + "message->kind = 77;", "unknown kind"),
        (WHOLE + "message->status = 3;", "unknown kind or status"),
        (WHOLE + "message->id = 1;", "an id with more bits"),
        ("result->status = 99; message->length = 1;", "broken"),
        ('result->error = "of its own";', "of its own"),
    ],
)
def test_what_a_codec_must_not_answer_is_an_error_of_its_protocol(
    tmp_path: Path, decode: str, says: str
) -> None:
    made = library(tmp_path, table(decode=decode))
    with pytest.raises(ValueError, match=says):
        external(made).decode(Direction.REQUEST, b"abc")


def test_metadata_that_are_no_views_of_the_message_are_copied(tmp_path: Path) -> None:
    decode = f"""
      {WHOLE}
      char here[] = "here", name[] = "name";
      metadata->set(metadata->context, 0, {{here, 4}});
      metadata->set(metadata->context, 1, {{nullptr, 1000}});
      metadata->set(metadata->context, 2, {{here, 4}});
      metadata->set_named(metadata->context, {{name, 4}}, {{here, 4}});
      message->reply_name = {{bytes.data + 1, bytes.size}};
      here[0] = name[0] = 'X';
    """
    made = library(tmp_path, table(change="table.keys = keys; table.key_count = 2;", decode=decode))
    message = external(made).decode(Direction.REQUEST, b"abc")
    assert isinstance(message, Message)
    assert message.metadata == [(b"one", b"here"), (b"two", b""), (b"name", b"here")]


@pytest.mark.parametrize(
    "encode",
    [
        "return 0;",
        "encoded->head = bytes.size + 1;",
        "encoded->head = ~0ull;",
        "encoded->tail_size = 9;",
        "encoded->head = bytes.size; encoded->tail_size = 1;",
        'for (int i = 0; i < 5000000; ++i) out->append(out->context, "x", 1);',
        "out->append(out->context, bytes.data, ~0ull);",
    ],
)
def test_an_encoding_that_cannot_be_goes_nowhere(tmp_path: Path, encode: str) -> None:
    """Above all not as it came: its sender's id may be another's on that connection."""
    made = library(tmp_path, table(decode=WHOLE, encode=encode))
    assert external(made).encode(Direction.REQUEST, b"abc") == b""


def test_a_class_can_refuse_what_is_required(tmp_path: Path) -> None:
    text = PAGE.read_text().replace(
        "    out.append(bytes.substr(0, 5));",
        """
        for (const auto& op : options.mutations) {
          if (op.required) return {.impossible = true};
        }
        out.append(bytes.substr(0, 5));
        """,
    )
    codec = external(library(tmp_path, text))
    mutation = [("set", "user", "ann")]
    assert codec.encode(Direction.REQUEST, page(b"get"), mutation=mutation) == page(b"get")
    refused = codec.encode(Direction.REQUEST, page(b"get"), mutation=mutation, required=True)
    assert refused == b""


def test_an_encoding_may_replace_the_tail(tmp_path: Path) -> None:
    encode = """
      out->append(out->context, "A", 1);
      out->append(out->context, nullptr, 5);
      encoded->head = 1; encoded->tail_size = 1; encoded->tail[0] = 'Z';
    """
    made = library(tmp_path, table(decode=WHOLE, encode=encode))
    assert external(made).encode(Direction.REQUEST, b"abcd") == b"AbcZ"


def test_exceptions_do_not_leave_a_library(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for before in ("if (bytes.size() < kHead)", "out.append(bytes.substr(0, 5));"):
        assert before in text
        text = text.replace(before, 'if (bytes.find("throw") != bytes.npos) throw 1;\n' + before)
    text = text.replace(
        "out += Answer('R', request.id",
        "if (text == \"throw\") throw 1;\nout += Answer('R', request.id",
    )
    codec = external(library(tmp_path, text))
    with pytest.raises(ValueError, match="the codec has thrown an exception"):
        codec.decode(Direction.REQUEST, page(b"throw"))
    assert codec.reply(page(b"get"), LocalReply.NO_ROUTE, "throw") is None


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"global": "int at_load = (std::abort(), 1);"}, "ends the process .*: SIGABRT"),
        ({"change": "*(volatile int*)8 = 1;"}, "ends the process that loads it: SIGSEGV"),
        ({"change": "exit(3);"}, "ends the process that loads it, with 3"),
        ({"change": "exit(0);"}, "ends the process that loads it, with 0"),
        ({"change": "table.abi = 9;"}, "is made for version 9"),
    ],
)
def test_a_library_is_looked_at_where_its_crash_costs_nobody_else(
    tmp_path: Path, parts: dict[str, str], says: str
) -> None:
    made = library(tmp_path, table(**parts))
    with pytest.raises(LibraryUnusable, match=says) as raised:
        look_at(made)
    assert raised.value.crashed == says.startswith("ends")


def test_a_library_that_writes_while_it_is_loaded_is_understood(tmp_path: Path) -> None:
    noisy = '#include <cstdio>\nstatic int at_load = printf("{} hello");'
    assert look_at(library(tmp_path, table(**{"global": noisy}))).name == "small"


def test_a_library_is_looked_at_again_when_it_has_changed(tmp_path: Path) -> None:
    assert look_at(library(tmp_path, table())).name == "small"
    (tmp_path / "codec.so").unlink()
    with pytest.raises(LibraryUnusable, match="No such file"):
        look_at(str(tmp_path / "codec.so"))
    library(tmp_path, table(change='table.name = "other";'))
    assert look_at(str(tmp_path / "codec.so")).name == "other"


@pytest.mark.parametrize("header", ["codec.h", "filter.h"])
def test_the_headers_are_plain_c(tmp_path: Path, header: str) -> None:
    source = tmp_path / "plain.c"
    source.write_text(f'#include "metaprotocol/{header}"\nint main(void) {{ return 0; }}\n')
    command = ["gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run(
        [*command, f"-I{metaprotocol.include()}", str(source)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
