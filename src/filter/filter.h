// Filters: what looks at each request between the moment its route is known and the moment it is
// sent to a server, and at its reply on the way back.
//
// A filter is an immutable part of a configuration. One object serves all requests of all workers,
// so every method is const and what belongs to one request is kept in its FilterContext. Nothing
// here throws, blocks, or allocates when it has nothing to do. The metadata keys that a filter
// looks at are KeyRefs, made when the configuration is loaded: of others nothing is decoded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "src/base/request_view.h"
#include "src/codec/codec.h"
#include "src/codec/mutation.h"
#include "src/observe/metrics.h"
#include "src/route/route.h"
#include "src/route/route_table.h"

namespace metaprotocol {

enum class RequestVerdict : uint8_t {
  kContinue,  // to the next filter, and in the end to a server
  kStop,      // not yet: a call or a timer was started, whose end brings the next verdict
  kAnswered,  // not at all: FilterContext::Answer has said what the client gets
};

enum class ResponseVerdict : uint8_t {
  kContinue,
  kStop,     // not yet: a call or a timer was started, whose end brings the next verdict; only if
             // FilterNeeds::whole_response
  kReplace,  // the client gets what FilterContext::Answer has said, the server's reply is dropped
  kRetry,    // the request is sent once more; only if FilterNeeds::replay, else as kContinue
};

// What a filter wants done for it. Nothing is decoded, kept or called for filters that are not
// there.
struct FilterNeeds {
  bool before_route = false;    // BeforeRoute is called
  bool request = true;          // OnRequest is called
  bool response = false;        // OnResponse is called
  bool whole_response = false;  // replies come whole, and OnResponse may stop
  bool outcome = false;         // OnEnd is called
  bool replay = false;          // requests are kept until their reply, so that they can be retried
  bool state = false;           // FilterContext::own_state() is used

  bool none() const { return !(request || response || whole_response || outcome || replay); }
};

// What a filter keeps of one request from one of its methods to the next.
class FilterState {
 public:
  virtual ~FilterState() = default;
};

// What the filters of a configuration count by themselves, by number.
struct FilterMetric {
  std::string filter;
  std::string name;
};
using FilterMetrics = std::vector<FilterMetric>;

// A reply, of which perhaps only the head has come.
struct ResponseHead {
  ReplyStatus status = ReplyStatus::kOk;
  int32_t status_code = 0;   // the protocol's own, 0 where it has none
  const Metadata& metadata;  // of the keys that filters look at in responses
  size_t length = 0;
};

// How a request ended.
struct Outcome {
  enum class Kind : uint8_t {
    kReplied,     // with a server's reply
    kAnswered,    // with a reply of ours
    kSent,        // it needs no reply and is on its way
    kDropped,     // it needs no reply and was not sent
    kClientGone,  // before there was a reply
  };
  Kind kind = Kind::kReplied;
  ReplyStatus status = ReplyStatus::kOk;      // kReplied
  LocalReply reply = LocalReply::kNoContent;  // kAnswered, kDropped: why
  std::string_view host_address;              // that was tried last; "" if none
  size_t request_bytes = 0;
  size_t response_bytes = 0;
  uint64_t started_us = 0;
  uint64_t ended_us = 0;
  uint32_t attempts = 0;  // on servers
};

// One request, as its filters see it. Good for as long as the call it is passed to.
class FilterContext {
 public:
  // --- the request. In OnResponse and OnEnd only the route is there.
  const RequestView& request() const { return *request_; }
  MatchInput input() const { return {request_->message.metadata, *connection_}; }
  const Route& route() const { return *route_; }
  bool expects_reply() const { return expects_reply_; }
  virtual uint64_t now_us() const = 0;
  // The filter's own for this request, from OnRequest to OnEnd; empty until it puts something
  // there. Only if FilterNeeds::state.
  virtual std::unique_ptr<FilterState>& own_state() = 0;

  // --- what a filter may do
  // Counts under the labels of the request's route, and of its cluster if that was chosen already:
  // it is for a request that waits.
  virtual void Count(Counter counter) = 0;
  // The same for a metric of the filter's own, by its number in FilterMetrics.
  virtual void CountOwn(uint32_t metric, uint64_t delta) = 0;
  virtual void RecordOwn(uint32_t metric, uint64_t value) = 0;
  // What the client gets. `text` lives as long as the configuration, or is static. A request that
  // expects no reply is dropped. To be followed by kAnswered or kReplace.
  void Answer(LocalReply reply, std::string_view text) {
    answer_ = reply;
    answer_text_ = text;
  }
  // A text that is gone before the client gets it.
  template <typename Text>
  requires std::is_same_v<std::remove_cv_t<Text>, std::string>
  void Answer(LocalReply reply, Text&& text) = delete;
  // Written into the request together with its route's own changes, after those. `change` is
  // copied.
  virtual void Change(const MutationOp& change) = 0;
  // Written into the reply that the client gets, likewise; into one of ours as well, where the
  // protocol's can carry it. In OnEnd it is too late.
  virtual void ChangeReply(const MutationOp& change) = 0;
  // Any number, each as likely as any other.
  virtual uint64_t Random() = 0;
  // Whether something comes to pass that does so with this chance, out of Route::kAlways.
  bool Draw(uint64_t chance) {
    return chance >= Route::kAlways || (chance != 0 && Random() >> 32 < chance);
  }
  // Calls the unary gRPC method `path` in `cluster`. To be followed by kStop; OnCallDone comes
  // once, not before OnRequest has returned, and after `timeout_us` at the latest. `message` is
  // copied.
  virtual void StartCall(std::string_view cluster, std::string_view path, Bytes message,
                         uint64_t timeout_us) = 0;
  // To be followed by kStop; OnTimer comes once. (Both: in OnResponse it is OnResponseResumed that
  // comes.)
  virtual void StartTimer(uint64_t delay_us) = 0;
  // A call whose answer nobody waits for, and which goes on when the client has left: for logs and
  // the like. May be used at any time, in OnEnd too.
  virtual void Send(std::string_view cluster, std::string_view path, Bytes message,
                    uint64_t timeout_us) = 0;

 protected:
  ~FilterContext() = default;

  const RequestView* request_ = nullptr;
  const ConnectionMetadata* connection_ = nullptr;
  const Route* route_ = nullptr;
  bool expects_reply_ = true;
  LocalReply answer_ = LocalReply::kNoContent;
  std::string_view answer_text_;
};

class Filter {
 public:
  virtual ~Filter() = default;

  // As in the configuration: "local_rate_limit".
  virtual std::string_view name() const = 0;
  virtual FilterNeeds needs() const { return {}; }
  // Goes on where a filter of the configuration before stood in the same place: with its token
  // buckets, say. Before any other thread knows of this filter.
  virtual void ContinueWith(const Filter& before) const;

  // The metadata of each request before its route is known, which may be changed for those who look
  // at it: with Metadata::SetNamedCopy. Of the table's filters in their order, never of those that
  // a route has in their place. More than once for requests that come in pieces.
  virtual void BeforeRoute(Metadata& message, const ConnectionMetadata& connection) const;

  // Whether OnRequest has to see all of this request, of which the head is there. A filter that may
  // stop has to. Asked of large requests only, any number of times; has no effect.
  virtual bool WantsWhole(const MatchInput& head) const;

  // Once for each request, in the chain's order, until a filter has answered.
  virtual RequestVerdict OnRequest(FilterContext& context) const = 0;
  // The end of what the filter has stopped for; `reply` is the call's, nothing if there was none.
  // kStop is allowed again, with another call or timer.
  virtual RequestVerdict OnCallDone(FilterContext& context, std::optional<Bytes> reply) const;
  virtual RequestVerdict OnTimer(FilterContext& context) const;

  // A server's reply has come, or its head: in the opposite order, until a filter does not
  // continue. Once for each attempt.
  virtual ResponseVerdict OnResponse(FilterContext& context, const ResponseHead& head) const;
  // The end of what OnResponse has stopped for; `reply` is the call's, nothing if there was none.
  // kStop is allowed again.
  virtual ResponseVerdict OnResponseResumed(FilterContext& context, const ResponseHead& head,
                                            std::optional<Bytes> reply) const;

  // The request has ended: once for each request that any filter of the chain was given.
  virtual void OnEnd(FilterContext& context, const Outcome& outcome) const;
};

}  // namespace metaprotocol
