// The zlib transform: what streams stand for, which are none, and THeader messages in them.
#include "codecs/thrift/inflate.h"

#include <gtest/gtest.h>

#include "codecs/thrift/thrift_codec.h"
#include "tests/cpp/codecs/thrift/messages.h"
#include "tests/cpp/codecs/thrift/vectors.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using std::string_literals::operator""s;

uint32_t Adler32(const std::string& text) {
  uint32_t a = 1;
  uint32_t b = 0;
  for (const char c : text) {
    a = (a + static_cast<uint8_t>(c)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

Inflation Inflate(const std::string& stream, size_t most, std::string& out) {
  size_t cost = 0;
  return thrift::Inflate(stream, most, out, cost);
}

// As zlib does at level 0.
std::string Stored(const std::string& text) {
  std::string out = "\x78\x01";
  size_t at = 0;
  do {
    const std::string part = text.substr(at, 65535);
    at += part.size();
    const auto low = static_cast<char>(part.size() & 0xFF);
    const auto high = static_cast<char>(part.size() >> 8);
    out += {static_cast<char>(at == text.size()), low, high, static_cast<char>(~low),
            static_cast<char>(~high)};
    out += part;
  } while (at < text.size());
  return out + Be32(Adler32(text));
}

// A stream, bit by bit.
class BitWriter {
 public:
  void Code(uint32_t code, unsigned length) {  // prefix codes begin at their high end
    for (unsigned i = length; i-- > 0;) Bit(code >> i & 1);
  }
  void Number(uint32_t number, unsigned length) {
    for (unsigned i = 0; i < length; ++i) Bit(number >> i & 1);
  }
  void Block(bool last, uint32_t type) {
    Number(last ? 1 : 0, 1);
    Number(type, 2);
  }
  // The whole stream, which stands for `text`.
  std::string Of(const std::string& text) {
    while (count_ != 0) Bit(0);
    return out_ + Be32(Adler32(text));
  }

 private:
  void Bit(uint32_t bit) {
    bits_ |= bit << count_;
    if (++count_ < 8) return;
    out_ += static_cast<char>(bits_);
    bits_ = count_ = 0;
  }
  std::string out_ = "\x78\x01";
  uint32_t bits_ = 0;
  unsigned count_ = 0;
};

// `repeats` times 258 zeros, and one, in 13 bits each: nearly the most that the fixed codes can.
std::string Zeros(size_t repeats) {
  BitWriter bits;
  bits.Block(true, 1);
  bits.Code(0x30, 8);
  for (size_t i = 0; i < repeats; ++i) {
    bits.Code(0b11000101, 8);
    bits.Code(0, 5);
  }
  bits.Code(0, 7);
  return bits.Of(std::string(258 * repeats + 1, '\0'));
}

// So many blocks, and nothing in any of them: in turns with codes of their own, in as few bits as
// say them, and with the fixed ones.
std::string EmptyBlocks(size_t blocks) {
  BitWriter bits;
  for (size_t i = 0; i < blocks; ++i) {
    bits.Block(false, 2);
    bits.Number(0, 5);  // 257 literals
    bits.Number(0, 5);  // one distance
    bits.Number(14, 4);
    for (int at = 0; at < 18; ++at) bits.Number(at == 2 || at == 17 ? 1 : 0, 3);  // of 18 and of 1
    bits.Code(1, 1);
    bits.Number(138 - 11, 7);
    bits.Code(1, 1);
    bits.Number(118 - 11, 7);  // 256 that there are not
    bits.Code(0, 1);
    bits.Code(0, 1);
    bits.Code(0, 1);  // the end of the block
    bits.Block(false, 1);
    bits.Code(0, 7);
  }
  bits.Block(true, 1);
  bits.Code(0, 7);
  return bits.Of("");
}

// By zlib 1.2.13, level 9: a block with codes of its own.
const std::string kDynamic =
    "\170\332\115\320\273\015\200\000\000\002\321\125\034\300\102\300\357\072"
    "\046\166\046\026\272\177\054\271\356\272\027\230\206\363\371\276\373\172"
    "\307\101\115\067\323\234\233\113\163\155\156\315\275\171\200\230\320\360"
    "\004\120\020\005\122\060\005\124\120\005\126\160\015\327\334\011\327\160"
    "\015\327\160\015\327\160\015\327\160\003\067\160\303\203\341\006\156\340"
    "\006\156\340\006\156\340\376\047\312\226\171"s;

std::string Bottles() {
  std::string text;
  for (int i = 0; i < 40; ++i) text += std::to_string(i) + " bottles, ";
  return text;
}

TEST(InflateTest, ReadsEachKindOfBlock) {
  const std::pair<std::string, std::string> streams[] = {
      {Stored(""), ""},
      {Stored(std::string(70'000, 's')), std::string(70'000, 's')},
      {Zeros(1000), std::string(258'001, '\0')},
      {kDynamic, Bottles()},
  };
  for (const auto& [stream, text] : streams) {
    std::string out = "before";
    EXPECT_EQ(Inflate(stream, text.size(), out), Inflation::kDone);
    EXPECT_EQ(out, "before" + text);
  }
}

TEST(InflateTest, WritesNoMoreThanItMay) {
  const std::string zeros = Zeros(100'000);
  for (const size_t most : {0u, 1u, 258u, 1'000'000u}) {
    std::string out;
    EXPECT_EQ(Inflate(zeros, most, out), Inflation::kTooLarge);
    EXPECT_LE(out.size(), most);
  }
  std::string out;
  EXPECT_EQ(Inflate(Stored("12345"), 4, out), Inflation::kTooLarge);
}

// A block with codes of its own costs its reader far more than its dozen bytes.
TEST(InflateTest, TakesNoMoreBlocksOfNothingThanTheirBytesPayFor) {
  std::string out;
  EXPECT_EQ(Inflate(EmptyBlocks(64), 0, out), Inflation::kDone);
  EXPECT_EQ(Inflate(EmptyBlocks(10'000), 0, out), Inflation::kBroken);
  EXPECT_EQ(out, "");
  const std::string wire = Header("\0\1\1"s, 1, EmptyBlocks(50));
  EXPECT_GE(DecodeOnce(wire, Direction::kRequest).result.unpacked_bytes, 50 * size_t{512})
      << "they count against their sender's turn";
}

TEST(InflateTest, TakesNothingThatIsCutOrChangedOrTooLong) {
  const std::pair<std::string, std::string> streams[] = {
      {Stored("some text"), "some text"},
      {Zeros(3), std::string(775, '\0')},
      {kDynamic, Bottles()},
  };
  for (const auto& [stream, text] : streams) {
    std::string out;
    EXPECT_EQ(Inflate(stream + "x", 1 << 20, out), Inflation::kBroken);
    for (size_t n = 0; n < stream.size(); ++n) {
      EXPECT_EQ(Inflate(stream.substr(0, n), 1 << 20, out), Inflation::kBroken) << n;
      std::string changed = stream;
      changed[n] = static_cast<char>(changed[n] ^ 0x10);
      out.clear();
      // Some bits are padding, and zeros can be repeated from anywhere.
      if (Inflate(changed, 1 << 20, out) == Inflation::kDone) {
        EXPECT_EQ(out, text);
      }
    }
  }
}

std::string Compressed(const std::string& infos, uint32_t id, const std::string& message) {
  return Header(infos, id, Stored(message));
}

TEST(Zlib, MessagesSayWhatIsBehindTheTransform) {
  const std::string infos = "\0\1\1\1\1\3key\5value"s;
  const std::string wire = Compressed(infos, 5, Binary(kCall, "Orders:echo", 5));
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    const Decoded decoded = DecodeOnce(wire, direction);
    ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
    EXPECT_EQ(decoded.message.length, wire.size());
    EXPECT_EQ(decoded.message.id, 5u);
    EXPECT_EQ(decoded.message.metadata.Find("method"), "echo");
    EXPECT_EQ(decoded.message.metadata.Find("service"), "Orders");
    EXPECT_EQ(decoded.message.metadata.Find("key"), "value");
    EXPECT_EQ(EncodeWhole(decoded.message, wire, 5), wire) << "nothing changes";
    EXPECT_EQ(EncodeWhole(decoded.message, wire, 6),
              Header(Infos(0, {{"key", "value"}}), 6, Binary(kCall, "Orders:echo", 6)));
    const Mutation mutation = {{MutationOp::Kind::kSet, "key", "other"}};
    EXPECT_EQ(EncodeWhole(decoded.message, wire, 5, mutation),
              Header(Infos(0, {{"key", "other"}}), 5, Binary(kCall, "Orders:echo", 5)));
    const Mutation too_long = {{MutationOp::Kind::kSet, "key", std::string(40'000, 'x')}};
    EXPECT_EQ(EncodeWhole(decoded.message, wire, 5, too_long),
              Header(Infos(0, {{"key", "value"}}), 5, Binary(kCall, "Orders:echo", 5)));
    const Mutation required = {{MutationOp::Kind::kSet, "key", std::string(40'000, 'x'), true}};
    std::string out;
    const EncodeOptions options{.id = 5, .mutation = required};
    EXPECT_TRUE(ThriftCodec().Encode(decoded.message, wire, options, out).impossible);
    EXPECT_EQ(out, "");
  }
}

TEST(Zlib, MessagesAreWaitedFor) {
  const std::string wire = Compressed("\2\1\1"s, 5, Compact(kOneWay, "note", 300));
  DecodeOptions options;
  options.allow_partial = true;
  for (size_t n = 18; n < wire.size(); ++n) {
    const Decoded decoded = DecodeOnce(Bytes(wire).substr(0, n), Direction::kRequest, options);
    EXPECT_EQ(decoded.result.status, Status::kNeedMore);
    EXPECT_EQ(decoded.result.need, wire.size());
  }
  EXPECT_EQ(DecodeOnce(wire, Direction::kRequest, options).message.kind, MessageKind::kOneWay);
}

TEST(Zlib, OneFrameHoldsOneMessage) {
  const std::string one = Binary(kCall, "echo", 1);
  EXPECT_EQ(DecodeOnce(Compressed("\0\1\1"s, 1, one + one), Direction::kRequest).result.status,
            Status::kUndecodable);
}

// Four kinds of limits: of the frame, of what it stands for, in all and for each byte.
TEST(Zlib, MessagesThatInflateTooMuchAreRefused) {
  DecodeOptions options;
  options.max_message_bytes = 100'000;
  const auto refused = [&](const std::string& stream, size_t there) {
    const std::string wire = Header("\0\1\1"s, 1, stream);
    const Decoded decoded = DecodeOnce(Bytes(wire).substr(0, there), Direction::kRequest, options);
    EXPECT_EQ(decoded.message.length, wire.size());
    return decoded.result.status == Status::kTooLarge ? decoded.result.error : "";
  };
  constexpr std::string_view kInflates =
      "a compressed Thrift message too large, or larger than 1 MiB and a hundred times what was "
      "sent";
  EXPECT_EQ(refused(Stored(std::string(100'000, 'x')), 18), "Thrift frame too large");
  EXPECT_EQ(refused(Zeros(1000), 1 << 20), kInflates);
  options.max_message_bytes = 16 << 20;
  EXPECT_EQ(refused(Zeros(4000), 1 << 20), "") << "a MiB is taken, and here is no message in it";
  EXPECT_EQ(refused(Zeros(5000), 1 << 20), kInflates) << "158 bytes for each";
}

}  // namespace
}  // namespace metaprotocol::thrift
