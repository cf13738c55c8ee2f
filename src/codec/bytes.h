// Big-endian reads and writes over byte views: the only way codecs touch raw memory.
//
// `Bytes` is a view of wire bytes. It is a std::string_view because metadata values, which are
// slices of those bytes, are compared as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace metaprotocol {

using Bytes = std::string_view;

// Unchecked loads: the caller has proved that `p` points at enough bytes.
inline uint16_t LoadBe16(const char* p) {
  const auto* u = reinterpret_cast<const unsigned char*>(p);
  return static_cast<uint16_t>(u[0] << 8 | u[1]);
}
inline uint32_t LoadBe32(const char* p) {
  const auto* u = reinterpret_cast<const unsigned char*>(p);
  return uint32_t{u[0]} << 24 | uint32_t{u[1]} << 16 | uint32_t{u[2]} << 8 | u[3];
}
inline uint64_t LoadBe64(const char* p) { return uint64_t{LoadBe32(p)} << 32 | LoadBe32(p + 4); }

inline void StoreBe16(char* p, uint16_t v) {
  p[0] = static_cast<char>(v >> 8);
  p[1] = static_cast<char>(v);
}
inline void StoreBe32(char* p, uint32_t v) {
  StoreBe16(p, static_cast<uint16_t>(v >> 16));
  StoreBe16(p + 2, static_cast<uint16_t>(v));
}
inline void StoreBe64(char* p, uint64_t v) {
  StoreBe32(p, static_cast<uint32_t>(v >> 32));
  StoreBe32(p + 4, static_cast<uint32_t>(v));
}

inline void AppendBe16(std::string& out, uint16_t v) {
  char b[2];
  StoreBe16(b, v);
  out.append(b, sizeof b);
}
inline void AppendBe32(std::string& out, uint32_t v) {
  char b[4];
  StoreBe32(b, v);
  out.append(b, sizeof b);
}
inline void AppendBe64(std::string& out, uint64_t v) {
  char b[8];
  StoreBe64(b, v);
  out.append(b, sizeof b);
}

// A cursor over bytes that cannot be moved past their end. Every read says whether there was
// enough; after a failed read the cursor has not moved.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  Bytes rest() const { return bytes_.substr(position_); }

  bool ReadU8(uint8_t& v) {
    if (remaining() < 1) return false;
    v = static_cast<uint8_t>(bytes_[position_++]);
    return true;
  }
  bool PeekU8(uint8_t& v) const {
    if (remaining() < 1) return false;
    v = static_cast<uint8_t>(bytes_[position_]);
    return true;
  }
  bool ReadBe16(uint16_t& v) {
    if (remaining() < 2) return false;
    v = LoadBe16(bytes_.data() + position_);
    position_ += 2;
    return true;
  }
  bool ReadBe32(uint32_t& v) {
    if (remaining() < 4) return false;
    v = LoadBe32(bytes_.data() + position_);
    position_ += 4;
    return true;
  }
  bool ReadBe64(uint64_t& v) {
    if (remaining() < 8) return false;
    v = LoadBe64(bytes_.data() + position_);
    position_ += 8;
    return true;
  }
  bool ReadBytes(size_t n, Bytes& v) {
    if (remaining() < n) return false;
    v = bytes_.substr(position_, n);
    position_ += n;
    return true;
  }
  bool Skip(size_t n) {
    if (remaining() < n) return false;
    position_ += n;
    return true;
  }

 private:
  Bytes bytes_;
  size_t position_ = 0;
};

}  // namespace metaprotocol
