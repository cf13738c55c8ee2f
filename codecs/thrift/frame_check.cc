#include "codecs/thrift/frame_check.h"

#include <algorithm>

namespace metaprotocol::thrift {
namespace {

constexpr std::string_view kTooLong = "a Thrift struct runs over the end of its frame";
constexpr std::string_view kTooShort = "more than one message in a Thrift frame";

// What the state of the skip says of the frame, of which `left` bytes are still to come.
std::string_view Judge(const DecodeResult& result, const StructSkipper& skipper, Bytes bytes,
                       size_t left) {
  switch (result.status) {
    case DecodeResult::Status::kMessage:
      return skipper.position() == bytes.size() && left == 0 ? std::string_view() : kTooShort;
    case DecodeResult::Status::kNeedMore:
      return left == 0 ? kTooLong : std::string_view();
    case DecodeResult::Status::kTooLarge:
      return kTooLong;
    case DecodeResult::Status::kUndecodable:
    case DecodeResult::Status::kError:
      break;
  }
  return result.error;
}

}  // namespace

std::string_view CheckWholeFrame(Protocol protocol, size_t body_offset, Bytes frame) {
  StructSkipper skipper;
  skipper.Start(protocol, body_offset);
  return Judge(skipper.Run(frame, frame.size()), skipper, frame, 0);
}

std::string_view FrameCheck::Start(Protocol protocol, size_t body_offset, Bytes begun,
                                   size_t frame_bytes) {
  skipper_.Start(protocol, body_offset);
  left_ = frame_bytes - begun.size();
  return Run(begun);
}

std::string_view FrameCheck::Continue(Bytes part) {
  left_ -= part.size();
  if (token_bytes_ == 0) return Run(part);
  // The token that began in the part before, and whatever else fits beside it.
  const size_t borrowed = std::min(part.size(), sizeof token_ - token_bytes_);
  std::copy_n(part.begin(), borrowed, token_ + token_bytes_);
  const Bytes joined(token_, token_bytes_ + borrowed);
  const size_t left = left_ + (part.size() - borrowed);
  const DecodeResult result = skipper_.Run(joined, joined.size() + left);
  const std::string_view wrong = Judge(result, skipper_, joined, left);
  if (!wrong.empty()) return wrong;
  const size_t position = skipper_.position();
  if (position < token_bytes_) {  // still not whole, so the part was short
    skipper_.CountFrom(position);
    token_bytes_ = joined.size() - position;
    std::copy(joined.begin() + position, joined.end(), token_);
    return {};
  }
  skipper_.CountFrom(token_bytes_);
  token_bytes_ = 0;
  return Run(part);
}

// Goes on in `bytes`, from which the skipper counts, and keeps what it could not read yet.
std::string_view FrameCheck::Run(Bytes bytes) {
  const DecodeResult result = skipper_.Run(bytes, bytes.size() + left_);
  const std::string_view wrong = Judge(result, skipper_, bytes, left_);
  if (!wrong.empty()) return wrong;
  const Bytes rest = bytes.substr(skipper_.position());
  std::copy(rest.begin(), rest.end(), token_);
  token_bytes_ = rest.size();
  skipper_.CountFrom(skipper_.position());
  return {};
}

}  // namespace metaprotocol::thrift
