#include "codecs/thrift/inflate.h"

#include <algorithm>
#include <array>
#include <span>

namespace metaprotocol::thrift {
namespace {

constexpr unsigned kLongestCode = 15;
constexpr size_t kLiterals = 288;  // with those that no stream may use
constexpr size_t kDistances = 30;
constexpr size_t kEndOfBlock = 256;
// Of blocks with codes of their own, which can be said in a dozen bytes: so many, and one for so
// many bytes of the stream. Compressors make one of thousands. Each costs as much as so many bytes.
constexpr size_t kBlocksFreely = 64;
constexpr size_t kBytesForEachBlock = 64;
constexpr size_t kCostOfBlock = 512;

// The bits of a stream, the lowest of each byte first (RFC 1951, 3.1.1).
class BitReader {
 public:
  explicit BitReader(Bytes bytes) : bytes_(bytes) {}

  // The next bits, as many as there are, and zeros behind them.
  uint32_t Peek() {
    while (count_ <= 56 && next_ < bytes_.size()) {
      bits_ |= uint64_t{static_cast<uint8_t>(bytes_[next_++])} << count_;
      count_ += 8;
    }
    return static_cast<uint32_t>(bits_);
  }
  bool Skip(unsigned n) {
    if (n > count_) return false;
    bits_ >>= n;
    count_ -= n;
    return true;
  }
  // At most 16 bits.
  bool Take(unsigned n, uint32_t& value) {
    value = Peek() & ((uint32_t{1} << n) - 1);
    return Skip(n);
  }
  // Whole bytes, from the next one on.
  bool TakeBytes(size_t n, Bytes& value) {
    next_ -= count_ / 8;
    bits_ = count_ = 0;
    if (n > bytes_.size() - next_) return false;
    value = bytes_.substr(next_, n);
    next_ += n;
    return true;
  }
  bool at_end() const { return count_ == 0 && next_ == bytes_.size(); }

 private:
  Bytes bytes_;
  size_t next_ = 0;
  uint64_t bits_ = 0;
  unsigned count_ = 0;
};

// A prefix code, given by the lengths of its symbols' codes (RFC 1951, 3.2.2).
class PrefixCode {
 public:
  // False: the lengths are those of no code. As in zlib, one may be left incomplete if it has a
  // single code, of one bit, or none at all, and `may_be_incomplete` says so.
  bool Build(std::span<const uint8_t> lengths, bool may_be_incomplete) {
    counts_.fill(0);
    for (const uint8_t length : lengths) ++counts_[length];
    counts_[0] = 0;
    unsigned longest = kLongestCode;
    while (longest > 0 && counts_[longest] == 0) --longest;
    int left = 1;
    for (unsigned n = 1; n <= kLongestCode; ++n) {
      left = left * 2 - counts_[n];
      if (left < 0) return false;
    }
    if (left > 0 && (!may_be_incomplete || longest > 1)) return false;

    // In the order of their codes.
    std::array<uint16_t, kLongestCode + 2> offsets = {};
    std::array<uint16_t, kLongestCode + 2> codes = {};
    for (unsigned n = 1; n <= kLongestCode; ++n) {
      offsets[n + 1] = static_cast<uint16_t>(offsets[n] + counts_[n]);
      codes[n + 1] = static_cast<uint16_t>((codes[n] + counts_[n]) << 1);
    }
    // No larger than the codes are long: a stream may have one for every few bytes.
    table_bits_ = std::min(longest, kMostTableBits);
    std::fill_n(table_.begin(), size_t{1} << table_bits_, 0);
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
      const unsigned length = lengths[symbol];
      if (length == 0) continue;
      symbols_[offsets[length]++] = static_cast<uint16_t>(symbol);
      const unsigned code = codes[length]++;
      if (length > table_bits_) continue;
      unsigned reversed = 0;
      for (unsigned bit = 0; bit < length; ++bit)
        reversed |= (code >> bit & 1) << (length - 1 - bit);
      const auto entry = static_cast<uint16_t>(symbol << 4 | length);
      for (size_t i = reversed; i < size_t{1} << table_bits_; i += size_t{1} << length) {
        table_[i] = entry;
      }
    }
    return true;
  }

  bool Read(BitReader& bits, size_t& symbol) const {
    const uint32_t ahead = bits.Peek();
    if (const unsigned entry = table_[ahead & ((1U << table_bits_) - 1)]; entry != 0) {
      symbol = entry >> 4;
      return bits.Skip(entry & 0xF);
    }
    int code = 0;
    int first = 0;
    int index = 0;
    for (unsigned length = 1; length <= kLongestCode; ++length) {
      code |= static_cast<int>(ahead >> (length - 1) & 1);
      const int count = counts_[length];
      if (code - first < count) {
        symbol = symbols_[static_cast<size_t>(index + code - first)];
        return bits.Skip(length);
      }
      index += count;
      first = (first + count) << 1;
      code <<= 1;
    }
    return false;
  }

 private:
  static constexpr unsigned kMostTableBits = 9;

  std::array<uint16_t, kLongestCode + 1> counts_ = {};
  std::array<uint16_t, kLiterals> symbols_ = {};
  // By the next bits: symbol and length of the code that they begin with; 0: a longer one, or none.
  std::array<uint16_t, size_t{1} << kMostTableBits> table_ = {};
  unsigned table_bits_ = 0;
};

// Lengths and distances: the least that a symbol stands for, and how many bits say how much more
// (RFC 1951, 3.2.5).
struct Range {
  uint16_t least;
  uint8_t more_bits;
};
constexpr Range kLengthRanges[] = {
    {3, 0},  {4, 0},  {5, 0},  {6, 0},   {7, 0},   {8, 0},   {9, 0},   {10, 0},  {11, 1}, {13, 1},
    {15, 1}, {17, 1}, {19, 2}, {23, 2},  {27, 2},  {31, 2},  {35, 3},  {43, 3},  {51, 3}, {59, 3},
    {67, 4}, {83, 4}, {99, 4}, {115, 4}, {131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0}};
constexpr Range kDistanceRanges[kDistances] = {
    {1, 0},     {2, 0},     {3, 0},     {4, 0},      {5, 1},      {7, 1},
    {9, 2},     {13, 2},    {17, 3},    {25, 3},     {33, 4},     {49, 4},
    {65, 5},    {97, 5},    {129, 6},   {193, 6},    {257, 7},    {385, 7},
    {513, 8},   {769, 8},   {1025, 9},  {1537, 9},   {2049, 10},  {3073, 10},
    {4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13}};

uint32_t Adler32(Bytes bytes) {
  constexpr uint32_t kModulus = 65521;
  constexpr size_t kBatch = 5552;  // after so many the sums might not fit 32 bits
  uint32_t a = 1;
  uint32_t b = 0;
  while (!bytes.empty()) {
    const Bytes batch = bytes.substr(0, kBatch);
    for (const char byte : batch) b += a += static_cast<uint8_t>(byte);
    a %= kModulus;
    b %= kModulus;
    bytes.remove_prefix(batch.size());
  }
  return b << 16 | a;
}

// The codes that need not be said (RFC 1951, 3.2.6). Made once: a block of them has ten bits at
// least, and a stream may have nothing else.
struct FixedCodes {
  FixedCodes() {
    std::array<uint8_t, kLiterals> lengths;
    std::fill_n(lengths.begin(), 144, 8);
    std::fill_n(lengths.begin() + 144, 112, 9);
    std::fill_n(lengths.begin() + 256, 24, 7);
    std::fill_n(lengths.begin() + 280, 8, 8);
    literals.Build(lengths, false);
    std::array<uint8_t, 32> distance_lengths;
    distance_lengths.fill(5);
    distances.Build(distance_lengths, false);
  }
  PrefixCode literals;
  PrefixCode distances;

  static const FixedCodes& Get() {
    static const FixedCodes codes;
    return codes;
  }
};

class Inflater {
 public:
  Inflater(Bytes bytes, size_t most_bytes, std::string& out)
      : bits_(bytes),
        out_(out),
        begin_(out.size()),
        most_bytes_(most_bytes),
        most_blocks_(kBlocksFreely + bytes.size() / kBytesForEachBlock) {}

  // Of the codes that were made.
  size_t other_cost() const { return blocks_ * kCostOfBlock; }

  Inflation Run() {
    if (!ReadHeader()) return Inflation::kBroken;
    for (uint32_t last = 0; last == 0;) {
      if (!ReadBlock(last)) return too_large_ ? Inflation::kTooLarge : Inflation::kBroken;
    }
    Bytes checksum;
    const bool good = bits_.TakeBytes(4, checksum) && bits_.at_end() &&
                      LoadBe32(checksum.data()) == Adler32(Bytes(out_).substr(begin_));
    return good ? Inflation::kDone : Inflation::kBroken;
  }

 private:
  // RFC 1950, 2.2.
  bool ReadHeader() {
    Bytes header;
    if (!bits_.TakeBytes(2, header)) return false;
    const uint16_t both = LoadBe16(header.data());
    const bool deflate = (both >> 8 & 0xF) == 8 && both >> 12 <= 7;
    const bool dictionary = (both & 0x20) != 0;
    return deflate && !dictionary && both % 31 == 0;
  }

  bool ReadBlock(uint32_t& last) {
    uint32_t type = 0;
    if (!bits_.Take(1, last) || !bits_.Take(2, type)) return false;
    switch (type) {
      case 0:
        return CopyStored();
      case 1:
        return ReadSymbols(FixedCodes::Get().literals, FixedCodes::Get().distances);
      case 2:
        if (blocks_ == most_blocks_) return false;
        ++blocks_;
        return ReadCodes() && ReadSymbols(literals_, distances_);
      default:
        return false;
    }
  }

  bool HasRoom(size_t n) {
    too_large_ = n > most_bytes_ - (out_.size() - begin_);
    return !too_large_;
  }

  bool CopyStored() {
    Bytes lengths;
    Bytes stored;
    if (!bits_.TakeBytes(4, lengths)) return false;
    const auto at = [&](size_t i) { return unsigned{static_cast<uint8_t>(lengths[i])}; };
    const unsigned length = at(0) | at(1) << 8;
    if ((at(2) | at(3) << 8) != (length ^ 0xFFFF)) return false;
    if (!bits_.TakeBytes(length, stored) || !HasRoom(length)) return false;
    out_ += stored;
    return true;
  }

  // RFC 1951, 3.2.7.
  bool ReadCodes() {
    static constexpr uint8_t kOrder[] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                         11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint32_t literals = 0;
    uint32_t distances = 0;
    uint32_t codes = 0;
    if (!bits_.Take(5, literals) || !bits_.Take(5, distances) || !bits_.Take(4, codes))
      return false;
    literals += 257;
    distances += 1;
    if (literals > 286 || distances > kDistances) return false;
    std::array<uint8_t, std::size(kOrder)> code_lengths = {};
    for (size_t i = 0; i < codes + 4; ++i) {
      uint32_t length = 0;
      if (!bits_.Take(3, length)) return false;
      code_lengths[kOrder[i]] = static_cast<uint8_t>(length);
    }
    if (!literals_.Build(code_lengths, false)) return false;
    std::array<uint8_t, kLiterals + kDistances> lengths = {};
    const size_t all = literals + distances;
    for (size_t n = 0; n < all;) {
      if (!ReadLength(lengths, all, n)) return false;
    }
    const std::span<const uint8_t> read(lengths);
    return read[kEndOfBlock] != 0 && literals_.Build(read.first(literals), true) &&
           distances_.Build(read.subspan(literals, distances), true);
  }

  // One length, or several that are the same.
  bool ReadLength(std::span<uint8_t> lengths, size_t all, size_t& n) {
    size_t symbol = 0;
    if (!literals_.Read(bits_, symbol)) return false;
    if (symbol < 16) {
      lengths[n++] = static_cast<uint8_t>(symbol);
      return true;
    }
    uint32_t more = 0;
    uint8_t value = 0;
    size_t times = symbol == 18 ? 11 : 3;
    if (symbol == 16) {
      if (n == 0) return false;
      value = lengths[n - 1];
    }
    if (!bits_.Take(symbol == 16 ? 2 : symbol == 17 ? 3 : 7, more)) return false;
    times += more;
    if (times > all - n) return false;
    for (; times > 0; --times) lengths[n++] = value;
    return true;
  }

  bool ReadSymbols(const PrefixCode& literals, const PrefixCode& distances) {
    for (size_t symbol = 0;;) {
      if (!literals.Read(bits_, symbol)) return false;
      if (symbol == kEndOfBlock) return true;
      if (symbol < kEndOfBlock) {
        if (!HasRoom(1)) return false;
        out_ += static_cast<char>(symbol);
      } else if (!Repeat(symbol - kEndOfBlock - 1, distances)) {
        return false;
      }
    }
  }

  bool Repeat(size_t length_symbol, const PrefixCode& distances) {
    size_t symbol = 0;
    uint32_t more = 0;
    if (length_symbol >= std::size(kLengthRanges)) return false;
    const Range& lengths = kLengthRanges[length_symbol];
    if (!bits_.Take(lengths.more_bits, more)) return false;
    const size_t length = lengths.least + more;
    if (!distances.Read(bits_, symbol) || symbol >= kDistances) return false;
    const Range& range = kDistanceRanges[symbol];
    if (!bits_.Take(range.more_bits, more)) return false;
    const size_t distance = range.least + more;
    if (distance > out_.size() - begin_ || !HasRoom(length)) return false;
    if (distance == 1) {
      out_.append(length, out_.back());
    } else if (distance >= length) {
      out_.append(out_, out_.size() - distance, length);
    } else {
      for (size_t i = 0; i < length; ++i) out_ += out_[out_.size() - distance];
    }
    return true;
  }

  BitReader bits_;
  std::string& out_;
  const size_t begin_;
  const size_t most_bytes_;
  const size_t most_blocks_;
  size_t blocks_ = 0;
  bool too_large_ = false;
  PrefixCode literals_;  // of the present block
  PrefixCode distances_;
};

}  // namespace

Inflation Inflate(Bytes bytes, size_t most_bytes, std::string& out, size_t& other_cost) {
  Inflater inflater(bytes, most_bytes, out);
  const Inflation result = inflater.Run();
  other_cost = inflater.other_cost();
  return result;
}

}  // namespace metaprotocol::thrift
