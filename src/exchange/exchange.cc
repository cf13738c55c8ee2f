#include "src/exchange/exchange.h"

#include "src/exchange/exchanges.h"

namespace metaprotocol {

uint64_t Exchange::now_us() const { return exchanges_.context_.now_us(); }

uint64_t Exchange::Random() { return exchanges_.context_.Random(); }

void Exchange::Count(Counter counter) {
  // What a fault filter counts of each request that it makes wait.
  if (record_ != nullptr && counter == Counter::kFaultDelays) record_->delayed = true;
  exchanges_.SeriesOf(*this).Add(counter);
}

void Exchange::CountOwn(uint32_t metric, uint64_t delta) {
  exchanges_.FilterSeriesOf(*snapshot_, metric).Add(Counter::kFilterCounter, delta);
}

void Exchange::RecordOwn(uint32_t metric, uint64_t value) {
  exchanges_.FilterSeriesOf(*snapshot_, metric).Record(Histogram::kFilterHistogram, value);
}

void Exchange::Change(const MutationOp& change) {
  if (changes_.empty()) changes_ = route_->request_mutation;
  has_rest_ = true;
  changes_.push_back(change);
  changes_.back().required = true;  // or a client could keep it out by what else it sends
}

void Exchange::ChangeReply(const MutationOp& change) {
  if (reply_changes_.empty()) reply_changes_ = route_->response_mutation;
  has_rest_ = true;
  reply_changes_.push_back(change);
}

void Exchange::StartCall(std::string_view cluster, std::string_view path, Bytes message,
                         uint64_t timeout_us) {
  assert(call_ == 0 && !step_timer_.armed() && "a filter waits for one thing at a time");
  exchanges_.ChooseTarget(*this, Exchanges::SenderOf(*this));
  call_ = exchanges_.context_.NewCall();
  exchanges_.calls_.emplace(call_, this);
  EngineContext& context = exchanges_.context_;
  context.Arm(step_timer_, context.now_us() + timeout_us);
  context.host.StartCall(call_, origin_->handle, cluster, path, message, timeout_us);
}

void Exchange::StartTimer(uint64_t delay_us) {
  assert(call_ == 0 && !step_timer_.armed() && "a filter waits for one thing at a time");
  exchanges_.ChooseTarget(*this, Exchanges::SenderOf(*this));
  exchanges_.context_.Arm(step_timer_, now_us() + delay_us);
}

void Exchange::Send(std::string_view cluster, std::string_view path, Bytes message,
                    uint64_t timeout_us) {
  EngineContext& context = exchanges_.context_;
  context.host.StartCall(context.NewCall(), nullptr, cluster, path, message, timeout_us);
}

}  // namespace metaprotocol
