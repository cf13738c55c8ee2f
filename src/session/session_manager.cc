#include "src/session/session_manager.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {
namespace {

constexpr size_t kDirectWriteBytes = 8192;
constexpr size_t kKeepCapacity = size_t{256} << 10;
// How long an idle draining session stays open after its client was told to go elsewhere, so that a
// request that is already on its way is still answered.
constexpr uint64_t kDrainGraceUs = 1000 * 1000;

Counter CounterFor(ReplyStatus status) {
  switch (status) {
    case ReplyStatus::kOk:
      return Counter::kResponsesOk;
    case ReplyStatus::kException:
      return Counter::kResponsesException;
    case ReplyStatus::kError:
      break;
  }
  return Counter::kResponsesError;
}

void ClearKeepingLittle(std::string& buffer) {
  if (buffer.capacity() > kKeepCapacity) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}

std::string_view TextFor(LocalReply reply) {
  switch (reply) {
    case LocalReply::kNoRoute:
      return "no route matches this request";
    case LocalReply::kClusterNotFound:
      return "the route's cluster does not exist";
    case LocalReply::kNoHealthyUpstream:
      return "no healthy upstream host";
    case LocalReply::kOverLimit:
      return "too many requests in flight";
    case LocalReply::kTimeout:
      return "no reply within the route's timeout";
    case LocalReply::kShuttingDown:
      return "the proxy is shutting down";
    default:
      return LocalReplyName(reply);
  }
}

}  // namespace

SessionManager::~SessionManager() {
  sessions_.ForEach([this](Session& session) {
    session.exchanges.ForEach([](Exchange& exchange) { exchange.deadline.Cancel(); });
    session.Unlink();
    gone_.emplace_back(&session);
  });
}

// --- protocols and snapshots

ProtocolState* SessionManager::ProtocolFor(const std::shared_ptr<ConfigSlot>& slot) {
  auto& protocol = protocols_[slot.get()];
  if (protocol == nullptr) {
    protocol = std::make_unique<ProtocolState>();
    protocol->slot = slot;
  }
  if (protocol->version != slot->version()) Refresh(*protocol);
  return protocol->current != nullptr ? protocol.get() : nullptr;
}

void SessionManager::Refresh(ProtocolState& protocol) {
  SnapshotUse* previous = protocol.current;
  auto snapshot = protocol.slot->Current(protocol.version);
  if (snapshot == nullptr || (previous != nullptr && previous->snapshot == snapshot)) return;
  auto use = std::make_unique<SnapshotUse>();
  use->snapshot = std::move(snapshot);
  use->routes.resize(use->snapshot->route_count);
  if (previous == nullptr) {
    protocol.name = use->snapshot->name;
    protocol.series = &context_.metrics.Get(protocol.name, "-", "-");
  } else {
    const bool compatible = previous->snapshot->codec_key == use->snapshot->codec_key &&
                            previous->snapshot->upstream_mode == use->snapshot->upstream_mode;
    use->upstream_kind = previous->upstream_kind + (compatible ? 0 : 1);
    if (!compatible) hub_->DrainProtocol(protocol);
  }
  protocol.current = use.get();
  ++use->users;  // the protocol itself
  protocol.snapshots.push_back(std::move(use));
  if (previous != nullptr) DropUse(*previous);
}

void SessionManager::DropUse(SnapshotUse& use) { --use.users; }

void SessionManager::DropUnusedSnapshots() {
  for (const auto& [slot, protocol] : protocols_) {
    std::erase_if(protocol->snapshots, [](const auto& use) { return use->users == 0; });
  }
}

// Between two messages a session takes up the newest configuration.
void SessionManager::Refresh(Session& session) {
  ProtocolState& protocol = session.protocol;
  if (protocol.version != protocol.slot->version()) Refresh(protocol);
  if (session.use == protocol.current) return;
  // A connection that has begun in one protocol is not continued in another.
  if (session.use->snapshot->codec_key != protocol.current->snapshot->codec_key) return;
  DropUse(*session.use);
  session.use = protocol.current;
  ++session.use->users;
  session.table =
      &session.use->snapshot->TableFor(session.info.local_address, session.info.local_port);
}

// --- the life of a session

Session* SessionManager::Open(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                              SessionHandle handle) {
  ProtocolState* protocol = draining_ ? nullptr : ProtocolFor(slot);
  if (protocol == nullptr) return nullptr;
  SnapshotUse& use = *protocol->current;
  if (protocol->sessions >= use.snapshot->limits.max_sessions_per_worker) {
    protocol->series->Add(Counter::kSessionsRefused);
    return nullptr;
  }
  ++protocol->sessions;
  ++session_count_;
  protocol->series->Add(Counter::kSessionsOpened);
  protocol->series->Add(Gauge::kSessionsActive, 1);
  ++use.users;
  auto session = std::make_unique<Session>(*protocol, use, std::move(info), handle);
  session->last_activity_us = context_.now_us();
  const uint64_t idle = use.snapshot->limits.idle_timeout_us;
  if (idle != 0) ArmNoLaterThan(*session, context_.now_us() + idle);
  sessions_.PushBack(*session);
  return session.release();  // owned by sessions_, see Forget
}

void SessionManager::Closed(Session& session) {
  if (!session.gone) Forget(session);
}

void SessionManager::Close(Session& session, CloseMode mode) {
  if (session.gone) return;
  if (mode == CloseMode::kFlush) Flush(session);
  const SessionHandle handle = session.handle;
  Forget(session);
  context_.host.CloseSession(handle, mode);
}

// Takes the session out of all books. Its memory stays until the present event is over.
void SessionManager::Forget(Session& session) {
  session.gone = true;
  session.timer.Cancel();
  session.Unlink();
  session.exchanges.ForEach([&](Exchange& exchange) {
    if (!exchange.expects_reply && exchange.state == Exchange::State::kPending) {
      LeaveSession(exchange);  // it is sent without the session as well
      return;
    }
    if (exchange.expects_reply && exchange.state != Exchange::State::kReplied) {
      exchange.series->Add(Counter::kClientGone);
    }
    hub_->Abandon(exchange);
    FinishExchange(exchange);
  });
  hub_->ReleaseOwner(session);
  session.protocol.series->Add(Gauge::kSessionsActive, -1);
  --session.protocol.sessions;
  --session_count_;
  DropUse(*session.use);
  gone_.emplace_back(&session);
}

// --- reading

void SessionManager::Data(Session& session, std::span<const Bytes> slices, bool end_stream) {
  session.last_activity_us = context_.now_us();
  for (const Bytes slice : slices) {
    if (session.gone) return;
    Ingest(session, slice);
  }
  if (end_stream && !session.gone) {
    session.end_stream = true;
    MarkAttention(session);
  }
}

void SessionManager::Ingest(Session& session, Bytes bytes) {
  if (session.stream_remaining != 0) {
    const Bytes part = bytes.substr(0, session.stream_remaining);
    bytes.remove_prefix(part.size());
    session.stream_remaining -= part.size();
    const bool last = session.stream_remaining == 0;
    if (last) {
      session.message_since_us = 0;
      if (session.pause_reasons != 0) MarkAttention(session);
    }
    if (Exchange* exchange = session.sending) {
      if (last) session.sending = nullptr;
      hub_->SendBody(*exchange, part, last);
      if (last && !exchange->expects_reply) Sent(*exchange);
    }
  }
  if (bytes.empty() || session.close_wanted) return;
  if (!session.in.empty() || session.pause_reasons != 0) {
    session.in.Append(bytes);
    if (session.pause_reasons == 0 && session.in.size() >= session.need) ParseBuffered(session);
    return;
  }
  const size_t used = Parse(session, bytes);
  if (!session.gone && used != bytes.size()) session.in.Append(bytes.substr(used));
}

void SessionManager::ParseBuffered(Session& session) {
  const size_t used = Parse(session, session.in.view());
  if (!session.gone) session.in.Consume(used);
}

// Handles every message in `bytes`; returns how many bytes were used up.
size_t SessionManager::Parse(Session& session, Bytes bytes) {
  size_t used = 0;
  session.need = 0;
  while (used < bytes.size() && session.pause_reasons == 0 && !session.close_wanted &&
         !session.gone) {
    Refresh(session);
    const Bytes rest = bytes.substr(used);
    const Snapshot& snapshot = *session.use->snapshot;
    DecodeOptions options;
    options.interest = snapshot.request_interest;
    options.max_message_bytes = snapshot.limits.max_message_bytes;
    options.allow_partial = snapshot.request_interest.head_suffices;
    message_.Clear();
    const DecodeResult result = snapshot.codec->Decode(
        session.decode_state.get(), Direction::kRequest, rest, options, message_);
    if (result.status == DecodeResult::Status::kMessage) {
      const size_t length = message_.length;
      const Bytes part = rest.substr(0, length);
      const bool whole = part.size() == length;
      const bool wait = !whole && length <= snapshot.limits.stream_message_bytes;
      if (wait || !HandleMessage(session, part)) {
        session.need = length;
        break;
      }
      used += part.size();
      session.message_since_us = 0;
      if (!whole) session.stream_remaining = length - part.size();
      continue;
    }
    if (result.status != DecodeResult::Status::kNeedMore) {
      HandleBroken(session, result);
      return used;
    }
    session.need = result.need;
    break;
  }
  const bool unfinished = used < bytes.size() || session.stream_remaining != 0;
  if (unfinished && !session.gone && session.message_since_us == 0) StartMessageClock(session);
  return used;
}

// Bytes that are no message: the protocol's own error reply, if one can be formed, and the end.
void SessionManager::HandleBroken(Session& session, const DecodeResult& result) {
  const bool too_large = result.status == DecodeResult::Status::kTooLarge;
  const LocalReply reply = too_large ? LocalReply::kTooLarge : LocalReply::kMalformed;
  session.protocol.series->Add(Counter::kDownstreamMalformed);
  if (context_.host.LogEnabled(LogLevel::kDebug)) {
    context_.host.Log(LogLevel::kDebug, session.protocol.name + ": closing a connection from " +
                                            session.info.remote_address + ": " +
                                            std::string(result.error));
  }
  if (message_.kind == MessageKind::kRequest && session.replying == nullptr) {
    AnswerLocally(session, *session.protocol.series, reply, result.error);
  }
  Close(session, CloseMode::kFlush);
}

// False: the message is wanted whole.
bool SessionManager::HandleMessage(Session& session, Bytes bytes) {
  const bool whole = bytes.size() == message_.length;
  Series& series = *session.protocol.series;
  switch (message_.kind) {
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
      return HandleRequest(session, bytes);
    case MessageKind::kHeartbeat:
      if (!whole) return false;
      series.Add(Counter::kDownstreamHeartbeats);
      session.use->snapshot->codec->HeartbeatReply(message_, bytes, OutFor(session));
      return true;
    case MessageKind::kHeartbeatReply:
      return true;
    case MessageKind::kResponse:
    case MessageKind::kGoAway:
    case MessageKind::kOther:
      break;
  }
  series.Add(Counter::kDropped);
  return true;
}

bool SessionManager::HandleRequest(Session& session, Bytes bytes) {
  const Snapshot& snapshot = *session.use->snapshot;
  const bool whole = bytes.size() == message_.length;
  session.last_tag = message_.tag;
  if (session.draining) {
    AnswerLocally(session, *session.protocol.series, LocalReply::kShuttingDown,
                  TextFor(LocalReply::kShuttingDown));
    return true;
  }
  const Route* route = session.table->Match({message_.metadata, session.connection});
  if (route == nullptr) {
    AnswerLocally(session, RouteSeries(session, nullptr), LocalReply::kNoRoute,
                  TextFor(LocalReply::kNoRoute));
    return true;
  }
  if (route->is_direct_reply) {
    AnswerLocally(session, RouteSeries(session, route), route->direct_reply,
                  route->direct_reply_text.empty() ? TextFor(route->direct_reply)
                                                   : std::string_view(route->direct_reply_text));
    return true;
  }
  if (!whole && !route->request_mutation.empty() && !snapshot.codec->traits().mutation_in_head) {
    return false;
  }
  Forward(session, *route, bytes);
  return true;
}

void SessionManager::Forward(Session& session, const Route& route, Bytes bytes) {
  const Snapshot& snapshot = *session.use->snapshot;
  SnapshotUse::Target& target = ChooseTarget(session, route);
  Exchange& exchange = NewExchange(session, &route, *target.series);
  std::optional<LocalReply> refused = LocalReply::kClusterNotFound;
  if (target.cluster != nullptr) {
    refused = hub_->Dispatch(exchange, {session.protocol, session, *target.cluster, message_, bytes,
                                        HashOf(session, route)});
  }
  if (refused) {
    Failed(exchange, *refused, TextFor(*refused));
    return;
  }
  target.series->Add(Counter::kRequestBytes, message_.length);
  if (exchange.state == Exchange::State::kSending) session.sending = &exchange;
  if (!exchange.expects_reply && exchange.state == Exchange::State::kNew) {
    Sent(exchange);  // and that is all
    return;
  }
  const uint64_t timeout = route.timeout_us != 0 ? route.timeout_us : snapshot.default_timeout_us;
  if (timeout != 0) context_.Arm(exchange.deadline, context_.now_us() + timeout);
}

SnapshotUse::Target& SessionManager::ChooseTarget(Session& session, const Route& route) {
  SnapshotUse::RouteState& state = session.use->routes[route.index];
  if (state.targets.empty()) state.targets.resize(route.clusters.size());
  size_t choice = 0;
  if (!route.schedule.empty()) {
    choice = route.schedule[state.cursor];
    state.cursor = state.cursor + 1 < route.schedule.size() ? state.cursor + 1 : 0;
  }
  SnapshotUse::Target& target = state.targets[choice];
  if (target.clusters_epoch != hub_->clusters_epoch()) {
    const std::string& name = route.clusters[choice].name;
    target.cluster = hub_->FindCluster(name);
    target.clusters_epoch = hub_->clusters_epoch();
    target.series = &context_.metrics.Get(session.protocol.name, route.name, name);
  }
  return target;
}

Series& SessionManager::RouteSeries(Session& session, const Route* route) {
  Series*& series = route == nullptr ? session.use->no_route_series
                                     : session.use->routes[route->index].own_series;
  if (series == nullptr) {
    series = &context_.metrics.Get(session.protocol.name,
                                   route == nullptr ? std::string_view("-") : route->name, "-");
  }
  return *series;
}

std::optional<uint64_t> SessionManager::HashOf(const Session& session, const Route& route) const {
  if (route.hash_keys.empty()) return std::nullopt;
  std::optional<uint64_t> hash;
  for (const std::string& key : route.hash_keys) {
    const Metadata& source =
        key.starts_with(kConnectionKeyPrefix) ? session.connection : message_.metadata;
    const auto value = source.Find(key);
    if (value) hash = HashKey(*value, hash.value_or(0));
  }
  return hash;
}

// --- exchanges

Exchange& SessionManager::NewExchange(Session& session, const Route* route, Series& series) {
  Exchange& exchange = exchange_pool_.Acquire();
  exchange.state = Exchange::State::kNew;
  exchange.expects_reply = message_.kind == MessageKind::kRequest;
  exchange.session = &session;
  exchange.client.id = message_.id;
  exchange.client.tag = message_.tag;
  exchange.client.name.assign(message_.reply_name);
  exchange.snapshot = session.use;
  ++exchange.snapshot->users;
  exchange.route = route;
  exchange.series = &series;
  exchange.started_us = context_.now_us();
  exchange.bytes = message_.length;
  if (exchange.expects_reply) series.Add(Counter::kRequests);
  series.Add(Gauge::kExchangesActive, 1);
  ++exchange_count_;
  session.exchanges.PushBack(exchange);
  ++session.exchange_count;
  session.bytes_in_flight += exchange.bytes;
  if (TooMuchInFlight(session)) Pause(session, Session::kTooMuchInFlight);
  return exchange;
}

// The hub is done with it already.
void SessionManager::FinishExchange(Exchange& exchange) {
  exchange.deadline.Cancel();
  if (exchange.session != nullptr) LeaveSession(exchange);
  exchange.series->Add(Gauge::kExchangesActive, -1);
  --exchange_count_;
  DropUse(*exchange.snapshot);
  ClearKeepingLittle(exchange.pending);
  exchange.unanswerable = false;
  exchange_pool_.Release(exchange);
}

void SessionManager::LeaveSession(Exchange& exchange) {
  Session& session = *exchange.session;
  IntrusiveList<Exchange, SessionExchangeLink>::Remove(exchange);
  --session.exchange_count;
  session.bytes_in_flight -= exchange.bytes;
  if (session.sending == &exchange) session.sending = nullptr;  // the rest goes nowhere
  if (session.replying == &exchange) session.replying = nullptr;
  ChangeHeld(exchange, ClearKeepingLittle);
  exchange.session = nullptr;
  session.last_activity_us = context_.now_us();
  if (session.pause_reasons != 0 || session.end_stream || session.draining ||
      session.close_wanted) {
    MarkAttention(session);
  }
}

void SessionManager::ExchangeTimer(Exchange& exchange) {
  hub_->Abandon(exchange);
  Failed(exchange, LocalReply::kTimeout, TextFor(LocalReply::kTimeout));
}

// --- replying

// Replies may overtake each other unless the protocol forbids it, but none may begin in the middle
// of another.
bool SessionManager::MayWrite(Session& session, const Exchange& exchange) {
  if (session.replying != nullptr) return session.replying == &exchange;
  if (!session.use->snapshot->codec->traits().ordered_replies) return true;
  return FirstToAnswer(session) == &exchange;
}

// Whose reply is next where they keep their order; null if nobody waits for one.
Exchange* SessionManager::FirstToAnswer(Session& session) {
  return session.exchanges.Find([](const Exchange& exchange) { return exchange.expects_reply; });
}

void SessionManager::Write(Session& session, Bytes bytes) {
  MarkDirty(session);
  if (bytes.size() >= kDirectWriteBytes) {
    Flush(session);
    if (session.unread_since_us != 0) session.unread_bytes += bytes.size();
    context_.host.WriteSession(session.handle, bytes);
    return;
  }
  session.out.append(bytes);
}

// Where a complete message to the client may be appended.
std::string& SessionManager::OutFor(Session& session) {
  MarkDirty(session);
  return session.replying != nullptr ? session.after_reply : session.out;
}

// Answers the present message without an exchange, unless replies must keep their order.
void SessionManager::AnswerLocally(Session& session, Series& series, LocalReply reply,
                                   std::string_view text) {
  if (message_.kind != MessageKind::kRequest) {
    series.Add(LocalReplyCounter(reply));
    return;
  }
  const Codec& codec = *session.use->snapshot->codec;
  if (codec.traits().ordered_replies && FirstToAnswer(session) != nullptr) {
    Failed(NewExchange(session, nullptr, series), reply, text);
    return;
  }
  series.Add(Counter::kRequests);
  series.Add(LocalReplyCounter(reply));
  ReplyContext& context = context_of_message_;
  context.id = message_.id;
  context.tag = message_.tag;
  context.name.assign(message_.reply_name);
  if (!codec.Reply(context, reply, text, OutFor(session))) {
    session.close_wanted = true;
    MarkAttention(session);
  }
}

bool SessionManager::Reply(Exchange& exchange, const Codec& codec, const Message& message,
                           Bytes bytes) {
  static const Mutation kNone;
  Session& session = *exchange.session;
  const bool whole = bytes.size() == message.length;
  const Mutation& mutation = exchange.route != nullptr ? exchange.route->response_mutation : kNone;
  if (!whole && !mutation.empty() && !codec.traits().mutation_in_head) return false;

  exchange.status = message.status;
  exchange.series->Add(Counter::kResponseBytes, message.length);
  exchange.series->Record(Histogram::kRequestTimeUs, context_.now_us() - exchange.started_us);
  const bool direct = MayWrite(session, exchange);
  exchange.state = Exchange::State::kReplying;
  if (direct) {
    const size_t done = codec.Encode(message, bytes, exchange.client.id, mutation, session.out);
    Write(session, bytes.substr(done));
    if (!whole) session.replying = &exchange;
  } else {
    ChangeHeld(exchange, [&](std::string& held) {
      const size_t done = codec.Encode(message, bytes, exchange.client.id, mutation, held);
      held.append(bytes.substr(done));
    });
    MarkDirty(session);
  }
  if (whole) CompleteReply(exchange, direct);
  return true;
}

void SessionManager::ReplyBody(Exchange& exchange, Bytes bytes, bool last) {
  Session& session = *exchange.session;
  const bool direct = session.replying == &exchange;
  if (direct) {
    Write(session, bytes);
  } else {
    ChangeHeld(exchange, [&](std::string& held) { held.append(bytes); });
    MarkDirty(session);
  }
  if (last) CompleteReply(exchange, direct);
}

// The last byte of the reply has been written (`direct`) or stands in `held`.
void SessionManager::CompleteReply(Exchange& exchange, bool direct) {
  Session& session = *exchange.session;
  if (exchange.state == Exchange::State::kReplying) {
    exchange.series->Add(CounterFor(exchange.status));
  }
  hub_->Finish(exchange);
  exchange.deadline.Cancel();
  if (session.sending == &exchange) session.sending = nullptr;  // the rest goes nowhere
  if (!direct && session.use->snapshot->codec->traits().ordered_replies) {
    exchange.state = Exchange::State::kReplied;
    return;
  }
  if (!direct) OutFor(session).append(exchange.held);
  const bool was_replying = session.replying == &exchange;
  FinishExchange(exchange);
  if (was_replying || !session.exchanges.empty()) WriteHeldReplies(session);
}

// Something that others had to wait for has been written.
void SessionManager::WriteHeldReplies(Session& session) {
  if (session.replying != nullptr) return;
  if (!session.after_reply.empty()) {
    Write(session, session.after_reply);
    ClearKeepingLittle(session.after_reply);
  }
  const bool ordered = session.use->snapshot->codec->traits().ordered_replies;
  if (ordered) {
    while (Exchange* const next = FirstToAnswer(session)) {
      Exchange& first = *next;
      const bool complete = first.state == Exchange::State::kReplied;
      if (!complete && (first.state != Exchange::State::kReplying || first.held.empty())) return;
      if (first.unanswerable) {
        MarkAttention(session);
        return;
      }
      Write(session, first.held);
      ChangeHeld(first, ClearKeepingLittle);
      if (!complete) {  // its body is still coming: from here on straight through
        session.replying = &first;
        return;
      }
      FinishExchange(first);
    }
    return;
  }
  session.exchanges.ForEach([&](Exchange& exchange) {
    if (session.replying != nullptr || exchange.held.empty()) return;
    Write(session, exchange.held);
    ChangeHeld(exchange, ClearKeepingLittle);
    session.replying = &exchange;
  });
}

void SessionManager::Sent(Exchange& exchange) {
  exchange.series->Add(Counter::kOneWay);
  FinishExchange(exchange);
}

void SessionManager::Failed(Exchange& exchange, LocalReply reply, std::string_view text) {
  exchange.series->Add(LocalReplyCounter(reply));
  if (!exchange.expects_reply) {
    FinishExchange(exchange);
    return;
  }
  Session& session = *exchange.session;
  if (session.replying == &exchange) {
    // Half of a reply is out; nothing that could follow would be understood.
    FinishExchange(exchange);
    Close(session, CloseMode::kAbort);
    return;
  }
  const Codec& codec = *exchange.snapshot->snapshot->codec;
  const bool direct = MayWrite(session, exchange);
  exchange.state = Exchange::State::kReplied;
  bool said = false;
  ChangeHeld(exchange, [&](std::string& held) {
    held.clear();
    said = codec.Reply(exchange.client, reply, text, direct ? session.out : held);
  });
  if (!said) {
    session.close_wanted = true;
    MarkAttention(session);
    if (codec.traits().ordered_replies) {
      // The client would take the next reply for this one's.
      exchange.unanswerable = true;
      exchange.deadline.Cancel();
      if (session.sending == &exchange) session.sending = nullptr;
    } else {
      FinishExchange(exchange);
    }
    return;
  }
  MarkDirty(session);
  CompleteReply(exchange, direct);
}

// `change` alters exchange.held.
template <typename F>
void SessionManager::ChangeHeld(Exchange& exchange, F&& change) {
  exchange.session->held_bytes -= exchange.held.size();
  change(exchange.held);
  exchange.session->held_bytes += exchange.held.size();
}

// --- back-pressure, timers, draining

bool SessionManager::TooMuchInFlight(const Session& session) {
  const SessionLimits& limits = session.use->snapshot->limits;
  return session.exchange_count >= limits.max_requests_in_flight ||
         session.bytes_in_flight >= limits.max_bytes_in_flight ||
         session.held_bytes >= limits.max_unread_reply_bytes / 2;
}

void SessionManager::Pause(Session& session, Session::PauseReason reason) {
  session.pause_reasons |= reason;
  MarkAttention(session);
}

void SessionManager::Resume(Session& session, Session::PauseReason reason) {
  session.pause_reasons &= static_cast<uint8_t>(~reason);
  MarkAttention(session);
}

// A message that is being passed on is read to its end, however much is in flight: nothing gets
// less before it has gone.
void SessionManager::TellHostWhetherToRead(Session& session) {
  const bool in_message = session.stream_remaining != 0;
  const bool pause = (session.pause_reasons & Session::kRepliesUnread) != 0 ||
                     (session.pause_reasons != 0 && !in_message);
  if (pause == session.host_paused) return;
  session.host_paused = pause;
  if (pause) {
    session.protocol.series->Add(Counter::kReadPaused);
  } else if (session.message_since_us != 0) {
    StartMessageClock(session);  // the wait was ours
  }
  context_.host.PauseSession(session.handle, pause);
}

void SessionManager::StartMessageClock(Session& session) {
  session.message_since_us = context_.now_us();
  const uint64_t timeout = session.use->snapshot->limits.message_timeout_us;
  if (timeout != 0) ArmNoLaterThan(session, context_.now_us() + timeout);
}

void SessionManager::WriteBufferFull(Session& session, bool full) {
  if (session.gone || full == (session.unread_since_us != 0)) return;
  if (!full) {
    session.unread_since_us = 0;
    session.unread_bytes = 0;
    Resume(session, Session::kRepliesUnread);
    return;
  }
  session.unread_since_us = context_.now_us();
  Pause(session, Session::kRepliesUnread);
  const uint64_t timeout = session.use->snapshot->limits.slow_client_timeout_us;
  if (timeout != 0) ArmNoLaterThan(session, context_.now_us() + timeout);
}

void SessionManager::ArmNoLaterThan(Session& session, uint64_t deadline_us) {
  if (session.timer.armed() && session.timer.deadline_us() <= deadline_us) return;
  context_.Arm(session.timer, deadline_us);
}

void SessionManager::SessionTimer(Session& session) {
  const SessionLimits& limits = session.use->snapshot->limits;
  const uint64_t now = context_.now_us();
  // Each condition that holds closes the session; the others say when to look again.
  uint64_t next = TimerWheel::kNever;
  const auto overdue = [&](uint64_t since, uint64_t timeout) {
    if (since == 0 || timeout == 0) return false;
    next = std::min(next, std::max(since + timeout, now + 1));
    return now >= since + timeout;
  };
  if (overdue(session.unread_since_us, limits.slow_client_timeout_us)) {
    session.protocol.series->Add(Counter::kSlowClientsClosed);
    Close(session, CloseMode::kAbort);
    return;
  }
  const bool reading = !session.host_paused;
  if (overdue(reading ? session.message_since_us : 0, limits.message_timeout_us)) {
    session.protocol.series->Add(Counter::kSlowClientsClosed);
    Close(session, CloseMode::kFlush);
    return;
  }
  if (session.draining && now < session.drain_deadline_us) {
    next = std::min(next, session.drain_deadline_us);
  } else if (session.draining && session.exchange_count == 0) {
    Close(session, CloseMode::kFlush);
    return;
  }
  const bool busy = session.exchange_count != 0;
  if (busy) session.last_activity_us = now;
  if (overdue(session.last_activity_us, limits.idle_timeout_us)) {
    session.protocol.series->Add(Counter::kIdleSessionsClosed);
    Close(session, CloseMode::kFlush);
    return;
  }
  if (next != TimerWheel::kNever) context_.Arm(session.timer, next);
}

void SessionManager::StartDraining(Session& session) {
  if (session.draining || session.gone) return;
  session.draining = true;
  ReplyContext last;
  last.tag = session.last_tag;
  const bool told = session.use->snapshot->codec->GoAway(last, OutFor(session));
  session.drain_deadline_us = told ? context_.now_us() + kDrainGraceUs : context_.now_us();
  if (told) ArmNoLaterThan(session, session.drain_deadline_us);
  MarkAttention(session);
}

void SessionManager::DrainAll() {
  draining_ = true;
  sessions_.ForEach([this](Session& session) { StartDraining(session); });
}

void SessionManager::Drain(std::string_view local_address, uint32_t local_port) {
  sessions_.ForEach([&](Session& session) {
    const bool address_fits = local_address.empty() || local_address == "0.0.0.0" ||
                              local_address == "::" || session.info.local_address == local_address;
    if (address_fits && (local_port == 0 || session.info.local_port == local_port)) {
      StartDraining(session);
    }
  });
}

// --- the end of an event

void SessionManager::MarkDirty(Session& session) {
  if (session.dirty) return;
  session.dirty = true;
  dirty_.push_back(&session);
}

void SessionManager::MarkAttention(Session& session) {
  if (session.attention || session.gone) return;
  session.attention = true;
  attention_.push_back(&session);
}

void SessionManager::Flush(Session& session) {
  if (session.out.empty()) return;
  if (session.unread_since_us != 0) session.unread_bytes += session.out.size();
  context_.host.WriteSession(session.handle, session.out);
  ClearKeepingLittle(session.out);
}

void SessionManager::Settle() {
  while (!attention_.empty()) {
    Session& session = *attention_.back();
    attention_.pop_back();
    session.attention = false;
    if (!session.gone) LookAfter(session);
  }
  while (!dirty_.empty()) {
    Session& session = *dirty_.back();
    dirty_.pop_back();
    session.dirty = false;
    if (session.gone) continue;
    Flush(session);
    const size_t waiting = session.unread_bytes + session.held_bytes + session.after_reply.size();
    if (waiting > session.use->snapshot->limits.max_unread_reply_bytes) {
      session.protocol.series->Add(Counter::kSlowClientsClosed);
      Close(session, CloseMode::kAbort);
    }
  }
}

void SessionManager::LookAfter(Session& session) {
  if (!TooMuchInFlight(session)) {
    session.pause_reasons &= static_cast<uint8_t>(~Session::kTooMuchInFlight);
  }
  if (session.pause_reasons == 0 && !session.close_wanted && !session.in.empty() &&
      session.in.size() >= session.need) {
    ParseBuffered(session);
    if (session.gone) return;
  }
  TellHostWhetherToRead(session);
  if (session.gone) return;
  if (session.close_wanted) {
    const Exchange* const next = FirstToAnswer(session);
    if (next != nullptr && next->unanswerable) {
      Close(session, CloseMode::kFlush);
      return;
    }
  }
  if (session.end_stream && session.stream_remaining != 0) {  // the rest will never come
    Close(session, CloseMode::kAbort);
    return;
  }
  if (session.pause_reasons != 0 || session.exchange_count != 0) return;
  const bool drained = session.draining && context_.now_us() >= session.drain_deadline_us;
  if (session.end_stream || session.close_wanted || drained) Close(session, CloseMode::kFlush);
}

}  // namespace metaprotocol
