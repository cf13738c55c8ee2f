// Questions: requests that wait until a rate limit service has said whether they may pass.
//
// Such a request is an exchange like any other from the beginning: it has its place in the order of
// replies, and counts in its session's bounds. Until the answer, or the limit's timeout, it holds
// its message with a copy of the bytes; the session's end gives it up.
#include <utility>

#include "src/session/session_manager.h"

namespace metaprotocol {

// Takes message_ away, which is whole.
void SessionManager::Ask(Session& session, const Route& route, Bytes bytes,
                         const GlobalRateLimit& limit) {
  SnapshotUse::Target* target = route.is_direct_reply ? nullptr : &ChooseTarget(session, route);
  Series& series = target != nullptr ? *target->series : RouteSeries(session, &route);
  Exchange& exchange = NewExchange(session, &route, series);
  series.Add(Counter::kRateLimitCalls);
  exchange.state = Exchange::State::kAsking;
  exchange.request = std::make_unique<HeldRequest>();
  HeldRequest& request = *exchange.request;
  request.call = ++last_call_;
  request.limit = &limit;
  request.target = target;
  request.bytes.assign(bytes.substr(0, message_.length));
  request.message = std::exchange(message_, Message());
  request.message.Rebase(bytes, request.bytes.data());
  calls_.emplace(request.call, &exchange);
  context_.Arm(exchange.deadline, context_.now_us() + limit.timeout_us);
  // Where one upstream connection serves the session, its requests keep their order.
  if (session.use->snapshot->upstream_mode == UpstreamMode::kPerSession) {
    Pause(session, Session::kAsking);
  }
  context_.host.StartCall(request.call, session.handle, limit.cluster, kShouldRateLimit, question_,
                          limit.timeout_us);
}

void SessionManager::CallDone(CallId call, std::optional<Bytes> message) {
  const auto it = calls_.find(call);
  if (it == calls_.end()) return;
  Asked(*it->second, message ? ReadRateLimitResponse(*message) : RateLimitVerdict::kNone);
}

void SessionManager::Asked(Exchange& exchange, RateLimitVerdict verdict) {
  const std::unique_ptr<HeldRequest> request = StopAsking(exchange);
  if (verdict == RateLimitVerdict::kNone) exchange.series->Add(Counter::kRateLimitFailures);
  if (verdict == RateLimitVerdict::kOverLimit ||
      (verdict == RateLimitVerdict::kNone && request->limit->deny_on_fail)) {
    exchange.series->Add(Counter::kGlobalRateLimited);
    Failed(exchange, LocalReply::kOverLimit, "over the global rate limit");
    return;
  }
  Pass(exchange, *request);
}

// The exchange is as new again, and nobody waits for an answer.
std::unique_ptr<HeldRequest> SessionManager::StopAsking(Exchange& exchange) {
  exchange.state = Exchange::State::kNew;
  exchange.deadline.Cancel();
  calls_.erase(exchange.request->call);
  Session& session = *exchange.session;
  if ((session.pause_reasons & Session::kAsking) != 0) Resume(session, Session::kAsking);
  return std::move(exchange.request);
}

void SessionManager::Pass(Exchange& exchange, const HeldRequest& request) {
  const Route& route = *exchange.route;
  if (route.is_direct_reply) {
    Failed(exchange, route.direct_reply, DirectReplyText(route));
    return;
  }
  // Clusters may have come and gone.
  SnapshotUse::Target& target = *request.target;
  if (target.clusters_epoch != hub_->clusters_epoch()) {
    const size_t choice =
        static_cast<size_t>(&target - exchange.snapshot->routes[route.index].targets.data());
    LookUp(target, exchange.session->protocol, route, route.clusters[choice].name);
  }
  Dispatch(exchange, target, request.message, request.bytes);
}

}  // namespace metaprotocol
