#include "src/telemetry/request_id.h"

namespace metaprotocol {

std::string MakeRequestId(uint64_t high, uint64_t low) {
  // Version and variant: RFC 9562, section 5.4.
  high = (high & ~uint64_t{0xf000}) | 0x4000;
  low = (low & ~(uint64_t{3} << 62)) | uint64_t{1} << 63;
  std::string text;
  text.reserve(36);
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20) text += '-';
    const uint64_t half = digit < 16 ? high : low;
    text += "0123456789abcdef"[half >> (60 - digit % 16 * 4) & 15];
  }
  return text;
}

}  // namespace metaprotocol
