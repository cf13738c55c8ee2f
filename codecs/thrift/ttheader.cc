#include "codecs/thrift/ttheader.h"

#include <utility>
#include <vector>

#include "codecs/thrift/header_parts.h"
#include "codecs/thrift/wire.h"
#include "src/codec/milliseconds.h"

namespace metaprotocol::thrift {
namespace {

constexpr uint16_t kTTHeaderMagic = 0x1000;
constexpr uint8_t kTTHeaderBinary = 0;

constexpr uint8_t kTTHeaderPadding = 0;
constexpr uint8_t kTTHeaderKeyValue = 0x01;
constexpr uint8_t kTTHeaderIntKeyValue = 0x10;
constexpr uint8_t kInfoAclToken = 0x11;

constexpr uint16_t kRpcTimeout = 12;
constexpr std::string_view kServiceName = "isn";

// What a numbered key is called as a metadata key; "" if routes have no use for it.
std::string_view NameOf(uint16_t key) {
  switch (key) {
    case 2:
      return "log_id";
    case 3:
      return "from_service";
    case 4:
      return "from_cluster";
    case 5:
      return "from_idc";
    case 6:
      return "to_service";
    case 7:
      return "to_cluster";
    case 8:
      return "to_idc";
    case 9:
      return "to_method";
    case 10:
      return "env";
    case 14:
      return "ring_hash_key";
    case 20:
      return "from_method";
    case 21:
      return "stress_tag";
    default:
      return "";
  }
}

bool ReadTTHeaderPreamble(Cursor& cursor, HeaderInfo& info) {
  uint8_t protocol = 0;
  uint8_t transforms = 0;
  if (!cursor.ReadU8(protocol) || !cursor.ReadU8(transforms)) return false;
  info.protocol = Protocol::kBinary;
  if (protocol != kTTHeaderBinary) {
    info.exception_type = kInvalidProtocol;
    return cursor.Fail("TTHeader with a payload other than Thrift's binary protocol");
  }
  if (transforms != 0) {
    info.exception_type = kInvalidTransform;
    return cursor.Fail("TTHeader transforms are not supported");
  }
  return true;
}

bool ReadTTHeaderString(Cursor& cursor, std::string_view& text) {
  uint16_t length = 0;
  return cursor.ReadBe16(length) && cursor.ReadBytes(length, text);
}

// Calls `text_key(key, value)` and `number_key(key, value)` for what is in the blocks, in order,
// and `token(block)` for those with a token, which stay what they are.
template <typename TextKey, typename NumberKey, typename Token>
bool ReadInfos(Bytes bytes, Cursor& cursor, TextKey text_key, NumberKey number_key, Token token) {
  size_t count = 0;
  while (!cursor.at_limit()) {
    const size_t begin = cursor.position();
    uint8_t block = 0;
    if (!cursor.ReadU8(block)) return false;
    if (block == kTTHeaderPadding) continue;
    std::string_view value;
    if (block == kInfoAclToken) {
      if (!ReadTTHeaderString(cursor, value)) return false;
      token(bytes.substr(begin, cursor.position() - begin));
      continue;
    }
    if (block != kTTHeaderKeyValue && block != kTTHeaderIntKeyValue) {
      return cursor.Fail("TTHeader with a block that is not known");
    }
    uint16_t pairs = 0;
    if (!cursor.ReadBe16(pairs)) return false;
    for (; pairs > 0; --pairs) {
      if (++count > kMaxInfoHeaders) return cursor.Fail("too many keys in a TTHeader");
      std::string_view text;
      uint16_t number = 0;
      const bool is_text = block == kTTHeaderKeyValue;
      if (!(is_text ? ReadTTHeaderString(cursor, text) : cursor.ReadBe16(number))) return false;
      if (!ReadTTHeaderString(cursor, value)) return false;
      if (is_text) {
        text_key(text, value);
      } else {
        number_key(number, value);
      }
    }
  }
  return true;
}

void AppendTTHeaderString(std::string_view text, std::string& out) {
  AppendBe16(out, static_cast<uint16_t>(text.size()));
  out += text;
}

}  // namespace

DecodeResult ReadTTHeader(Bytes bytes, size_t frame_end, HeaderInfo& info) {
  if (frame_end < kHeaderFixedBytes) return DecodeResult::Error("TTHeader frame too short");
  if (bytes.size() >= kHeaderSizeOffset) info.id = LoadBe32(bytes.data() + kHeaderIdOffset);
  if (bytes.size() < kHeaderFixedBytes) return DecodeResult::NeedMore(kHeaderFixedBytes);
  const size_t end = HeaderEnd(bytes);
  if (end > kHeaderFixedBytes + kMaxTTHeaderBytes) {
    return DecodeResult::Error("TTHeader is longer than its readers can count");
  }
  constexpr size_t kLength = 4;  // of a message has at least so many bytes, or is one's length
  if (end + kLength > frame_end) return DecodeResult::Error("TTHeader is larger than its frame");
  if (bytes.size() < end + kLength) return DecodeResult::NeedMore(end + kLength);
  Cursor cursor(bytes, kHeaderFixedBytes, end);
  if (!ReadTTHeaderPreamble(cursor, info)) return cursor.failure();
  info.infos_offset = cursor.position();
  info.header_end = end;
  info.body_offset = end;
  info.framed = static_cast<uint8_t>(bytes[end]) < 0x80;  // no message in binary begins so
  if (!info.framed) return DecodeResult::Ok();
  info.body_offset = end + kLength;
  if (LoadBe32(bytes.data() + end) != frame_end - info.body_offset) {
    return DecodeResult::Error("a frame in a TTHeader frame does not end with it");
  }
  return DecodeResult::Ok();
}

DecodeResult ReadTTHeaderInfos(Bytes bytes, const HeaderInfo& info, Metadata& metadata,
                               TTHeaderInfos& infos) {
  infos = {};
  Cursor cursor(bytes, info.infos_offset, info.header_end);
  const auto text_key = [&](std::string_view key, std::string_view value) {
    if (key == kServiceName) infos.service = value;
    metadata.SetNamed(key, value);
  };
  const auto number_key = [&](uint16_t key, std::string_view value) {
    if (key == kRpcTimeout) infos.timeout_us = UsFromMilliseconds(value);
    if (const std::string_view name = NameOf(key); !name.empty()) metadata.SetNamed(name, value);
  };
  if (!ReadInfos(bytes, cursor, text_key, number_key, [](Bytes) {})) return cursor.failure();
  return DecodeResult::Ok();
}

bool AppendMutatedTTHeader(Bytes bytes, std::span<const MutationOp> mutation, uint64_t timeout_ms,
                           std::string& out) {
  Cursor cursor(bytes, kHeaderFixedBytes, HeaderEnd(bytes));
  HeaderInfo info;
  InfoPairs pairs;
  std::vector<std::pair<uint16_t, std::string_view>> numbered;
  std::string tokens;
  const std::string timeout = std::to_string(timeout_ms);
  const auto number_key = [&](uint16_t key, std::string_view value) {
    numbered.emplace_back(key, key == kRpcTimeout && timeout_ms != 0 ? timeout : value);
  };
  if (!ReadTTHeaderPreamble(cursor, info) ||
      !ReadInfos(
          bytes, cursor, [&](auto key, auto value) { pairs.emplace_back(key, value); }, number_key,
          [&](Bytes block) { tokens += block; })) {
    return false;
  }
  if (!MutatePairs(mutation, UINT16_MAX, pairs)) return false;
  if (pairs.size() + numbered.size() > kMaxInfoHeaders) return false;

  const size_t start = out.size();
  out += static_cast<char>(kTTHeaderBinary);
  out += '\0';  // transforms
  if (!pairs.empty()) {
    out += static_cast<char>(kTTHeaderKeyValue);
    AppendBe16(out, static_cast<uint16_t>(pairs.size()));
    for (const auto& [key, value] : pairs) {
      AppendTTHeaderString(key, out);
      AppendTTHeaderString(value, out);
    }
  }
  if (!numbered.empty()) {
    out += static_cast<char>(kTTHeaderIntKeyValue);
    AppendBe16(out, static_cast<uint16_t>(numbered.size()));
    for (const auto& [key, value] : numbered) {
      AppendBe16(out, key);
      AppendTTHeaderString(value, out);
    }
  }
  out += tokens;
  PadHeader(start, out);
  if (out.size() - start > kMaxTTHeaderBytes) {
    out.resize(start);
    return false;
  }
  return true;
}

void AppendPlainTTHeader(uint32_t id, std::string& out) {
  AppendBe16(out, kTTHeaderMagic);
  AppendBe16(out, 0);  // flags
  AppendBe32(out, id);
  AppendBe16(out, 1);         // words to come
  out.append("\0\0\0\0", 4);  // binary, no transforms, padding
}

}  // namespace metaprotocol::thrift
