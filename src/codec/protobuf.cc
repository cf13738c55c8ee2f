#include "src/codec/protobuf.h"

#include <algorithm>

namespace metaprotocol {
namespace {

constexpr size_t kMaxTagBytes = 5;

}  // namespace

bool ProtoReader::ReadVarint(uint64_t& value, size_t max_bytes) {
  value = 0;
  const size_t end = std::min(message_.size(), position_ + max_bytes);
  for (int shift = 0; position_ < end; shift += 7) {
    const auto byte = static_cast<uint8_t>(message_[position_++]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool ProtoReader::Next(ProtoField& field) {
  if (broken_ || position_ == message_.size()) return false;
  field.begin = position_;
  field.bytes = {};
  uint64_t tag = 0;
  if (!ReadVarint(tag, kMaxTagBytes) || tag > UINT32_MAX || tag < 8) return Broken();
  field.number = static_cast<uint32_t>(tag >> 3);
  field.type = static_cast<WireType>(tag & 7);
  uint64_t length = 0;
  switch (field.type) {
    case WireType::kVarint:
      if (!ReadVarint(field.value)) return Broken();
      break;
    case WireType::kFixed64:
      length = 8;
      break;
    case WireType::kFixed32:
      length = 4;
      break;
    case WireType::kLength:
      if (!ReadVarint(length)) return Broken();
      break;
    default:
      return Broken();
  }
  if (length > message_.size() - position_) return Broken();
  field.bytes = message_.substr(position_, length);
  position_ += length;
  field.end = position_;
  return true;
}

std::optional<ProtoEntry> ReadProtoEntry(Bytes entry) {
  ProtoEntry result;
  ProtoReader reader(entry);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(1, WireType::kLength)) result.key = field.bytes;
    if (field.is(2, WireType::kLength)) result.value = field.bytes;
  }
  if (reader.broken()) return std::nullopt;
  return result;
}

void AppendProtoEntry(std::string& out, uint32_t number, std::string_view key,
                      std::string_view value) {
  const size_t size =
      2 + VarintBytes(key.size()) + key.size() + VarintBytes(value.size()) + value.size();
  char head[3 * kMaxVarintBytes];
  size_t used = StoreVarint(head, ProtoTag(number, WireType::kLength));
  used += StoreVarint(head + used, size);
  head[used++] = static_cast<char>(ProtoTag(1, WireType::kLength));
  used += StoreVarint(head + used, key.size());
  out.append(head, used).append(key);
  AppendProtoBytes(out, 2, value);
}

}  // namespace metaprotocol
