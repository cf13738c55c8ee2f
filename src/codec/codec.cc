#include "src/codec/codec.h"

#include <array>

namespace metaprotocol {

std::string_view LocalReplyName(LocalReply reply) {
  static constexpr std::array<std::string_view, kLocalReplyCount> kNames = {
      "no_content",
      "no_route",
      "cluster_not_found",
      "no_healthy_upstream",
      "timeout",
      "over_limit",
      "denied",
      "fault",
      "upstream_lost",
      "too_large",
      "malformed",
      "shutting_down",
      "bad_response",
  };
  return kNames[static_cast<size_t>(reply)];
}

Interest Codec::InterestIn(const MetadataKeys& keys) const {
  return {.mask = ~uint64_t{0}, .head_suffices = false, .keys = &keys};
}

std::unique_ptr<DecodeState> Codec::NewDecodeState(Direction) const { return nullptr; }

std::string_view Codec::CheckBody(DecodeState*, Bytes) const { return {}; }

bool Codec::BlamesRequest(int32_t) const { return false; }

void Codec::CarryOver(const ReplyContext&, Message&) const {}

bool Codec::Ping(uint64_t, std::string&) const { return false; }

bool Codec::ResetStream(const ReplyContext&, Direction, LocalReply, std::string_view,
                        std::string&) const {
  return false;
}

bool Codec::GrantWindow(const ReplyContext&, Direction, uint64_t, std::string&) const {
  return false;
}

bool Codec::HeartbeatReply(const Message&, Bytes, std::string&) const { return false; }

bool Codec::GoAway(const ReplyContext&, std::string&) const { return false; }

}  // namespace metaprotocol
