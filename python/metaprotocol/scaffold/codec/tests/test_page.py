"""What the codec makes of messages: for `ctest`, or `python -m unittest discover tests`."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from metaprotocol.engine import Codec, DecodeError, Direction, LocalReply, Message, MessageKind

HERE = Path(__file__).resolve().parents[1]
LIBRARY = os.environ.get("CODEC_LIBRARY", str(HERE / "build" / "page_codec.so"))


def vector(name: str) -> bytes:
    return (HERE / "vectors" / name).read_bytes()


class PageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.codec = Codec("page", library=LIBRARY)

    def decoded(self, direction: Direction, data: bytes) -> Message:
        message = self.codec.decode(direction, data)
        assert isinstance(message, Message), f"{message} bytes are needed"
        return message

    def test_a_call_tells_its_method(self) -> None:
        data = vector("request/call.bin")
        message = self.decoded(Direction.REQUEST, data)
        self.assertEqual(message.kind, MessageKind.REQUEST)
        self.assertEqual(message.id, 7)
        self.assertEqual(message.length, len(data))
        self.assertEqual(message.metadata, [(b"method", b"get")])

    def test_half_a_call_says_how_much_is_missing(self) -> None:
        data = vector("request/call.bin")
        self.assertEqual(self.codec.decode(Direction.REQUEST, data[:4]), 9)
        self.assertEqual(self.codec.decode(Direction.REQUEST, data[:-1]), len(data))

    def test_another_id_changes_nothing_else(self) -> None:
        data = vector("request/call.bin")
        changed = self.codec.encode(Direction.REQUEST, data, id=8)
        self.assertEqual(self.decoded(Direction.REQUEST, changed).id, 8)
        self.assertEqual(self.codec.encode(Direction.REQUEST, changed, id=7), data)

    def test_an_error_is_a_reply_of_the_protocol(self) -> None:
        reply = self.codec.reply(vector("request/call.bin"), LocalReply.NO_ROUTE, "nobody")
        assert reply is not None
        message = self.decoded(Direction.RESPONSE, reply)
        self.assertEqual((message.kind, message.id), (MessageKind.RESPONSE, 7))
        self.assertIn(b"no_route: nobody", reply)

    def test_what_is_not_this_protocol_is_told_at_once(self) -> None:
        with self.assertRaises(DecodeError):
            self.codec.decode(Direction.REQUEST, b"GET / HTTP/1.1\r\n")


if __name__ == "__main__":
    unittest.main()
