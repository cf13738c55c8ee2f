// The codec interface: everything the engine asks of a protocol.
//
// A codec knows bytes and nothing else: no connections, clocks, routes or threads. One `Codec`
// object serves all connections of all workers at once, so every method is const and keeps no state
// outside the `DecodeState` the engine hands back to it. Nothing here throws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/metadata.h"
#include "src/codec/metadata_keys.h"
#include "src/codec/mutation.h"

namespace metaprotocol {

// Whose bytes are being decoded: the client's (requests) or the server's (responses).
enum class Direction : uint8_t { kRequest, kResponse };

enum class MessageKind : uint8_t {
  kRequest,         // expects exactly one reply
  kOneWay,          // forwarded, never answered
  kResponse,        // the reply to the request with the same correlation id
  kHeartbeat,       // answered locally with Codec::HeartbeatReply, never forwarded
  kHeartbeatReply,  // swallowed
  kGoAway,          // the sender wants no more requests on this connection
  kOther,           // well-formed, but nothing the engine routes: counted and dropped
  // Messages of streams, by Message::stream_id. Either side may send each of them but the first.
  // Only in protocols with ids (CodecTraits::id_bits): on upstream connections a stream has one of
  // the same numbers as requests have, as both EncodeOptions::id and stream_id.
  kStreamOpen,    // routed like a request; what follows goes where it went
  kStreamData,    // Message::end_stream: the last from this side
  kStreamEnd,     // this side sends no more (half-close)
  kStreamReset,   // the stream is over on both sides
  kStreamWindow,  // the sender takes Message::window more bytes than it has said before
};

constexpr bool IsOfStream(MessageKind kind) { return kind >= MessageKind::kStreamOpen; }

// What a response says of the request's fate.
enum class ReplyStatus : uint8_t {
  kOk,
  kException,  // the service answered with an application exception
  kError,      // the server or its protocol layer failed
};

// Replies the engine forms itself, in place of a server.
enum class LocalReply : uint8_t {
  kNoContent,          // direct reply: success without a value
  kNoRoute,            // no route matched
  kClusterNotFound,    // the route's cluster does not exist
  kNoHealthyUpstream,  // the cluster has no usable host
  kTimeout,            // no reply in time
  kOverLimit,          // a limit of ours was reached
  kDenied,             // an authorization filter said no
  kFault,              // injected by a fault filter
  kUpstreamLost,       // the upstream connection could not be made, or closed before the reply
  kTooLarge,           // the message is larger than the configured limit
  kMalformed,          // the message could not be decoded
  kShuttingDown,       // the proxy takes no more requests
  kBadResponse,        // the server's reply, or what it sent on a stream, cannot be understood
};
inline constexpr size_t kLocalReplyCount = 13;

// A short stable name such as "no_route": for stats, logs and configuration.
std::string_view LocalReplyName(LocalReply reply);

// What must be remembered of a request to answer it later without its bytes.
struct ReplyContext {
  uint64_t id = 0;         // correlation id as the client sent it
  uint64_t tag = 0;        // the codec's own business (serialization, transport, ...)
  std::string name = {};   // only if the protocol repeats a name in replies (Thrift's method)
  uint64_t stream_id = 0;  // as the client sent it
};

// One decoded message. Owned and reused by the engine; views point into the decoded bytes.
struct Message {
  MessageKind kind = MessageKind::kOther;
  ReplyStatus status = ReplyStatus::kOk;  // responses only
  bool end_stream = false;                // nothing more of the stream comes from this side
  int32_t status_code = 0;      // responses: the protocol's own number for what `status` sums up; 0
                                // where it has none
  uint64_t id = 0;              // correlation id; 0 where the protocol has none
  uint64_t tag = 0;             // goes into ReplyContext::tag
  std::string_view reply_name;  // goes into ReplyContext::name
  size_t length = 0;            // bytes on the wire, head and body
  uint64_t timeout_us = 0;      // requests: how long the client will wait; 0: not told
  uint64_t stream_id = 0;       // the stream that this message belongs to or opens; 0: none
  uint64_t window = 0;          // kStreamWindow
  Metadata metadata;

  // `keys`: of DecodeOptions::interest.
  void Clear(const MetadataKeys* keys = nullptr) {
    kind = MessageKind::kOther;
    status = ReplyStatus::kOk;
    end_stream = false;
    status_code = 0;
    id = tag = 0;
    reply_name = {};
    length = 0;
    timeout_us = stream_id = window = 0;
    metadata.Clear(keys);
  }

  // The bytes it was decoded from have been copied to `to`.
  void Rebase(Bytes from, const char* to) {
    reply_name = Metadata::Rebased(reply_name, from, to);
    metadata.Rebase(from, to);
  }
};

// Which metadata somebody will look at, as one codec has prepared it: see Codec::InterestIn. The
// default: nothing.
struct Interest {
  uint64_t mask = 0;                   // bits are the codec's own
  bool head_suffices = true;           // what is wanted lies in the message's head
  const MetadataKeys* keys = nullptr;  // null: nothing is wanted
};

struct DecodeOptions {
  Interest interest;
  // Larger messages are an error; checked against the announced length, before the body is there.
  size_t max_message_bytes = size_t{16} << 20;
  // The caller can stream: Decode may return a message whose tail (everything that neither the
  // interest nor Encode without mutation needs) has not arrived.
  bool allow_partial = false;
};

struct DecodeResult {
  enum class Status : uint8_t {
    kNeedMore,     // `need` bytes in all (counted from the message's first) before trying again is
                   // worthwhile; at least one more than was given
    kMessage,      // `message` is filled in; message.length > bytes.size() only if allow_partial
    kUndecodable,  // what the message says cannot be told, but where it ends can: `message` is
                   // filled in but for its metadata, and the next one begins behind it as always.
                   // It is not passed on; a request is answered with kMalformed
    kTooLarge,  // over max_message_bytes: `message.kind`, `id`, `tag`, `reply_name` are set as far
                // as known, so that a reply can be tried, and `length` if it is known, else 0:
                // then the connection is beyond saving
    kError,     // not this protocol, or broken; the same holds for `message`
  };
  Status status = Status::kNeedMore;
  size_t need = 0;
  std::string_view error;  // static text: what was wrong
  // Bytes that were gone through, or will be by Encode, and are not on the wire: what a compressed
  // message stands for. A peer's turn is over the sooner for them.
  size_t unpacked_bytes = 0;

  static DecodeResult NeedMore(size_t need) { return {Status::kNeedMore, need, {}, 0}; }
  static DecodeResult Ok() { return {Status::kMessage, 0, {}, 0}; }
  static DecodeResult Undecodable(std::string_view why) {
    return {Status::kUndecodable, 0, why, 0};
  }
  static DecodeResult TooLarge(std::string_view why) { return {Status::kTooLarge, 0, why, 0}; }
  static DecodeResult Error(std::string_view why) { return {Status::kError, 0, why, 0}; }
};

// What Encode changes in a message.
struct EncodeOptions {
  uint64_t id = 0;         // stands in place of the message's correlation id
  uint64_t stream_id = 0;  // likewise
  std::span<const MutationOp> mutation = {};
  // Requests whose Message::timeout_us is set: stands in place of that. 0: nothing does.
  uint64_t timeout_us = 0;
};

// What protocols that count milliseconds say of `us`: no less.
inline uint64_t MillisecondsFrom(uint64_t us) { return us / 1000 + (us % 1000 != 0 ? 1 : 0); }

// How a message goes on behind what Encode appended: with the original's bytes [head, length -
// tail_bytes), unchanged, and then with Tail().
struct Encoded {
  size_t head = 0;
  uint8_t tail_bytes = 0;
  // The message cannot be written so that it is taken for what it is (a codec in a library says so
  // of its own), or a request cannot carry a change that is required (MutationOp::required):
  // nothing was appended, nothing of it goes on, and its call or stream fails.
  bool impossible = false;
  std::array<char, 8> tail = {};

  // Of `bytes`, which begin where the message does and go no further than it: what is passed on
  // unchanged.
  Bytes Unchanged(Bytes bytes) const {
    return bytes.substr(head, bytes.size() - head - tail_bytes);
  }
  Bytes Tail() const { return {tail.data(), tail_bytes}; }
};

// What a codec remembers about one direction of one connection (detected transport, how far an
// unfinished scan has come). Codecs without such memory use none. A connection may outlive its
// configuration: then the state outlives the codec that made it, and Decode gets it from one that
// was made of the same options.
class DecodeState {
 public:
  virtual ~DecodeState() = default;
};

struct CodecTraits {
  std::string_view name;  // "dubbo"
  // Width of the correlation id: 0 (none), 32 or 64. With ids, requests of many clients can share
  // one upstream connection and replies may come in any order.
  int id_bits = 0;
  // A connection carries several requests at once, answered in any order (Dubbo). Implies ids.
  bool multiplexed = false;
  // A client may send several requests ahead and expects replies in request order.
  bool ordered_replies = false;
  // The upstream connection has a memory of who uses it (login, transaction).
  bool stateful = false;
  // Servers send requests of their own. Where a connection belongs to one client, they go to that,
  // and its answers back; elsewhere to nobody.
  bool server_requests = false;
  // Mutations touch the head only, so that messages can be streamed and mutated.
  bool mutation_in_head = false;
  // Encode needs the whole message even without a mutation (a checksum at its end): messages are
  // never passed on before they are complete.
  bool whole_to_encode = false;
  // Metadata keys with a fixed meaning, of which an OwnKey is the index: for Metadata::SetOwn, for
  // documentation and `metaprotocol codecs`. Others (attachments, headers) appear under the names
  // the peers gave them, unless these are, but for the case of letters, names of this list.
  std::span<const std::string_view> metadata_keys;
  // Those of them that are known even of messages that nobody here can read (Metadata::SetUnread).
  std::span<const std::string_view> keys_of_unread = {};
};

// Who calls what, and when. `InterestIn` is called once for each configuration, by the thread that
// loads it; `traits` at any time, by any. All others are called by the worker that the connection
// belongs to, and never within one another:
//
//   NewDecodeState                       once for each direction of each connection
//   Decode                               until it says kMessage, then for the next message
//   CheckBody                            for what is passed on of a request before it is whole
//   CarryOver, then Encode               for a response, once, and for each message of a stream
//                                        that comes from the server
//   Encode                               for a request, once for each place it goes to: none, one,
//                                        or several (mirrors, retries), at once or later, then on a
//                                        copy of message and bytes
//   Reply, HeartbeatReply, Ping, GoAway  at any time: what they need is in their arguments
//   ResetStream, GrantWindow             likewise
class Codec {
 public:
  virtual ~Codec() = default;

  virtual const CodecTraits& traits() const = 0;

  // Translates the metadata keys that somebody looks at into this codec's own terms. `keys` begins
  // with traits().metadata_keys, and outlives what is returned. The default wants the whole
  // message.
  virtual Interest InterestIn(const MetadataKeys& keys) const;

  // A new state for one direction of one connection; null where none is needed (the default).
  virtual std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const;

  // Decodes the message that begins at bytes[0]. Called again with the same first bytes and more
  // behind them after kNeedMore; called with the next message's bytes after kMessage. `message` has
  // been cleared for options.interest.keys, and its Metadata tells which of them are wanted.
  // Allocates nothing in the common case and never reads outside `bytes`.
  virtual DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                              const DecodeOptions& options, Message& message) const = 0;

  // More of a request that Decode returned before all of it was there: each byte behind those, once
  // and in order, before it is passed on. `state` is Decode's. Returns what is wrong with the
  // message (static text), which then goes no further, and of which no more is shown; "" (the
  // default, always) if nothing is. The next message begins where this one said that it ends.
  virtual std::string_view CheckBody(DecodeState* state, Bytes part) const;

  // Appends to `out` the beginning of the message with `options` applied, and says how it goes on.
  // `bytes` is what Decode saw, or more of the same message; it is the whole message where
  // traits().whole_to_encode, and where there is a mutation or a timeout without
  // traits().mutation_in_head. Only then may a tail be replaced. A mutation that the message cannot
  // carry is left out, unless some of it is required: see MutationOp. May be called several times
  // for one message (mirrors, retries), and on a copy of it.
  virtual Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                         std::string& out) const = 0;

  // Whether a reply with that status, of ReplyStatus::kError, says that the request was wrong: that
  // there is no such method, that it could not be read. Anybody can have such replies, so they say
  // nothing of the server. The default: never.
  virtual bool BlamesRequest(int32_t status_code) const;

  // Puts into a response, before it is encoded, what of the request's ReplyContext decides how that
  // is done. The default: nothing.
  virtual void CarryOver(const ReplyContext& request, Message& response) const;

  // Appends the protocol's own reply of that kind; `text` is for the human at the other end.
  // Returns false, and appends nothing, if the protocol has no such thing.
  virtual bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                     std::string& out) const = 0;

  // Appends the answer to a kHeartbeat message, in either direction; false: there is none.
  virtual bool HeartbeatReply(const Message& heartbeat, Bytes bytes, std::string& out) const;

  // Appends a message that a server answers at once with a kHeartbeatReply, which then carries
  // `id`: a proof that everything before it has been read. False (the default): there is none.
  virtual bool Ping(uint64_t id, std::string& out) const;

  // Appends what ends a stream for a reason of the proxy's own: once at most for each side, and
  // nothing of the stream follows on it. `stream` holds the ids as the side knows them that is
  // written to, and the tag of the message that opened the stream; `to` is kRequest for what goes
  // to the server, where kUpstreamLost says that the client has gone. False (the default): the
  // protocol has no such message; then a client gets the Reply to what opened the stream.
  virtual bool ResetStream(const ReplyContext& stream, Direction to, LocalReply reason,
                           std::string_view text, std::string& out) const;
  // Appends what lets the sender of a stream go on by `bytes` more; `stream` and `to` as above. Any
  // number of times, but only after a kStreamWindow of the other side, of which this passes on as
  // much as may be in memory. Grants that pass as they are go through Encode instead. False (the
  // default): there is none.
  virtual bool GrantWindow(const ReplyContext& stream, Direction to, uint64_t bytes,
                           std::string& out) const;

  // Appends what tells a client to send no more requests here; `last` is the last request seen on
  // the connection (for its tag). False (the default): the protocol has no such message.
  virtual bool GoAway(const ReplyContext& last, std::string& out) const;
};

}  // namespace metaprotocol
