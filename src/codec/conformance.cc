// See conformance.h.
#include "src/codec/conformance.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace metaprotocol {
namespace {

using Status = DecodeResult::Status;
using Entries = std::vector<std::pair<std::string, std::string>>;

// One message, or the reason why there is none, with nothing that points into the bytes.
struct Seen {
  Status status = Status::kNeedMore;
  size_t offset = 0;
  MessageKind kind = MessageKind::kOther;
  ReplyStatus reply_status = ReplyStatus::kOk;
  int32_t status_code = 0;
  bool end_stream = false;
  uint64_t id = 0;
  uint64_t stream_id = 0;
  uint64_t timeout_us = 0;
  size_t length = 0;
  Entries metadata = {};

  bool operator==(const Seen&) const = default;
};

Direction Other(Direction direction) {
  return direction == Direction::kRequest ? Direction::kResponse : Direction::kRequest;
}

// A copy at its own address, so that a sanitizer sees every read outside, and so that nothing is
// the same because it is at the same place.
class Copy {
 public:
  explicit Copy(Bytes bytes) : size_(bytes.size()), data_(new char[std::max<size_t>(1, size_)]) {
    std::copy(bytes.begin(), bytes.end(), data_.get());
  }
  Bytes bytes() const { return {data_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<char[]> data_;
};

class Checker {
 public:
  Checker(const Codec& codec, Direction direction, Bytes bytes, const ConformanceOptions& options)
      : codec_(codec),
        direction_(direction),
        bytes_(bytes),
        seed_(options.seed | 1),
        keys_(MetadataKeys::Everything(codec.traits().metadata_keys)) {
    decode_.interest = codec.InterestIn(keys_);
    decode_.max_message_bytes = options.max_message_bytes;
  }

  ConformanceResult Check() {
    const std::vector<Seen> whole = DecodeWhole();
    if (!result_.violation) CheckPieces(whole, false);
    if (!result_.violation) CheckPieces(whole, true);
    CheckOwnMessages();
    return std::move(result_);
  }

 private:
  void Violated(std::string what) {
    if (!result_.violation) result_.violation = std::move(what);
  }
  void Feature(size_t bit) { result_.features |= uint64_t{1} << (bit % 64); }

  uint64_t Random() {
    seed_ ^= seed_ << 13;
    seed_ ^= seed_ >> 7;
    seed_ ^= seed_ << 17;
    return seed_;
  }

  Seen Decode(DecodeState* state, Direction direction, Bytes bytes, size_t offset, Message& message,
              const char* when) {
    message.Clear(&keys_);
    const DecodeResult result = codec_.Decode(state, direction, bytes, decode_, message);
    Seen seen{.status = result.status, .offset = offset};
    if (result.status == Status::kNeedMore) {
      if (result.need <= bytes.size()) {
        Violated(std::string(when) + ": wants " + std::to_string(result.need) +
                 " bytes in all, and has got " + std::to_string(bytes.size()));
      }
      return seen;
    }
    if (result.status != Status::kMessage && result.error.empty()) {
      Violated(std::string(when) + ": an error without a text");
    }
    if (result.status == Status::kError || result.status == Status::kTooLarge) return seen;
    if (message.length == 0) Violated(std::string(when) + ": a message of no bytes");
    // Where an undecodable one ends is known before it has all come.
    if (result.status == Status::kMessage && message.length > bytes.size() &&
        !decode_.allow_partial) {
      Violated(std::string(when) + ": a message longer than the bytes that are there");
    }
    seen.kind = message.kind;
    seen.id = message.id;
    seen.length = message.length;
    if (result.status == Status::kUndecodable) return seen;
    seen.reply_status = message.status;
    seen.status_code = message.status_code;
    seen.end_stream = message.end_stream;
    seen.stream_id = message.stream_id;
    seen.timeout_us = message.timeout_us;
    for (const auto& [key, value] : message.metadata.Entries()) {
      seen.metadata.emplace_back(key, value);
    }
    return seen;
  }

  // Every message, with all bytes there from the start.
  std::vector<Seen> DecodeWhole() {
    std::vector<Seen> all;
    const auto state = codec_.NewDecodeState(direction_);
    size_t offset = 0;
    while (offset < bytes_.size() && !result_.violation) {
      const Copy rest(bytes_.substr(offset));
      Message message;
      const Seen seen = Decode(state.get(), direction_, rest.bytes(), offset, message, "decoding");
      Feature(static_cast<size_t>(seen.status));
      if (seen.status == Status::kNeedMore) break;
      all.push_back(seen);
      if (seen.status == Status::kError || seen.status == Status::kTooLarge) break;
      Feature(8 + static_cast<size_t>(seen.kind));
      Feature(24 + static_cast<size_t>(seen.reply_status));
      Feature(32 + std::min<size_t>(seen.metadata.size(), 15));
      if (result_.violation || seen.length > rest.bytes().size()) break;
      if (seen.status == Status::kMessage) {
        ++result_.messages;
        CheckMessage(message, rest.bytes().substr(0, seen.length), seen);
      }
      offset += seen.length;
    }
    Feature(48 + std::min<size_t>(all.size(), 7));
    return all;
  }

  // The same, while the bytes arrive in pieces.
  void CheckPieces(const std::vector<Seen>& whole, bool bytewise) {
    // A byte at a time is only tried where it is cheap.
    if (bytewise && bytes_.size() > 4096) return;
    const auto state = codec_.NewDecodeState(direction_);
    std::vector<Seen> all;
    size_t offset = 0;
    size_t have = 0;
    bool over = false;
    while (!over && !result_.violation) {
      have = std::min(bytes_.size(), have + (bytewise ? 1 : 1 + Random() % 97));
      while (have > offset) {
        const Copy piece(bytes_.substr(offset, have - offset));
        const Seen seen =
            Decode(state.get(), direction_, piece.bytes(), offset, again_, "decoding in pieces");
        if (result_.violation) return;
        if (seen.status == Status::kNeedMore) break;
        all.push_back(seen);
        if (seen.status == Status::kError || seen.status == Status::kTooLarge) {
          over = true;
          break;
        }
        offset += seen.length;
      }
      if (have == bytes_.size()) break;
    }
    if (all.size() != whole.size()) {
      return Violated("cut into pieces, " + std::to_string(all.size()) +
                      " messages or errors are found; in one piece " +
                      std::to_string(whole.size()));
    }
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i] == whole[i]) continue;
      // What an error knows of its message depends on how much of that is there.
      if (all[i].status == whole[i].status && whole[i].status != Status::kMessage) continue;
      return Violated("cut into pieces, message " + std::to_string(i) + " is another one");
    }
  }

  std::string Encode(const Message& message, Bytes bytes, const EncodeOptions& options) {
    std::string out;
    const Encoded encoded = codec_.Encode(message, bytes, options, out);
    if (encoded.impossible) {
      Violated("a message cannot be encoded");
      return out;
    }
    if (encoded.head + encoded.tail_bytes > bytes.size()) {
      Violated("encoding replaces more bytes than the message has");
      return out;
    }
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }

  void CheckMessage(const Message& message, Bytes bytes, const Seen& seen) {
    // Only what is passed on is encoded.
    const bool passed_on = seen.kind != MessageKind::kHeartbeat &&
                           seen.kind != MessageKind::kHeartbeatReply &&
                           seen.kind != MessageKind::kOther;
    const uint64_t stream_id = seen.stream_id;
    if (passed_on) {
      if (Encode(message, bytes, {.id = seen.id, .stream_id = stream_id}) != bytes) {
        return Violated("encoding without a change is not the identity");
      }
      CheckOtherId(message, bytes, seen);
      CheckMutation(message, bytes, seen);
    }
    if (seen.kind == MessageKind::kRequest && direction_ == Direction::kRequest) {
      CheckReplies(message);
    }
    if (seen.kind == MessageKind::kHeartbeat) {
      std::string out;
      if (codec_.HeartbeatReply(message, bytes, out)) {
        CheckWritten(Other(direction_), out, MessageKind::kHeartbeatReply, seen.id,
                     "the answer to a heartbeat");
      }
    }
  }

  void CheckOtherId(const Message& message, Bytes bytes, Seen seen) {
    const int bits = codec_.traits().id_bits;
    if (bits == 0) return;
    const uint64_t id = bits == 32 ? Random() & 0x7fffffff : Random() >> 1;
    // Streams are numbered like requests, and their messages have no other id.
    const bool of_stream = IsOfStream(seen.kind);
    const std::string out =
        Encode(message, bytes, {.id = id, .stream_id = of_stream ? id : seen.stream_id});
    const Copy copy(out);
    Seen other = Decode(codec_.NewDecodeState(direction_).get(), direction_, copy.bytes(),
                        seen.offset, again_, "decoding what was encoded");
    if (other.status == Status::kMessage && (of_stream ? other.stream_id : other.id) != id) {
      return Violated("another id was encoded than the one that was asked for");
    }
    // Ids in digits may make it longer.
    other.id = seen.id;
    other.stream_id = seen.stream_id;
    other.length = seen.length;
    if (other != seen) Violated("encoding with another id changes more than the id");
  }

  void CheckMutation(const Message& message, Bytes bytes, Seen seen) {
    static const Mutation kMutation = {{MutationOp::Kind::kSet, "x-conformance", "yes"}};
    const std::string out =
        Encode(message, bytes, {.id = seen.id, .stream_id = seen.stream_id, .mutation = kMutation});
    if (out.size() > decode_.max_message_bytes) return;
    const Copy copy(out);
    Seen other = Decode(codec_.NewDecodeState(direction_).get(), direction_, copy.bytes(),
                        seen.offset, again_, "decoding what was mutated");
    if (other.status == Status::kMessage && other.length != out.size()) {
      return Violated("a mutation leaves a wrong length behind");
    }
    const auto is_key = [](const auto& entry) { return entry.first == "x-conformance"; };
    const bool there = std::any_of(other.metadata.begin(), other.metadata.end(), is_key);
    if (there) Feature(60);
    std::erase_if(other.metadata, is_key);
    std::erase_if(seen.metadata, is_key);
    std::sort(other.metadata.begin(), other.metadata.end());
    std::sort(seen.metadata.begin(), seen.metadata.end());
    other.length = seen.length;
    if (other != seen) Violated("a mutation changes more than it names");
  }

  void CheckReplies(const Message& message) {
    const ReplyContext context{message.id, message.tag, std::string(message.reply_name),
                               message.stream_id};
    const std::string long_text(3000, '\n');
    for (size_t i = 0; i < kLocalReplyCount; ++i) {
      for (const std::string_view text : {std::string_view(), std::string_view(long_text)}) {
        std::string out;
        if (!codec_.Reply(context, static_cast<LocalReply>(i), text, out)) {
          if (!out.empty()) Violated("a reply that there is none of leaves bytes behind");
          continue;
        }
        CheckWritten(Direction::kResponse, out, MessageKind::kResponse, message.id, "a reply");
      }
    }
  }

  // What is missing is seldom a response: a rule that tells the others from those.
  static const char* Wanted(MessageKind kind) {
    if (kind == MessageKind::kHeartbeatReply) return ": it is not read as a heartbeat_reply";
    if (kind == MessageKind::kHeartbeat) return ": it is not read as a heartbeat";
    if (kind == MessageKind::kGoAway) return ": it is not read as a go_away";
    return "";
  }

  // What does not depend on any bytes.
  void CheckOwnMessages() {
    std::string out;
    if (codec_.Ping(7, out)) {
      CheckWritten(Direction::kRequest, out, MessageKind::kHeartbeat, 7, "a ping");
    }
    out.clear();
    if (codec_.GoAway({}, out)) {
      CheckWritten(Direction::kResponse, out, MessageKind::kGoAway, std::nullopt, "a go-away");
    }
  }

  // Above the bits that the protocol has, an id may say more of a request, for its reply: THeader
  // has a number of its own, which need not be the message's.
  uint64_t OnTheWire(uint64_t id) const {
    return codec_.traits().id_bits == 32 ? static_cast<uint32_t>(id) : id;
  }

  void CheckWritten(Direction direction, const std::string& out, MessageKind kind,
                    std::optional<uint64_t> id, const std::string& what) {
    if (result_.violation) return;
    const Copy copy(out);
    const Seen seen = Decode(codec_.NewDecodeState(direction).get(), direction, copy.bytes(), 0,
                             again_, "decoding a message of the codec's own");
    if (seen.status != Status::kMessage || seen.length != out.size()) {
      Violated(what + " is no message of the protocol");
    } else if (seen.kind != kind) {
      Violated(what + " is a message of another kind" + Wanted(kind));
    } else if (id && codec_.traits().id_bits != 0 && seen.id != OnTheWire(*id)) {
      Violated(what + " has another id");
    }
  }

  const Codec& codec_;
  const Direction direction_;
  const Bytes bytes_;
  uint64_t seed_;
  const MetadataKeys keys_;
  DecodeOptions decode_;
  // One for all that is decoded and then compared, as the engine has one for a session: the slots
  // of its metadata are made once.
  Message again_;
  ConformanceResult result_;
};

}  // namespace

ConformanceResult CheckConformance(const Codec& codec, Direction direction, Bytes bytes,
                                   const ConformanceOptions& options) {
  return Checker(codec, direction, bytes, options).Check();
}

}  // namespace metaprotocol
