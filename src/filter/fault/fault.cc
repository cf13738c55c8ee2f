#include "src/filter/fault/fault.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "src/codec/local_reply_names.h"

namespace metaprotocol {
namespace {

// The whole text as a number that is not negative.
template <typename Number>
std::optional<Number> ReadNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= 0)) return {};
  return number;
}

}  // namespace

uint64_t RequestedFaults::ChanceOf(const KeyRef& key, const MatchInput& request) const {
  const std::optional<std::string_view> value = key.Find(request);
  if (!value) return max_chance;
  const auto percent = ReadNumber<double>(*value);
  return percent ? std::min(Route::ChanceOf(std::min(*percent, 100.0)), max_chance) : 0;
}

std::optional<FaultDelay> RequestedFaults::DelayOf(const MatchInput& request) const {
  const std::optional<std::string_view> value = delay.Find(request);
  if (!value) return {};
  constexpr uint64_t kUsPerMs = 1000;
  const auto ms = ReadNumber<uint64_t>(*value);
  if (!ms || *ms == 0) return {};
  const uint64_t chance = ChanceOf(delay_percent, request);
  const uint64_t us = std::min(*ms, max_delay_us / kUsPerMs + 1) * kUsPerMs;
  return FaultDelay{.chance = chance, .duration_us = std::min(us, max_delay_us)};
}

std::optional<FaultAbort> RequestedFaults::AbortOf(const MatchInput& request) const {
  const std::optional<std::string_view> value = abort.Find(request);
  if (!value) return {};
  const auto reply = FindLocalReply(*value);
  if (!reply) return {};
  return FaultAbort{.chance = ChanceOf(abort_percent, request), .reply = *reply};
}

RequestVerdict Fault::OnRequest(FilterContext& context) const {
  std::optional<FaultDelay> wanted;
  if (requested) wanted = requested->DelayOf(context.input());
  if (!wanted && MayDelay()) wanted = delay;
  if (!wanted || !context.Draw(wanted->chance)) return OnTimer(context);
  context.StartTimer(wanted->duration_us);
  context.Count(Counter::kFaultDelays);
  return RequestVerdict::kStop;
}

RequestVerdict Fault::OnTimer(FilterContext& context) const {
  constexpr std::string_view kOnPurpose = "a fault on purpose";
  const auto wanted = requested ? requested->AbortOf(context.input()) : std::nullopt;
  const FaultAbort* const with = wanted ? &*wanted : MayAbort() ? &*abort : nullptr;
  if (with == nullptr || !context.Draw(with->chance)) return RequestVerdict::kContinue;
  context.Count(Counter::kFaultAborts);
  // A text that a request has asked for is gone before its client gets it.
  const bool written = !wanted && !abort->text.empty();
  context.Answer(with->reply, written ? std::string_view(abort->text) : kOnPurpose);
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
