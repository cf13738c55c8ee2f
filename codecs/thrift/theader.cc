#include "codecs/thrift/theader.h"

#include "codecs/thrift/header_parts.h"
#include "codecs/thrift/wire.h"
#include "src/codec/varint.h"

namespace metaprotocol::thrift {
namespace {

constexpr uint16_t kTHeaderMagic = 0x0FFF;

constexpr uint32_t kTHeaderBinary = 0;
constexpr uint32_t kTHeaderCompact = 2;

constexpr uint32_t kTransformZlib = 1;

constexpr uint32_t kTHeaderPadding = 0;
constexpr uint32_t kTHeaderKeyValue = 1;
constexpr uint32_t kInfoPersistentKeyValue = 2;  // fbthrift only

// Reads what stands before the info headers.
bool ReadTHeaderPreamble(Cursor& cursor, HeaderInfo& info) {
  uint32_t protocol = 0;
  uint32_t transforms = 0;
  if (!cursor.ReadVarint32(protocol) || !cursor.ReadVarint32(transforms)) return false;
  if (protocol == kTHeaderBinary) {
    info.protocol = Protocol::kBinary;
  } else if (protocol == kTHeaderCompact) {
    info.protocol = Protocol::kCompact;
  } else {
    info.exception_type = kInvalidProtocol;
    return cursor.Fail("THeader with a protocol other than binary and compact");
  }
  if (transforms == 0) return true;
  uint32_t transform = 0;
  if (transforms == 1 && !cursor.ReadVarint32(transform)) return false;
  if (transform != kTransformZlib) {
    // Behind a transform lie the message type and the sequence id, and without them a one-way call
    // cannot be told from a call nor the reply be given back to its client.
    info.exception_type = kInvalidTransform;
    return cursor.Fail("THeader transforms other than zlib are not supported");
  }
  info.zlib = true;
  return true;
}

bool ReadTHeaderString(Cursor& cursor, std::string_view& text) {
  uint32_t length = 0;
  return cursor.ReadVarint32(length) && cursor.ReadBytes(length, text);
}

// Calls `each(key, value)` for every key/value header, in order. `tail` becomes what begins with
// the first info block that is not known: opaque to the end of the header.
template <typename Each>
bool ReadInfos(Bytes bytes, Cursor& cursor, size_t end, Bytes& tail, Each each) {
  size_t count = 0;
  while (!cursor.at_limit()) {
    const size_t start = cursor.position();
    uint32_t info = 0;
    if (!cursor.ReadVarint32(info)) return false;
    if (info == kTHeaderPadding) return true;
    if (info == kInfoPersistentKeyValue) {
      // They would hold for every later message of the upstream connection, also those of others.
      return cursor.Fail("THeader persistent headers are not supported");
    }
    if (info != kTHeaderKeyValue) {
      tail = bytes.substr(start, end - start);
      return true;
    }
    uint32_t pairs = 0;
    if (!cursor.ReadVarint32(pairs)) return false;
    for (; pairs > 0; --pairs) {
      std::string_view key;
      std::string_view value;
      if (++count > kMaxInfoHeaders) return cursor.Fail("too many THeader info headers");
      if (!ReadTHeaderString(cursor, key) || !ReadTHeaderString(cursor, value)) return false;
      each(key, value);
    }
  }
  return true;
}

void AppendTHeaderString(std::string_view text, std::string& out) {
  AppendVarint(static_cast<uint32_t>(text.size()), out);
  out += text;
}

}  // namespace

DecodeResult ReadHeader(Bytes bytes, size_t frame_end, HeaderInfo& info) {
  if (frame_end < kHeaderFixedBytes) return DecodeResult::Error("THeader frame too short");
  if (bytes.size() >= kHeaderSizeOffset) info.id = LoadBe32(bytes.data() + kHeaderIdOffset);
  if (bytes.size() < kHeaderFixedBytes) return DecodeResult::NeedMore(kHeaderFixedBytes);
  const size_t end = HeaderEnd(bytes);
  if (end > frame_end) return DecodeResult::Error("THeader is larger than its frame");
  if (bytes.size() < end) return DecodeResult::NeedMore(end);
  Cursor cursor(bytes, kHeaderFixedBytes, end);
  if (!ReadTHeaderPreamble(cursor, info)) return cursor.failure();
  info.infos_offset = cursor.position();
  info.header_end = info.body_offset = end;
  return DecodeResult::Ok();
}

DecodeResult ReadInfoHeaders(Bytes bytes, const HeaderInfo& info, Metadata& metadata) {
  Bytes tail;
  Cursor cursor(bytes, info.infos_offset, info.header_end);
  const auto add = [&](std::string_view key, std::string_view value) {
    metadata.SetNamed(key, value);
  };
  if (!ReadInfos(bytes, cursor, info.header_end, tail, add)) return cursor.failure();
  return DecodeResult::Ok();
}

bool AppendMutatedHeader(Bytes bytes, std::span<const MutationOp> mutation, std::string& out) {
  const size_t end = HeaderEnd(bytes);
  Cursor cursor(bytes, kHeaderFixedBytes, end);
  HeaderInfo info;
  InfoPairs pairs;
  Bytes tail;
  if (!ReadTHeaderPreamble(cursor, info) ||
      !ReadInfos(bytes, cursor, end, tail,
                 [&pairs](auto key, auto value) { pairs.emplace_back(key, value); })) {
    return false;
  }
  if (!MutatePairs(mutation, kMaxInfoStringBytes, pairs)) return false;
  if (pairs.size() > kMaxInfoHeaders) return false;

  const size_t start = out.size();
  AppendVarint(info.protocol == Protocol::kBinary ? kTHeaderBinary : kTHeaderCompact, out);
  AppendVarint(0, out);
  if (!pairs.empty()) {
    AppendVarint(kTHeaderKeyValue, out);
    AppendVarint(static_cast<uint32_t>(pairs.size()), out);
    for (const auto& [key, value] : pairs) {
      AppendTHeaderString(key, out);
      AppendTHeaderString(value, out);
    }
  }
  out += tail;
  PadHeader(start, out);
  if (out.size() - start > kMaxHeaderBytes) {
    out.resize(start);
    return false;
  }
  return true;
}

void AppendPlainHeader(Protocol protocol, uint32_t id, std::string& out) {
  AppendBe16(out, kTHeaderMagic);
  AppendBe16(out, 0);  // flags
  AppendBe32(out, id);
  AppendBe16(out, 1);  // words to come
  const size_t start = out.size();
  AppendVarint(protocol == Protocol::kCompact ? kTHeaderCompact : kTHeaderBinary, out);
  AppendVarint(0, out);  // transforms
  PadHeader(start, out);
}

}  // namespace metaprotocol::thrift
