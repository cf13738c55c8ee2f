// Reading: from a client's bytes to requests, their routes, and the exchanges that stand for them.
#include <utility>

#include "src/base/out_buffer.h"
#include "src/session/session_manager.h"

namespace metaprotocol {
namespace {

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

// --- reading

void SessionManager::Data(Session& session, std::span<const Bytes> slices, bool end_stream) {
  session.last_activity_us = context_.now_us();
  // The host may call again while it is called, for another session.
  const size_t outer = std::exchange(bytes_to_come_, 0);
  for (const Bytes slice : slices) bytes_to_come_ += slice.size();
  for (const Bytes slice : slices) {
    if (session.gone) break;
    bytes_to_come_ -= slice.size();
    Ingest(session, slice);
  }
  bytes_to_come_ = outer;
  if (end_stream && !session.gone) {
    session.end_stream = true;
    MarkAttention(session);
  }
}

void SessionManager::Ingest(Session& session, Bytes bytes) {
  if (session.stream_remaining != 0) {
    const Bytes part = bytes.substr(0, session.stream_remaining);
    const Codec& codec = *session.use->snapshot->codec;
    const std::string_view wrong =
        part.empty() ? std::string_view() : codec.CheckBody(session.decode_state.get(), part);
    if (!wrong.empty()) {
      EndStreamed(session, wrong);
      return;
    }
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
    options.allow_partial =
        snapshot.request_interest.head_suffices && !snapshot.codec->traits().whole_to_encode;
    message_.Clear(options.interest.keys);
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
    if (result.status == DecodeResult::Status::kUndecodable) {
      const Bytes part = rest.substr(0, message_.length);
      HandleUndecodable(session, result.error);
      used += part.size();
      session.message_since_us = 0;
      session.stream_remaining = message_.length - part.size();  // goes nowhere
      continue;
    }
    if (result.status != DecodeResult::Status::kNeedMore) {
      HandleBroken(session, result);
      return used;
    }
    session.need = result.need;
    break;
  }
  if (used != 0 && session.draining) MarkAttention(session);
  const bool unfinished = used < bytes.size() || session.stream_remaining != 0;
  if (unfinished && !session.gone && session.message_since_us == 0) StartMessageClock(session);
  return used;
}

void SessionManager::TellMalformed(Session& session, std::string_view consequence,
                                   std::string_view why) {
  session.protocol.series->Add(Counter::kDownstreamMalformed);
  if (!context_.host.LogEnabled(LogLevel::kDebug)) return;
  std::string line = session.protocol.name + ": ";
  line.append(consequence).append(" from ").append(session.info.remote_address);
  context_.host.Log(LogLevel::kDebug, line.append(": ").append(why));
}

// A message whose end is known, and nothing else: it costs nobody but its own call.
void SessionManager::HandleUndecodable(Session& session, std::string_view why) {
  TellMalformed(session, "refusing a message", why);
  session.last_tag = message_.tag;
  AnswerLocally(session, *session.protocol.series, LocalReply::kMalformed, why);
}

// What follows of a message that is being passed on cannot be: the server is left without the rest,
// and the client gets the error reply.
void SessionManager::EndStreamed(Session& session, std::string_view why) {
  TellMalformed(session, "closing a connection", why);
  if (Exchange* exchange = session.sending) {
    hub_->Abandon(*exchange);
    Failed(*exchange, LocalReply::kMalformed, why);
  }
  Close(session, CloseMode::kFlush);
}

// Bytes that are no message: the protocol's own error reply, if one can be formed, and the end.
void SessionManager::HandleBroken(Session& session, const DecodeResult& result) {
  const bool too_large = result.status == DecodeResult::Status::kTooLarge;
  const LocalReply reply = too_large ? LocalReply::kTooLarge : LocalReply::kMalformed;
  TellMalformed(session, "closing a connection", result.error);
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
    case MessageKind::kStreamOpen:
    case MessageKind::kStreamData:
    case MessageKind::kStreamEnd:
    case MessageKind::kStreamReset:
    case MessageKind::kStreamWindow:
      break;
  }
  series.Add(Counter::kDropped);
  return true;
}

bool SessionManager::HandleRequest(Session& session, Bytes bytes) {
  const Snapshot& snapshot = *session.use->snapshot;
  const bool whole = bytes.size() == message_.length;
  session.last_tag = message_.tag;
  if (draining_) {
    AnswerLocally(session, *session.protocol.series, LocalReply::kShuttingDown,
                  TextFor(LocalReply::kShuttingDown));
    return true;
  }
  const Snapshot::Table& table = *session.table;
  const RouteMatch match = table.routes->Match({message_.metadata, session.connection});
  const Route* route = match.route;
  if (match.undecided) {
    AnswerLocally(session, RouteSeries(session, route), LocalReply::kTooLarge,
                  "a value that a route searches through is too long");
    return true;
  }
  if (route == nullptr) {
    AnswerLocally(session, RouteSeries(session, nullptr), LocalReply::kNoRoute,
                  TextFor(LocalReply::kNoRoute));
    return true;
  }
  bool ask = false;
  if (table.global_rate_limit != nullptr) {
    question_ = table.global_rate_limit->Question({message_.metadata, session.connection});
    ask = !question_.empty();
  }
  if (!whole) {
    const bool must_mutate = !route->is_direct_reply && !route->request_mutation.empty() &&
                             !snapshot.codec->traits().mutation_in_head;
    if (must_mutate || ask) return false;
  }
  // From here on the request is not looked at again: it has taken its token.
  if (table.local_rate_limit != nullptr &&
      !table.local_rate_limit->Admit({message_.metadata, session.connection}, context_.now_us())) {
    Series& series = RouteSeries(session, route);
    series.Add(Counter::kLocalRateLimited);
    AnswerLocally(session, series, LocalReply::kOverLimit, "over the local rate limit");
    return true;
  }
  if (ask) {
    Ask(session, *route, bytes, *table.global_rate_limit);
    return true;
  }
  if (route->is_direct_reply) {
    AnswerLocally(session, RouteSeries(session, route), route->direct_reply,
                  DirectReplyText(*route));
    return true;
  }
  Forward(session, *route, bytes);
  return true;
}

std::string_view SessionManager::DirectReplyText(const Route& route) {
  return route.direct_reply_text.empty() ? TextFor(route.direct_reply) : route.direct_reply_text;
}

void SessionManager::Forward(Session& session, const Route& route, Bytes bytes) {
  SnapshotUse::Target& target = ChooseTarget(session, route);
  Dispatch(NewExchange(session, &route, *target.series), target, message_, bytes);
}

// Hands the exchange to the hub, or answers it.
void SessionManager::Dispatch(Exchange& exchange, SnapshotUse::Target& target,
                              const Message& message, Bytes bytes) {
  Session& session = *exchange.session;
  const Route& route = *exchange.route;
  SnapshotUse& use = *exchange.snapshot;
  std::optional<LocalReply> refused = LocalReply::kClusterNotFound;
  std::optional<uint64_t> hash;
  if (!route.hash_keys.empty()) hash = HashOf(session, route, message);
  if (target.cluster != nullptr) {
    const bool arrived = message.length <= bytes.size() + bytes_to_come_;
    refused = hub_->Dispatch(
        exchange, {session.protocol, session, *target.cluster, message, bytes, hash, arrived});
  }
  if (refused) {
    Failed(exchange, *refused, TextFor(*refused));
    return;
  }
  target.series->Add(Counter::kRequestBytes, message.length);
  if (exchange.state == Exchange::State::kSending) session.sending = &exchange;
  if (!exchange.expects_reply && exchange.state == Exchange::State::kNew) {
    Sent(exchange);  // and that is all
  } else {
    const uint64_t timeout =
        route.timeout_us != 0 ? route.timeout_us : use.snapshot->default_timeout_us;
    if (timeout != 0) context_.Arm(exchange.deadline, context_.now_us() + timeout);
  }
  if (!route.mirrors.empty()) MirrorRequest(session, use, route, message, bytes, hash);
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
    LookUp(target, session.protocol, route, route.clusters[choice].name);
  }
  return target;
}

void SessionManager::LookUp(SnapshotUse::Target& target, const ProtocolState& protocol,
                            const Route& route, const std::string& cluster) {
  target.cluster = hub_->FindCluster(cluster);
  target.clusters_epoch = hub_->clusters_epoch();
  target.series = &context_.metrics.Get(protocol.name, route.name, cluster);
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

std::optional<uint64_t> SessionManager::HashOf(const Session& session, const Route& route,
                                               const Message& message) {
  std::optional<uint64_t> hash;
  for (const KeyRef& key : route.hash_keys) {
    const auto value = key.Find({message.metadata, session.connection});
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
  --exchange_count_;
  Recycle(exchange);
}

void SessionManager::Recycle(Exchange& exchange) {
  exchange.series->Add(Gauge::kExchangesActive, -1);
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
  if (exchange.state == Exchange::State::kAsking) {
    Asked(exchange, RateLimitVerdict::kNone);
    return;
  }
  hub_->Abandon(exchange);
  Failed(exchange, LocalReply::kTimeout, TextFor(LocalReply::kTimeout));
}

}  // namespace metaprotocol
