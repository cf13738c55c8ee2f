// One HTTP/2 client connection without any I/O, as small as a carrier needs it (RFC 9113, 7541).
//
// The other end is Envoy's HTTP connection manager in the same process. Each stream is one lease: a
// request that is neither ended nor answered as long as the lease lives. What comes back is only
// "this stream has ended", with a line of text from Envoy if Envoy itself answered, so response
// headers are skipped and not decoded (the header table size is set to 0, they have no state).
//
// There is no RST_STREAM from here: Envoy's HTTP/2 code takes more than 33 of them a second
// (nghttp2's default) for an attack and closes the connection, and with it every lease.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/codec/bytes.h"

namespace metaprotocol::envoy {

struct H2Header {
  std::string_view name;  // lower case
  std::string_view value;
};

class H2Client {
 public:
  // Streams end at the first of: END_STREAM, RST_STREAM, a GOAWAY that does not cover them.
  struct Ended {
    uint32_t stream;
    bool reset;        // by RST_STREAM or GOAWAY
    std::string body;  // shortened to kMaxBody
  };
  static constexpr size_t kMaxBody = 1024;
  // What the peer may send of a response's body before it is given more: enough for the lines of
  // text that Envoy answers with.
  static constexpr uint32_t kStreamWindow = 4096;
  static constexpr uint32_t kLastStream = 0x7fffffff;

  // Writes the connection preface.
  H2Client();

  // Opens a stream with the head of a request and returns its id; 0 if there are no more ids, or
  // the headers do not fit a frame.
  uint32_t Open(const std::vector<H2Header>& headers);
  // Ends the request, if the stream is still open.
  void EndRequest(uint32_t stream);
  // A byte of the request's body, if the stream is still open.
  void SendByte(uint32_t stream);
  // Lets the peer send that many bytes more of the response's body, beyond kStreamWindow and what
  // HoldBody has kept back.
  void GrantWindow(uint32_t stream, uint32_t bytes);
  // From now on the peer gets no window for the body of this response but by GrantWindow.
  void HoldBody(uint32_t stream);

  // Takes the peer's bytes, in pieces of any size. False: it does not speak HTTP/2 as we know it,
  // and the connection is beyond use.
  bool Receive(Bytes bytes);

  // Bytes for the peer since the last call.
  std::string TakeOutput() { return std::exchange(output_, {}); }
  bool has_output() const { return !output_.empty(); }
  // Streams that ended since the last call.
  std::vector<Ended> TakeEnded() { return std::exchange(ended_, {}); }
  bool has_ended() const { return !ended_.empty(); }

  // How much of one stream's data the peer takes, and keeps back, before it wants to be waited for.
  uint32_t peer_window() const { return peer_window_; }

  // The peer wants no new streams.
  bool going_away() const { return going_away_; }
  size_t open_streams() const { return streams_.size(); }
  uint32_t next_stream() const { return next_stream_; }

  // A value that HTTP allows in a header field: no control characters, no blanks at its ends.
  static bool IsFieldValue(std::string_view value);

 private:
  struct Frame {
    uint8_t type;
    uint8_t flags;
    uint32_t stream;
    Bytes payload;
  };

  struct Stream {
    std::string body;  // so far
    bool held = false;
  };

  void AppendFrame(uint8_t type, uint8_t flags, uint32_t stream, Bytes payload);
  bool OnFrame(const Frame& frame);
  bool OnData(const Frame& frame);
  void OnSettings(Bytes settings);
  void AppendWindowUpdate(uint32_t stream, uint32_t bytes);
  void EndStream(uint32_t stream, bool reset);

  std::string output_;
  std::string input_;  // the unfinished frame
  std::vector<Ended> ended_;
  std::unordered_map<uint32_t, Stream> streams_;  // open ones
  uint32_t peer_window_ = 65535;                  // RFC 9113 section 6.9.2
  uint32_t next_stream_ = 1;
  uint32_t headers_stream_ = 0;  // whose header block is being continued; 0: none
  bool headers_end_stream_ = false;
  bool going_away_ = false;
  uint32_t unacknowledged_ = 0;  // DATA bytes not yet given back as connection window
};

}  // namespace metaprotocol::envoy
