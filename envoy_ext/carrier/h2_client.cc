#include "envoy_ext/carrier/h2_client.h"

#include <algorithm>
#include <utility>

namespace metaprotocol::envoy {
namespace {

// Frame types, RFC 9113 section 6.
constexpr uint8_t kData = 0;
constexpr uint8_t kHeaders = 1;
constexpr uint8_t kRstStream = 3;
constexpr uint8_t kSettings = 4;
constexpr uint8_t kPushPromise = 5;
constexpr uint8_t kPing = 6;
constexpr uint8_t kGoAway = 7;
constexpr uint8_t kWindowUpdate = 8;
constexpr uint8_t kContinuation = 9;

constexpr uint8_t kFlagAck = 0x1;
constexpr uint8_t kFlagEndStream = 0x1;
constexpr uint8_t kFlagEndHeaders = 0x4;
constexpr uint8_t kFlagPadded = 0x8;

constexpr uint16_t kSettingsInitialWindowSize = 0x4;  // section 6.5.2

constexpr size_t kFrameHeader = 9;
constexpr size_t kMaxFrame = 16384;  // what both sides accept without settings, section 6.5.2
// Connection window given back at a time; the window is 65535.
constexpr uint32_t kWindowStep = 16384;

// RFC 7541 section 5.1, with a 7-bit prefix and the high bit (Huffman) clear.
void AppendHpackString(std::string& out, std::string_view text) {
  size_t n = text.size();
  if (n < 127) {
    out += static_cast<char>(n);
  } else {
    out += static_cast<char>(127);
    for (n -= 127; n >= 128; n >>= 7) out += static_cast<char>(0x80 | (n & 0x7f));
    out += static_cast<char>(n);
  }
  out += text;
}

}  // namespace

H2Client::H2Client() {
  output_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::string settings;
  const auto set = [&](uint16_t id, uint32_t value) {
    AppendBe16(settings, id);
    AppendBe32(settings, value);
  };
  set(0x1, 0);  // SETTINGS_HEADER_TABLE_SIZE: responses are encoded without state
  set(0x2, 0);  // SETTINGS_ENABLE_PUSH
  set(kSettingsInitialWindowSize, kStreamWindow);
  AppendFrame(kSettings, 0, 0, settings);
}

void H2Client::AppendFrame(uint8_t type, uint8_t flags, uint32_t stream, Bytes payload) {
  output_ += static_cast<char>(payload.size() >> 16);
  AppendBe16(output_, static_cast<uint16_t>(payload.size()));
  output_ += static_cast<char>(type);
  output_ += static_cast<char>(flags);
  AppendBe32(output_, stream);
  output_ += payload;
}

uint32_t H2Client::Open(const std::vector<H2Header>& headers) {
  if (going_away_ || next_stream_ > kLastStream) return 0;
  // :method GET, :scheme http, :path / by their indices in HPACK's static table (RFC 7541,
  // appendix A); everything else as literals without indexing (section 6.2.2).
  std::string block = "\x82\x86\x84";
  const auto literal = [&](std::string_view name, std::string_view value) {
    block += '\0';
    AppendHpackString(block, name);
    AppendHpackString(block, value);
  };
  literal(":authority", "metaprotocol");
  for (const H2Header& header : headers) literal(header.name, header.value);
  if (block.size() > kMaxFrame) return 0;
  const uint32_t stream = next_stream_;
  next_stream_ += 2;
  streams_.emplace(stream, Stream());
  AppendFrame(kHeaders, kFlagEndHeaders, stream, block);
  return stream;
}

void H2Client::EndRequest(uint32_t stream) {
  if (streams_.count(stream) != 0) AppendFrame(kData, kFlagEndStream, stream, {});
}

void H2Client::SendByte(uint32_t stream) {
  if (streams_.count(stream) != 0) AppendFrame(kData, 0, stream, Bytes("\0", 1));
}

void H2Client::HoldBody(uint32_t stream) {
  const auto it = streams_.find(stream);
  if (it != streams_.end()) it->second.held = true;
}

void H2Client::GrantWindow(uint32_t stream, uint32_t bytes) {
  if (bytes != 0 && streams_.count(stream) != 0) AppendWindowUpdate(stream, bytes);
}

void H2Client::AppendWindowUpdate(uint32_t stream, uint32_t bytes) {
  std::string increment;
  AppendBe32(increment, bytes);
  AppendFrame(kWindowUpdate, 0, stream, increment);
}

bool H2Client::Receive(Bytes bytes) {
  input_ += bytes;
  size_t position = 0;
  while (input_.size() - position >= kFrameHeader) {
    const char* head = input_.data() + position;
    const size_t length = LoadBe32(head) >> 8;
    if (length > kMaxFrame) return false;
    if (input_.size() - position < kFrameHeader + length) break;
    const Frame frame{static_cast<uint8_t>(head[3]), static_cast<uint8_t>(head[4]),
                      LoadBe32(head + 5) & kLastStream, Bytes(head + kFrameHeader, length)};
    if (!OnFrame(frame)) return false;
    position += kFrameHeader + length;
  }
  input_.erase(0, position);
  return true;
}

bool H2Client::OnFrame(const Frame& frame) {
  // A header block is not interrupted, section 6.10.
  if ((headers_stream_ != 0) != (frame.type == kContinuation)) return false;
  switch (frame.type) {
    case kData:
      return OnData(frame);
    case kHeaders:
    case kContinuation:
      if (frame.stream == 0) return false;
      if (frame.type == kHeaders) {
        headers_end_stream_ = (frame.flags & kFlagEndStream) != 0;
      } else if (frame.stream != headers_stream_) {
        return false;
      }
      headers_stream_ = (frame.flags & kFlagEndHeaders) != 0 ? 0 : frame.stream;
      if (headers_stream_ == 0 && headers_end_stream_) EndStream(frame.stream, false);
      return true;
    case kRstStream:
      if (frame.stream == 0 || frame.payload.size() != 4) return false;
      EndStream(frame.stream, true);
      return true;
    case kSettings:
      if (frame.stream != 0 || frame.payload.size() % 6 != 0) return false;
      if ((frame.flags & kFlagAck) == 0) OnSettings(frame.payload);
      return true;
    case kPing:
      if (frame.stream != 0 || frame.payload.size() != 8) return false;
      if ((frame.flags & kFlagAck) == 0) AppendFrame(kPing, kFlagAck, 0, frame.payload);
      return true;
    case kGoAway: {
      if (frame.stream != 0 || frame.payload.size() < 8) return false;
      going_away_ = true;
      const uint32_t last = LoadBe32(frame.payload.data()) & kLastStream;
      std::vector<uint32_t> refused;
      for (const auto& [id, stream] : streams_) {
        if (id > last) refused.push_back(id);
      }
      for (const uint32_t id : refused) EndStream(id, true);
      return true;
    }
    case kPushPromise:
      return false;  // disabled by our settings
    case kWindowUpdate:
      return frame.payload.size() == 4;
    default:
      return true;  // PRIORITY and types yet unknown are ignored, section 5.5
  }
}

// Of the peer's settings only its window concerns us: we send small header frames and little data.
void H2Client::OnSettings(Bytes settings) {
  for (; !settings.empty(); settings.remove_prefix(6)) {
    if (LoadBe16(settings.data()) == kSettingsInitialWindowSize) {
      peer_window_ = LoadBe32(settings.data() + 2);
    }
  }
  AppendFrame(kSettings, kFlagAck, 0, {});
}

bool H2Client::OnData(const Frame& frame) {
  Bytes data = frame.payload;
  if (frame.stream == 0) return false;
  unacknowledged_ += static_cast<uint32_t>(data.size());
  if (unacknowledged_ >= kWindowStep) AppendWindowUpdate(0, std::exchange(unacknowledged_, 0));
  if ((frame.flags & kFlagPadded) != 0) {
    if (data.empty()) return false;
    const size_t padding = static_cast<uint8_t>(data[0]);
    if (padding + 1 > data.size()) return false;
    data = data.substr(1, data.size() - 1 - padding);
  }
  const auto it = streams_.find(frame.stream);
  if (it == streams_.end()) return false;  // ended, or never opened
  std::string& body = it->second.body;
  body += data.substr(0, kMaxBody - std::min(kMaxBody, body.size()));
  if ((frame.flags & kFlagEndStream) != 0) {
    EndStream(frame.stream, false);
  } else if (!it->second.held && !frame.payload.empty()) {
    AppendWindowUpdate(frame.stream, static_cast<uint32_t>(frame.payload.size()));
  }
  return true;
}

void H2Client::EndStream(uint32_t stream, bool reset) {
  const auto it = streams_.find(stream);
  if (it == streams_.end()) return;
  ended_.push_back({stream, reset, std::move(it->second.body)});
  streams_.erase(it);
}

bool H2Client::IsFieldValue(std::string_view value) {
  if (value.empty() || value.front() == ' ' || value.back() == ' ') return false;
  return std::all_of(value.begin(), value.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u >= 0x20 && u != 0x7f;
  });
}

}  // namespace metaprotocol::envoy
