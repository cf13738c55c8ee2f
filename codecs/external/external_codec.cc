// See external_codec.h.
//
// The other side is not ours: what it answers is checked for all that the engine relies on, and
// taken for an error of the protocol where it is wrong.
#include "codecs/external/external_codec.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codecs/external/library.h"
#include "include/metaprotocol/codec.h"
#include "src/codec/codec.h"
#include "src/codec/library_text.h"

namespace metaprotocol::external {
namespace {

using library::Sink;
using library::Text;
using library::View;

// More than any reply, heartbeat or rewritten head needs beyond what it was made of.
constexpr size_t kMostWritten = size_t{1} << 20;

// The bit of Message::tag that tells messages of servers; the codec's own tag has the rest.
constexpr uint64_t kFromServer = uint64_t{1} << 63;

bool Inside(std::string_view view, Bytes bytes) {
  const std::less_equal<> at_most;
  return view.empty() || (at_most(bytes.data(), view.data()) && view.size() <= bytes.size() &&
                          at_most(view.data(), bytes.data() + (bytes.size() - view.size())));
}
int32_t SideOf(Direction direction) {
  return direction == Direction::kRequest ? METAPROTOCOL_REQUEST : METAPROTOCOL_RESPONSE;
}
int32_t SideOf(const Message& message) {
  return (message.tag & kFromServer) != 0 ? METAPROTOCOL_RESPONSE : METAPROTOCOL_REQUEST;
}

template <class Write>
bool Written(std::string& out, Write write) {
  Sink sink(out, kMostWritten);
  const metaprotocol_sink to = sink.c_sink();
  return sink.Finish(write(&to) != 0);
}

// Takes what a library says of one message.
struct Receiver {
  Metadata& metadata;
  size_t keys;
  Bytes bytes;

  metaprotocol_metadata c_metadata() {
    return {sizeof(metaprotocol_metadata), this, Wants, Set, SetNamed};
  }

 private:
  static int32_t Wants(void* context, uint32_t key) {
    const auto* self = static_cast<Receiver*>(context);
    return key < self->keys && self->metadata.Wants(key) ? 1 : 0;
  }
  static void Set(void* context, uint32_t key, metaprotocol_bytes value) {
    if (Wants(context, key) == 0) return;
    auto* self = static_cast<Receiver*>(context);
    const std::string_view text = Text(value);
    self->metadata.SetOwn(key,
                          Inside(text, self->bytes) ? text : self->metadata.Own(std::string(text)));
  }
  static void SetNamed(void* context, metaprotocol_bytes name, metaprotocol_bytes value) {
    auto* self = static_cast<Receiver*>(context);
    if (Inside(Text(value), self->bytes)) {
      self->metadata.SetNamed(Text(name), Text(value));
    } else if (self->metadata.WantsNamed(Text(name))) {
      self->metadata.SetNamedCopy(Text(name), std::string(Text(value)));
    }
  }
};

// A state of the library's, which is used with the codec that made it and keeps that alive: the
// connection may outlive the configuration.
class LibraryState final : public DecodeState {
 public:
  LibraryState(const metaprotocol_codec_table& table, std::shared_ptr<void> codec, void* state)
      : table_(table), codec_(std::move(codec)), state_(state) {}
  ~LibraryState() override { table_.delete_state(codec_.get(), state_); }
  LibraryState(const LibraryState&) = delete;
  LibraryState& operator=(const LibraryState&) = delete;
  void* codec() const { return codec_.get(); }
  void* state() const { return state_; }

 private:
  const metaprotocol_codec_table& table_;
  const std::shared_ptr<void> codec_;
  void* const state_;
};

class ExternalCodec final : public Codec {
 public:
  ExternalCodec(const std::string& name, const metaprotocol_codec_table& table, void* codec)
      : table_(table),
        codec_(codec,
               [destroy = table_.destroy](void* made) {
                 if (destroy != nullptr) destroy(made);
               }),
        name_(name.empty() ? table_.name : name) {
    for (uint64_t i = 0; i < table_.key_count; ++i) keys_.emplace_back(table_.keys[i]);
    const auto has = [this](uint32_t trait) { return (table_.traits & trait) != 0; };
    traits_.name = name_;
    traits_.id_bits = table_.id_bits;
    traits_.multiplexed = has(METAPROTOCOL_MULTIPLEXED);
    traits_.ordered_replies = has(METAPROTOCOL_ORDERED_REPLIES);
    traits_.stateful = has(METAPROTOCOL_STATEFUL);
    traits_.mutation_in_head = has(METAPROTOCOL_MUTATION_IN_HEAD);
    traits_.whole_to_encode = has(METAPROTOCOL_WHOLE_TO_ENCODE);
    traits_.metadata_keys = keys_;
  }

  const CodecTraits& traits() const override { return traits_; }

  Interest InterestIn(const MetadataKeys& keys) const override {
    Interest interest = Codec::InterestIn(keys);
    interest.head_suffices = (table_.traits & METAPROTOCOL_METADATA_IN_HEAD) != 0;
    return interest;
  }

  std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const override {
    if (table_.new_state == nullptr) return nullptr;
    void* const state = table_.new_state(codec_.get(), SideOf(direction));
    if (state == nullptr) return nullptr;
    return std::make_unique<LibraryState>(table_, codec_, state);
  }

  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override {
    metaprotocol_message decoded{};
    decoded.size = sizeof decoded;
    decoded.kind = METAPROTOCOL_KIND_OTHER;
    metaprotocol_result result{};
    result.size = sizeof result;
    result.status = METAPROTOCOL_ERROR;
    const metaprotocol_decode_options given{sizeof given, options.max_message_bytes,
                                            options.allow_partial ? 1 : 0, 0};
    Receiver receiver{message.metadata, keys_.size(), bytes};
    const metaprotocol_metadata metadata = receiver.c_metadata();
    const auto* const own = static_cast<const LibraryState*>(state);
    table_.decode(own == nullptr ? codec_.get() : own->codec(),
                  own == nullptr ? nullptr : own->state(), SideOf(direction), View(bytes), &given,
                  &decoded, &metadata, &result);
    if (result.status == METAPROTOCOL_NEED_MORE) {
      if (result.need <= bytes.size()) {
        return DecodeResult::Error("the codec asks for no more than it has been given");
      }
      if (result.need > options.max_message_bytes) {
        return DecodeResult::TooLarge("message over the size limit");
      }
      return DecodeResult::NeedMore(result.need);
    }
    const bool streams = (table_.traits & METAPROTOCOL_STREAMS) != 0;
    const int last_kind = streams ? METAPROTOCOL_KIND_STREAM_WINDOW : METAPROTOCOL_KIND_OTHER;
    if (decoded.kind > last_kind || decoded.status > METAPROTOCOL_STATUS_ERROR) {
      return DecodeResult::Error("the codec tells of an unknown kind or status");
    }
    if (table_.id_bits < 64 && (decoded.id | decoded.stream_id) >> table_.id_bits != 0) {
      return DecodeResult::Error("the codec tells of an id with more bits than its ids have");
    }
    if (decoded.length > std::numeric_limits<size_t>::max() / 2) {
      return DecodeResult::Error("the codec tells of a message that cannot be so long");
    }
    message.kind = static_cast<MessageKind>(decoded.kind);
    message.status = static_cast<ReplyStatus>(decoded.status);
    message.status_code = decoded.status_code;
    message.id = decoded.id;
    message.tag = (decoded.tag & ~kFromServer) |
                  (direction == Direction::kResponse ? kFromServer : uint64_t{0});
    message.timeout_us = decoded.timeout_us;
    message.stream_id = decoded.stream_id;
    message.window = decoded.window;
    message.end_stream = decoded.end_stream != 0;
    message.length = static_cast<size_t>(decoded.length);
    const std::string_view name = Text(decoded.reply_name);
    if (Inside(name, bytes)) message.reply_name = name;
    return Judge(result, bytes, options, message);
  }

  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override {
    const metaprotocol_message given = Given(message);
    std::vector<metaprotocol_mutation> ops;
    ops.reserve(options.mutation.size());
    size_t most = bytes.size() + kMostWritten;
    for (const MutationOp& op : options.mutation) {
      ops.push_back({KindOf(op), op.required ? 1 : 0, View(op.key), View(op.value)});
      most += op.key.size() + op.value.size();
    }
    const metaprotocol_encode_options wanted{sizeof wanted, options.id, options.timeout_us,
                                             ops.data(),    ops.size(), options.stream_id};
    Sink sink(out, most);
    const metaprotocol_sink to = sink.c_sink();
    metaprotocol_encoded encoded{};
    encoded.size = sizeof encoded;
    const bool written = table_.encode(codec_.get(), SideOf(message), &given, View(bytes), &wanted,
                                       &to, &encoded) != 0;
    const size_t tail = encoded.tail_size;
    const bool fits = tail <= sizeof encoded.tail && tail <= bytes.size() &&
                      encoded.head <= bytes.size() - tail &&
                      (tail == 0 || bytes.size() == message.length);
    // With the id of somebody else it must not go on: nothing of it does.
    if (!sink.Finish(written && fits)) return {.impossible = true};
    Encoded made{.head = static_cast<size_t>(encoded.head), .tail_bytes = encoded.tail_size};
    for (size_t i = 0; i < tail; ++i) made.tail[i] = encoded.tail[i];
    return made;
  }

  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override {
    const metaprotocol_reply_context context = Given(request);
    const std::string name(LocalReplyName(reply));
    return Written(out, [&](const metaprotocol_sink* to) {
      return table_.reply(codec_.get(), &context, name.c_str(), View(text), to);
    });
  }
  bool HeartbeatReply(const Message& heartbeat, Bytes bytes, std::string& out) const override {
    if (table_.heartbeat_reply == nullptr) return false;
    const metaprotocol_message given = Given(heartbeat);
    return Written(out, [&](const metaprotocol_sink* to) {
      return table_.heartbeat_reply(codec_.get(), SideOf(heartbeat), &given, View(bytes), to);
    });
  }
  bool Ping(uint64_t id, std::string& out) const override {
    if (table_.ping == nullptr) return false;
    return Written(out,
                   [&](const metaprotocol_sink* to) { return table_.ping(codec_.get(), id, to); });
  }
  bool GoAway(const ReplyContext& last, std::string& out) const override {
    if (table_.go_away == nullptr) return false;
    const metaprotocol_reply_context context = Given(last);
    return Written(out, [&](const metaprotocol_sink* to) {
      return table_.go_away(codec_.get(), &context, to);
    });
  }

  bool ResetStream(const ReplyContext& stream, Direction to, LocalReply reason,
                   std::string_view text, std::string& out) const override {
    if (table_.reset_stream == nullptr) return false;
    const metaprotocol_reply_context context = Given(stream);
    const std::string name(LocalReplyName(reason));
    return Written(out, [&](const metaprotocol_sink* sink) {
      return table_.reset_stream(codec_.get(), &context, SideOf(to), name.c_str(), View(text),
                                 sink);
    });
  }
  bool GrantWindow(const ReplyContext& stream, Direction to, uint64_t bytes,
                   std::string& out) const override {
    if (table_.grant_window == nullptr) return false;
    const metaprotocol_reply_context context = Given(stream);
    return Written(out, [&](const metaprotocol_sink* sink) {
      return table_.grant_window(codec_.get(), &context, SideOf(to), bytes, sink);
    });
  }

 private:
  // The result of a decode of which `message` is what the library has told.
  static DecodeResult Judge(const metaprotocol_result& result, Bytes bytes,
                            const DecodeOptions& options, const Message& message) {
    const std::string_view error =
        result.error == nullptr ? std::string_view("broken") : std::string_view(result.error);
    switch (result.status) {
      case METAPROTOCOL_MESSAGE:
      case METAPROTOCOL_UNDECODABLE:
        if (message.length == 0 || (message.length > bytes.size() && !options.allow_partial)) {
          return DecodeResult::Error("the codec tells of a message that cannot be so long");
        }
        if (message.length > options.max_message_bytes) {
          return DecodeResult::TooLarge("message over the size limit");
        }
        return result.status == METAPROTOCOL_MESSAGE ? DecodeResult::Ok()
                                                     : DecodeResult::Undecodable(error);
      case METAPROTOCOL_TOO_LARGE:
        return DecodeResult::TooLarge(error);
      default:
        return DecodeResult::Error(error);
    }
  }

  static int32_t KindOf(const MutationOp& op) {
    switch (op.kind) {
      case MutationOp::Kind::kAddIfAbsent:
        return METAPROTOCOL_ADD_IF_ABSENT;
      case MutationOp::Kind::kRemove:
        return METAPROTOCOL_REMOVE;
      case MutationOp::Kind::kSet:
        break;
    }
    return METAPROTOCOL_SET;
  }
  static metaprotocol_message Given(const Message& message) {
    metaprotocol_message given{};
    given.size = sizeof given;
    given.length = message.length;
    given.id = message.id;
    given.tag = message.tag & ~kFromServer;
    given.timeout_us = message.timeout_us;
    given.reply_name = View(message.reply_name);
    given.status_code = message.status_code;
    given.kind = static_cast<uint8_t>(message.kind);
    given.status = static_cast<uint8_t>(message.status);
    given.stream_id = message.stream_id;
    given.window = message.window;
    given.end_stream = message.end_stream ? 1 : 0;
    return given;
  }
  static metaprotocol_reply_context Given(const ReplyContext& context) {
    return {sizeof(metaprotocol_reply_context), context.id, context.tag & ~kFromServer,
            View(context.name), context.stream_id};
  }

  const metaprotocol_codec_table& table_;
  const std::shared_ptr<void> codec_;
  const std::string name_;
  std::vector<std::string_view> keys_;
  CodecTraits traits_;
};

}  // namespace

LibraryCodecOrError CreateLibraryCodec(const std::string& name, const std::string& path,
                                       std::string_view options) {
  std::string error;
  const metaprotocol_codec_table* const table = LoadLibrary(path, error);
  if (table == nullptr) return {nullptr, std::move(error)};
  std::string why;
  void* const codec = library::Create(
      [&](const metaprotocol_sink* to) { return table->create(View(options), to); }, why);
  if (codec == nullptr) return {nullptr, std::move(why), true};
  return {std::make_shared<const ExternalCodec>(name, *table, codec), ""};
}

}  // namespace metaprotocol::external
