#include "src/filter/library/library_filter.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "src/codec/library_text.h"
#include "src/codec/local_reply_names.h"
#include "src/codec/utf8.h"
#include "src/filter/library/filter_table.h"

namespace metaprotocol {

using library::Text;
using library::View;

// --- what a library sees

struct LibraryFilter::Setup {
  LibraryFilter& filter;
  const FilterSurroundings& surroundings;
  const nlohmann::json options;
  std::map<std::string, std::string, std::less<>> asked =
      {};  // names, and the values that were told
};

// How much may be changed.
struct LibraryFilter::ChangeBudget {
  size_t changes = 0;
  size_t bytes = 0;

  // Whether there is room for one more change; takes it.
  bool Take(std::string_view key, std::string_view value) {
    const size_t more = key.size() + value.size();
    if (changes >= kMostChanges || more > kMostChangedBytes - bytes) return false;
    ++changes;
    bytes += more;
    return true;
  }
};

// One call of one of the library's functions.
struct LibraryFilter::Call {
  enum class Phase : uint8_t { kBeforeRoute, kRequest, kResponse, kEnd };

  const LibraryFilter& filter;
  Phase phase;
  FilterContext* context = nullptr;                // null in kBeforeRoute
  Metadata* message = nullptr;                     // kBeforeRoute
  const ConnectionMetadata* connection = nullptr;  // likewise
  const ResponseHead* response = nullptr;          // kResponse

  // What it has asked for.
  std::optional<LocalReply> answer = {};
  std::string text = {};
  uint64_t wait_us = 0;
  ChangeBudget budget = {};

  static Call& Of(void* request) { return *static_cast<Call*>(request); }
  // The change that the library wants; nothing if it has not the trait, or there can be no such.
  std::optional<MutationOp> Checked(uint32_t trait, ChangeBudget& from, int32_t kind,
                                    metaprotocol_bytes key, metaprotocol_bytes value) const {
    const auto known = KindOf(kind);
    if (!known || (filter.table_.traits & trait) == 0 || key.size == 0 || key.size > kLongestKey ||
        !from.Take(Text(key), Text(value)) || !IsUtf8(Text(key)) || !IsUtf8(Text(value))) {
      return std::nullopt;
    }
    return MutationOp{*known, std::string(Text(key)), std::string(Text(value))};
  }
  static std::optional<MutationOp::Kind> KindOf(int32_t kind) {
    switch (kind) {
      case METAPROTOCOL_SET:
        return MutationOp::Kind::kSet;
      case METAPROTOCOL_ADD_IF_ABSENT:
        return MutationOp::Kind::kAddIfAbsent;
      case METAPROTOCOL_REMOVE:
        return MutationOp::Kind::kRemove;
      default:
        return std::nullopt;
    }
  }
};

// What one filter keeps of one request.
class LibraryFilter::State final : public FilterState {
 public:
  explicit State(const LibraryFilter& filter) : filter_(filter) {}
  ~State() override { Set(nullptr); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void* get() const { return own_; }
  void Set(void* own) {
    void* const before = std::exchange(own_, own);
    if (before != nullptr && before != own) filter_.table_.delete_state(filter_.filter_, before);
  }

  std::string text;  // of the answer
  uint32_t waits = 0;
  ChangeBudget of_reply;  // for all of its attempts together

 private:
  const LibraryFilter& filter_;
  void* own_ = nullptr;
};

const metaprotocol_filter_host& LibraryFilter::Host() {
  using Phase = Call::Phase;
  static constexpr metaprotocol_filter_host kHost = {
      .size = sizeof(metaprotocol_filter_host),
      .protocol = [](void* setup) -> metaprotocol_bytes {
        return View(static_cast<Setup*>(setup)->surroundings.protocol);
      },
      .option = [](void* setup, metaprotocol_bytes name, metaprotocol_bytes* value) -> int32_t {
        auto& [filter, surroundings, options, asked] = *static_cast<Setup*>(setup);
        const auto known = asked.emplace(Text(name), "").first;
        const auto found = options.find(known->first);
        if (found == options.end()) return 0;
        known->second = found->is_string() ? found->get<std::string>() : found->dump();
        *value = View(known->second);
        return 1;
      },
      .request_key = [](void* setup, metaprotocol_bytes name) -> int32_t {
        auto& [filter, surroundings, options, asked] = *static_cast<Setup*>(setup);
        const std::string_view key = Text(name);
        std::vector<RequestKey>& keys = filter.request_keys_;
        if (key.empty() || key.size() > kLongestKey || keys.size() >= kMostKeys) return -1;
        const bool of_connection = IsConnectionKey(key);
        if (of_connection && std::find(kConnectionKeys.begin(), kConnectionKeys.end(), key) ==
                                 kConnectionKeys.end()) {
          return -1;
        }
        keys.push_back({KeyRef(key, surroundings.request_keys),
                        !of_connection && !surroundings.request_keys.IsOwn(key)});
        return static_cast<int32_t>(keys.size() - 1);
      },
      .response_key = [](void* setup, metaprotocol_bytes name) -> int32_t {
        auto& [filter, surroundings, options, asked] = *static_cast<Setup*>(setup);
        const std::string_view key = Text(name);
        std::vector<std::string>& keys = filter.response_keys_;
        if (key.empty() || key.size() > kLongestKey || keys.size() >= kMostKeys ||
            IsConnectionKey(key)) {
          return -1;
        }
        surroundings.response_keys.Want(key);
        keys.emplace_back(key);
        return static_cast<int32_t>(keys.size() - 1);
      },
      .info =
          [](void* request, metaprotocol_request_info* info) {
            const Call& call = Call::Of(request);
            *info = {};
            info->size = sizeof *info;
            if (call.context == nullptr || call.phase == Phase::kEnd) return;
            info->route = View(call.context->route().name);
            info->expects_reply = call.context->expects_reply() ? 1 : 0;
            if (call.phase != Phase::kRequest) return;
            const Message& message = call.context->request().message;
            info->length = message.length;
            info->timeout_us = message.timeout_us;
            info->kind = static_cast<uint8_t>(message.kind);
          },
      .get = [](void* request, int32_t key, uint32_t index, metaprotocol_bytes* value) -> int32_t {
        const Call& call = Call::Of(request);
        const auto place = static_cast<size_t>(key);
        if (key < 0 || call.phase == Phase::kEnd) return 0;
        if (call.phase == Phase::kResponse) {
          if (place >= call.filter.response_keys_.size() || index != 0) return 0;
          // Replies are decoded as the newest configuration asks, which may have other slots.
          const auto found = call.response->metadata.Find(call.filter.response_keys_[place]);
          if (found) *value = View(*found);
          return found ? 1 : 0;
        }
        if (place >= call.filter.request_keys_.size()) return 0;
        const MatchInput input = call.context != nullptr
                                     ? call.context->input()
                                     : MatchInput{*call.message, *call.connection};
        uint32_t seen = 0;
        return call.filter.request_keys_[place].key.AnyValue(input,
                                                             [&](std::string_view found) {
                                                               *value = View(found);
                                                               return seen++ == index;
                                                             })
                   ? 1
                   : 0;
      },
      .set = [](void* request, int32_t key, metaprotocol_bytes value) -> int32_t {
        Call& call = Call::Of(request);
        const auto place = static_cast<size_t>(key);
        if (call.phase != Phase::kBeforeRoute || key < 0 ||
            place >= call.filter.request_keys_.size() ||
            !call.filter.request_keys_[place].may_be_set) {
          return 0;
        }
        const std::string& name = call.filter.request_keys_[place].key.name();
        if (!call.budget.Take(name, Text(value)) || !IsUtf8(Text(value))) return 0;
        call.message->SetNamedCopy(name, std::string(Text(value)));
        return 1;
      },
      .change = [](void* request, int32_t kind, metaprotocol_bytes key,
                   metaprotocol_bytes value) -> int32_t {
        Call& call = Call::Of(request);
        if (call.phase != Phase::kRequest) return 0;
        const auto change =
            call.Checked(METAPROTOCOL_CHANGES_REQUESTS, call.budget, kind, key, value);
        if (change) call.context->Change(*change);
        return change ? 1 : 0;
      },
      .answer = [](void* request, const char* reply, metaprotocol_bytes text) -> int32_t {
        Call& call = Call::Of(request);
        if (reply == nullptr) return 0;
        const auto found = FindLocalReply(std::string_view(reply));
        if (!found) return 0;
        call.answer = *found;
        call.text = MadeUtf8(Text(text).substr(0, kLongestText));
        return 1;
      },
      .wait = [](void* request, uint64_t delay_us) -> int32_t {
        Call& call = Call::Of(request);
        if (call.phase != Phase::kRequest ||
            (call.filter.table_.traits & METAPROTOCOL_WAITS) == 0 ||
            call.filter.StateOf(*call.context).waits >= kMostWaits) {
          return 0;
        }
        call.wait_us = std::clamp(delay_us, uint64_t{1}, kLongestWaitUs);
        return 1;
      },
      .state = [](void* request) -> void* {
        const Call& call = Call::Of(request);
        if (call.context == nullptr) return nullptr;
        const auto* const state = static_cast<const State*>(call.context->own_state().get());
        return state == nullptr ? nullptr : state->get();
      },
      .set_state = [](void* request, void* own) -> int32_t {
        const Call& call = Call::Of(request);
        if (call.context == nullptr || call.filter.table_.delete_state == nullptr) return 0;
        call.filter.StateOf(*call.context).Set(own);
        return 1;
      },
      .random = [](void* request) -> uint64_t {
        const Call& call = Call::Of(request);
        return call.context == nullptr ? 0 : call.context->Random();
      },
      .now_us = [](void* request) -> uint64_t {
        const Call& call = Call::Of(request);
        return call.context == nullptr ? 0 : call.context->now_us();
      },
      .change_reply = [](void* request, int32_t kind, metaprotocol_bytes key,
                         metaprotocol_bytes value) -> int32_t {
        const Call& call = Call::Of(request);
        if (call.phase != Phase::kRequest && call.phase != Phase::kResponse) return 0;
        ChangeBudget& budget = call.filter.StateOf(*call.context).of_reply;
        const auto change = call.Checked(METAPROTOCOL_CHANGES_REPLIES, budget, kind, key, value);
        if (change) call.context->ChangeReply(*change);
        return change ? 1 : 0;
      },
      .counter = [](void* setup, metaprotocol_bytes name) -> int32_t {
        auto& [filter, surroundings, options, asked] = *static_cast<Setup*>(setup);
        return filter.AddMetric(surroundings, Text(name), false);
      },
      .histogram = [](void* setup, metaprotocol_bytes name) -> int32_t {
        auto& [filter, surroundings, options, asked] = *static_cast<Setup*>(setup);
        return filter.AddMetric(surroundings, Text(name), true);
      },
      .count = [](void* request, int32_t counter, uint64_t delta) -> int32_t {
        const Call& call = Call::Of(request);
        const OwnMetric* const metric = call.filter.MetricOf(call, counter, false);
        if (metric != nullptr) call.context->CountOwn(metric->number, delta);
        return metric != nullptr ? 1 : 0;
      },
      .record = [](void* request, int32_t histogram, uint64_t value) -> int32_t {
        const Call& call = Call::Of(request);
        const OwnMetric* const metric = call.filter.MetricOf(call, histogram, true);
        if (metric != nullptr) call.context->RecordOwn(metric->number, value);
        return metric != nullptr ? 1 : 0;
      },
  };
  return kHost;
}

// The same name is the same metric, also in another place where the filter is.
int32_t LibraryFilter::AddMetric(const FilterSurroundings& surroundings, std::string_view name,
                                 bool is_histogram) {
  const auto known = [](char c) {
    return c == '_' || ('a' <= c && c <= 'z') || ('0' <= c && c <= '9');
  };
  if (name.empty() || name.size() > kLongestMetric || metrics_.size() >= kMostMetrics ||
      !std::all_of(name.begin(), name.end(), known)) {
    return -1;
  }
  FilterMetrics& all = surroundings.metrics;
  const auto found = std::find_if(all.begin(), all.end(), [&](const FilterMetric& metric) {
    return metric.filter == table_.name && metric.name == name;
  });
  metrics_.push_back({static_cast<uint32_t>(found - all.begin()), is_histogram});
  if (found == all.end()) all.push_back({table_.name, std::string(name)});
  return static_cast<int32_t>(metrics_.size() - 1);
}

const LibraryFilter::OwnMetric* LibraryFilter::MetricOf(const Call& call, int32_t place,
                                                        bool is_histogram) const {
  const auto index = static_cast<size_t>(place);
  if (place < 0 || index >= metrics_.size() || call.context == nullptr) return nullptr;
  return metrics_[index].is_histogram == is_histogram ? &metrics_[index] : nullptr;
}

// --- what the engine sees

LibraryFilterOrError LibraryFilter::Load(const std::string& path, std::string_view options,
                                         const FilterSurroundings& surroundings) {
  std::string error;
  const metaprotocol_filter_table* const table = LoadFilterTable(path, error);
  if (table == nullptr) return {nullptr, std::move(error)};
  return Make(*table, options, surroundings);
}

LibraryFilterOrError LibraryFilter::Make(const metaprotocol_filter_table& table,
                                         std::string_view options,
                                         const FilterSurroundings& surroundings) {
  std::unique_ptr<LibraryFilter> filter(new LibraryFilter(table));
  filter->mutation_in_head_ = surroundings.mutation_in_head;
  nlohmann::json members = nlohmann::json::parse(options, nullptr, false);
  if (!members.is_object()) members = nlohmann::json::object();
  Setup setup{*filter, surroundings, std::move(members)};
  std::string why;
  filter->filter_ = library::Create(
      [&](const metaprotocol_sink* to) { return table.create(View(options), &Host(), &setup, to); },
      why);
  if (filter->filter_ == nullptr) return {nullptr, MadeUtf8(why), true};
  for (const auto& [name, value] : setup.options.items()) {
    if (setup.asked.empty() || setup.asked.contains(name)) continue;
    std::string known;
    for (const auto& [other, told] : setup.asked) known += (known.empty() ? "" : ", ") + other;
    return {nullptr, "there is no option " + name + "; there are " + known, true};
  }
  return {std::move(filter), ""};
}

LibraryFilter::LibraryFilter(const metaprotocol_filter_table& table)
    : table_(table),
      broken_("the filter " + std::string(table.name) + " has not said what is to become of it") {}

LibraryFilter::~LibraryFilter() {
  if (filter_ != nullptr) table_.destroy(filter_);
}

FilterNeeds LibraryFilter::needs() const {
  return {.before_route = table_.before_route != nullptr,
          .request = table_.on_request != nullptr,
          .response = table_.on_response != nullptr,
          // What stands behind the body has to be there before it can be changed.
          .whole_response = table_.on_response != nullptr && !mutation_in_head_ &&
                            (table_.traits & METAPROTOCOL_CHANGES_REPLIES) != 0,
          .outcome = table_.on_end != nullptr,
          .state = true};
}

bool LibraryFilter::WantsWhole(const MatchInput& /*head*/) const {
  if ((table_.traits & METAPROTOCOL_WAITS) != 0) return true;
  return (table_.traits & METAPROTOCOL_CHANGES_REQUESTS) != 0 && !mutation_in_head_;
}

void LibraryFilter::BeforeRoute(Metadata& message, const ConnectionMetadata& connection) const {
  Call call{.filter = *this, .phase = Call::Phase::kBeforeRoute};
  call.message = &message;
  call.connection = &connection;
  table_.before_route(filter_, &call);
}

RequestVerdict LibraryFilter::OnRequest(FilterContext& context) const {
  Call call{.filter = *this, .phase = Call::Phase::kRequest, .context = &context};
  return Judge(call, table_.on_request(filter_, &call));
}

RequestVerdict LibraryFilter::OnTimer(FilterContext& context) const {
  Call call{.filter = *this, .phase = Call::Phase::kRequest, .context = &context};
  return Judge(call, table_.on_timer(filter_, &call));
}

RequestVerdict LibraryFilter::Judge(Call& call, int32_t verdict) const {
  if (verdict == METAPROTOCOL_CONTINUE) return RequestVerdict::kContinue;
  if (verdict == METAPROTOCOL_WAIT && call.wait_us != 0) {
    ++StateOf(*call.context).waits;
    call.context->StartTimer(call.wait_us);
    return RequestVerdict::kStop;
  }
  if (verdict != METAPROTOCOL_ANSWER) call.answer.reset();
  Answer(call);
  return RequestVerdict::kAnswered;
}

ResponseVerdict LibraryFilter::OnResponse(FilterContext& context, const ResponseHead& head) const {
  Call call{.filter = *this, .phase = Call::Phase::kResponse, .context = &context};
  call.response = &head;
  metaprotocol_response_info info{};
  info.size = sizeof info;
  info.length = head.length;
  info.status_code = head.status_code;
  info.status = static_cast<uint8_t>(head.status);
  const int32_t verdict = table_.on_response(filter_, &call, &info);
  if (verdict == METAPROTOCOL_CONTINUE) return ResponseVerdict::kContinue;
  if (verdict != METAPROTOCOL_ANSWER) call.answer.reset();
  Answer(call);
  return ResponseVerdict::kReplace;
}

void LibraryFilter::OnEnd(FilterContext& context, const Outcome& outcome) const {
  Call call{.filter = *this, .phase = Call::Phase::kEnd, .context = &context};
  metaprotocol_end_info info{};
  info.size = sizeof info;
  const bool ours =
      outcome.kind == Outcome::Kind::kAnswered || outcome.kind == Outcome::Kind::kDropped;
  if (ours) info.reply = View(LocalReplyName(outcome.reply));
  info.host = View(outcome.host_address);
  info.request_bytes = outcome.request_bytes;
  info.response_bytes = outcome.response_bytes;
  info.duration_us = outcome.ended_us - outcome.started_us;
  info.attempts = outcome.attempts;
  info.kind = static_cast<uint8_t>(outcome.kind);
  info.status = static_cast<uint8_t>(outcome.status);
  table_.on_end(filter_, &call, &info);
}

void LibraryFilter::Answer(Call& call) const {
  if (!call.answer) {
    call.context->Answer(LocalReply::kFault, broken_);
    return;
  }
  State& state = StateOf(*call.context);
  state.text = std::move(call.text);
  call.context->Answer(*call.answer, std::string_view(state.text));
}

LibraryFilter::State& LibraryFilter::StateOf(FilterContext& context) const {
  std::unique_ptr<FilterState>& own = context.own_state();
  if (own == nullptr) own = std::make_unique<State>(*this);
  return static_cast<State&>(*own);
}

}  // namespace metaprotocol
