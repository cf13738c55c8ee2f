#include "src/filter/concurrency_limit/concurrency_filter.h"

#include <array>
#include <optional>

namespace metaprotocol {
namespace {

// A request that is under way. What it counts against lives as long as the configuration that the
// request began with.
class UnderWay final : public FilterState {
 public:
  UnderWay(ConcurrencyLimit& limit, uint64_t started_us)
      : limit_(&limit), started_us_(started_us) {}
  UnderWay(ConcurrencyTable& table, uint64_t value) : table_(&table), value_(value) {}
  UnderWay(const UnderWay&) = delete;
  UnderWay& operator=(const UnderWay&) = delete;
  ~UnderWay() override {
    if (limit_ != nullptr) limit_->Leave();
    if (table_ != nullptr) table_->Leave(value_);
  }

  // The first time.
  void Answered(uint64_t now_us) {
    if (limit_ != nullptr && !std::exchange(answered_, true)) limit_->Took(started_us_, now_us);
  }

 private:
  ConcurrencyLimit* const limit_ = nullptr;
  ConcurrencyTable* const table_ = nullptr;
  const uint64_t value_ = 0;
  const uint64_t started_us_ = 0;
  bool answered_ = false;
};

void TellAnswered(FilterContext& context, uint64_t now_us) {
  if (FilterState* const state = context.own_state().get()) {
    static_cast<UnderWay*>(state)->Answered(now_us);
  }
}

}  // namespace

void ConcurrencyFilter::ContinueWith(const Filter& filter) const {
  const auto* const before = dynamic_cast<const ConcurrencyFilter*>(&filter);
  if (before == nullptr) return;
  const auto adopt = [](Source& source, const Source& old) {
    if (source.limit != nullptr && old.limit != nullptr &&
        source.limit->settings() == old.limit->settings()) {
      source.limit = old.limit;
    }
    const auto same = [](const KeyRef& a, const KeyRef& b) { return a.name() == b.name(); };
    if (source.table != nullptr && old.table != nullptr &&
        source.table->max_requests() == old.table->max_requests() &&
        std::equal(source.keys.begin(), source.keys.end(), old.keys.begin(), old.keys.end(),
                   same)) {
      source.table = old.table;
    }
  };
  adopt(rest_, before->rest_);
  for (size_t i = 0; i < std::min(sources_.size(), before->sources_.size()); ++i) {
    adopt(sources_[i], before->sources_[i]);
  }
}

RequestVerdict ConcurrencyFilter::OnRequest(FilterContext& context) const {
  const MatchInput request = context.input();
  const RouteMatch rule = rules_->Match(request);
  const Source& source = rule.route == nullptr ? rest_ : sources_[rule.route->index];
  // One of which it cannot be told what it counts against may not pass.
  bool passes = !rule.undecided;
  if (passes && source.limit != nullptr) {
    passes = source.limit->Enter();
    if (passes) context.own_state() = std::make_unique<UnderWay>(*source.limit, context.now_us());
  } else if (passes && source.table != nullptr) {
    std::array<std::string_view, kMostKeys> values;
    for (size_t i = 0; i < source.keys.size(); ++i) {
      values[i] = source.keys[i].Find(request).value_or("");
    }
    const auto value = source.table->Enter({values.data(), source.keys.size()});
    passes = value.has_value();
    if (passes) context.own_state() = std::make_unique<UnderWay>(*source.table, *value);
  }
  if (passes) return RequestVerdict::kContinue;
  context.Count(Counter::kConcurrencyLimited);
  context.Answer(LocalReply::kOverLimit, "too many requests are under way");
  return RequestVerdict::kAnswered;
}

ResponseVerdict ConcurrencyFilter::OnResponse(FilterContext& context,
                                              const ResponseHead& /*head*/) const {
  TellAnswered(context, context.now_us());
  return ResponseVerdict::kContinue;
}

void ConcurrencyFilter::OnEnd(FilterContext& context, const Outcome& outcome) const {
  // Who has not been answered in time has taken long.
  const bool late = outcome.kind == Outcome::Kind::kAnswered &&
                    outcome.reply == LocalReply::kTimeout && outcome.attempts != 0;
  if (late) TellAnswered(context, outcome.ended_us);
}

}  // namespace metaprotocol
