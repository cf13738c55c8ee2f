// A filter outside the tree as a class: C++17, header only, over the C ABI of
// metaprotocol/filter.h.
//
// Derive from metaprotocol::ExternalFilter, hide those of its functions that you need by ones of
// your own, and export the class once, outside any namespace:
//
//     METAPROTOCOL_EXPORT_FILTER(MyFilter, "my_filter", "1.0")
//
// MyFilter has a constructor that takes the options (JSON text, or "") and a FilterSetup, and
// throws if they are wrong. Other exceptions fail the request: they never leave the library. One
// object serves all requests of all threads, so everything else is const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "metaprotocol/filter.h"
#include "metaprotocol/text.hpp"

namespace metaprotocol {

// Keys, by the numbers that FilterSetup gives them.
enum class RequestKey : int32_t {};
enum class ResponseKey : int32_t {};
// Metrics of the filter's own, likewise.
enum class CounterId : int32_t {};
enum class HistogramId : int32_t {};

// What a filter says of itself while it is made.
class FilterSetup {
 public:
  FilterSetup(const metaprotocol_filter_host& host, void* setup) : host_(host), setup_(setup) {}

  // The codec's name.
  std::string_view protocol() const { return external::Text(host_.protocol(setup_)); }
  // A member of the options: a text as it is, anything else as JSON. Once one was asked for,
  // members that were not are refused.
  std::optional<std::string> option(std::string_view name) {
    metaprotocol_bytes value{};
    if (host_.option(setup_, external::View(name), &value) == 0) return std::nullopt;
    return std::string(external::Text(value));
  }
  // Keys that the filter looks at; throws if there can be none of that name.
  RequestKey request_key(std::string_view name) {
    return RequestKey{Checked(host_.request_key(setup_, external::View(name)), name)};
  }
  ResponseKey response_key(std::string_view name) {
    return ResponseKey{Checked(host_.response_key(setup_, external::View(name)), name)};
  }
  // What the filter counts and measures; throws if it cannot be called so. Hosts that do not know
  // of these keep nothing.
  CounterId counter(std::string_view name) {
    if (host_.size <= offsetof(metaprotocol_filter_host, counter)) return CounterId{-1};
    return CounterId{Checked(host_.counter(setup_, external::View(name)), name, "metric")};
  }
  HistogramId histogram(std::string_view name) {
    if (host_.size <= offsetof(metaprotocol_filter_host, histogram)) return HistogramId{-1};
    return HistogramId{Checked(host_.histogram(setup_, external::View(name)), name, "metric")};
  }

 private:
  static int32_t Checked(int32_t number, std::string_view name, const char* what = "metadata key") {
    if (number >= 0) return number;
    throw std::invalid_argument("\"" + std::string(name) + "\" cannot be a " + what +
                                ", or is one too many");
  }
  const metaprotocol_filter_host& host_;
  void* const setup_;
};

class ExternalFilter {
 public:
  enum class Verdict : int32_t {
    kContinue = METAPROTOCOL_CONTINUE,
    kAnswer = METAPROTOCOL_ANSWER,
    kWait = METAPROTOCOL_WAIT,
    kBroken = -1,  // the request fails
  };
  // What a filter keeps of one request.
  struct State {
    virtual ~State() = default;
  };

  // A request, during a call. What says bool is false if nothing was done, which a filter that
  // lets requests in because of it has to look at.
  class Request {
   public:
    Request(const metaprotocol_filter_host& host, void* request) : host_(host), request_(request) {}

    metaprotocol_request_info info() const {
      metaprotocol_request_info info;
      host_.info(request_, &info);
      return info;
    }
    std::optional<std::string_view> Get(RequestKey key, uint32_t index = 0) const {
      return Get(static_cast<int32_t>(key), index);
    }
    std::optional<std::string_view> Get(ResponseKey key) const {
      return Get(static_cast<int32_t>(key), 0);
    }
    // BeforeRoute: what routes, limits and logs see.
    [[nodiscard]] bool Set(RequestKey key, std::string_view value) {
      return host_.set(request_, static_cast<int32_t>(key), external::View(value)) != 0;
    }
    // What the server gets; traits() has METAPROTOCOL_CHANGES_REQUESTS.
    [[nodiscard]] bool Change(metaprotocol_mutation_kind kind, std::string_view key,
                              std::string_view value = {}) {
      return host_.change(request_, kind, external::View(key), external::View(value)) != 0;
    }
    // What is written into the reply that the client gets; traits() has
    // METAPROTOCOL_CHANGES_REPLIES. False in hosts that do not know it yet, too.
    [[nodiscard]] bool ChangeReply(metaprotocol_mutation_kind kind, std::string_view key,
                                   std::string_view value = {}) {
      constexpr size_t kKnown = offsetof(metaprotocol_filter_host, change_reply);
      if (host_.size <= kKnown) return false;
      return host_.change_reply(request_, kind, external::View(key), external::View(value)) != 0;
    }
    // What the client gets, such as Answer("denied", "no tenant").
    Verdict Answer(const char* reply, std::string_view text = {}) {
      const bool known = host_.answer(request_, reply, external::View(text)) != 0;
      return known ? Verdict::kAnswer : Verdict::kBroken;
    }
    // OnTimer comes then; traits() has METAPROTOCOL_WAITS.
    Verdict Wait(uint64_t delay_us) {
      return host_.wait(request_, delay_us) != 0 ? Verdict::kWait : Verdict::kBroken;
    }
    // Not in BeforeRoute.
    void Count(CounterId counter, uint64_t delta = 1) {
      if (host_.size <= offsetof(metaprotocol_filter_host, count)) return;
      host_.count(request_, static_cast<int32_t>(counter), delta);
    }
    void Record(HistogramId histogram, uint64_t value) {
      if (host_.size <= offsetof(metaprotocol_filter_host, record)) return;
      host_.record(request_, static_cast<int32_t>(histogram), value);
    }
    State* state() const { return static_cast<State*>(host_.state(request_)); }
    void set_state(std::unique_ptr<State> state) {
      if (host_.set_state(request_, state.get()) != 0) state.release();
    }
    uint64_t random() const { return host_.random(request_); }
    uint64_t now_us() const { return host_.now_us(request_); }

   private:
    std::optional<std::string_view> Get(int32_t key, uint32_t index) const {
      metaprotocol_bytes value{};
      if (host_.get(request_, key, index, &value) == 0) return std::nullopt;
      return external::Text(value);
    }
    const metaprotocol_filter_host& host_;
    void* const request_;
  };

  // --- to be hidden; of what is not, nothing is called
  static constexpr uint32_t traits() { return 0; }
  void BeforeRoute(Request&) const {}
  Verdict OnRequest(Request&) const { return Verdict::kContinue; }
  Verdict OnTimer(Request&) const { return Verdict::kContinue; }
  Verdict OnResponse(Request&, const metaprotocol_response_info&) const {
    return Verdict::kContinue;
  }
  void OnEnd(Request&, const metaprotocol_end_info&) const {}
};

namespace external {

// A filter with the host that it was made by.
template <class F>
struct MadeFilter {
  MadeFilter(std::string_view options, const metaprotocol_filter_host& the_host, FilterSetup setup)
      : filter(std::string(options), setup), host(the_host) {}
  const F filter;
  const metaprotocol_filter_host& host;
};

template <auto kFunction, class F, class... Info>
int32_t Ask(void* made, void* request, Info... info) noexcept {
  try {
    const auto& of = *static_cast<const MadeFilter<F>*>(made);
    ExternalFilter::Request asked(of.host, request);
    return static_cast<int32_t>((of.filter.*kFunction)(asked, *info...));
  } catch (...) {
    return static_cast<int32_t>(ExternalFilter::Verdict::kBroken);
  }
}
template <auto kFunction, class F, class... Info>
void Tell(void* made, void* request, Info... info) noexcept {
  try {
    const auto& of = *static_cast<const MadeFilter<F>*>(made);
    ExternalFilter::Request told(of.host, request);
    (of.filter.*kFunction)(told, *info...);
  } catch (...) {  // there is nobody to tell
  }
}

// The table of functions for one class.
template <class F>
metaprotocol_filter_table FilterTable(const char* name, const char* build) {
  metaprotocol_filter_table table{};
  table.abi = METAPROTOCOL_FILTER_ABI;
  table.size = sizeof table;
  table.name = name;
  table.build = build;
  table.traits = F::traits();
  table.create = [](metaprotocol_bytes options, const metaprotocol_filter_host* host, void* setup,
                    const metaprotocol_sink* error) -> void* {
    return Made(error,
                [&] { return new MadeFilter<F>(Text(options), *host, FilterSetup(*host, setup)); });
  };
  table.destroy = [](void* made) { delete static_cast<MadeFilter<F>*>(made); };
  table.delete_state = [](void*, void* state) {
    delete static_cast<ExternalFilter::State*>(state);
  };
  using Base = ExternalFilter;
  if constexpr (!std::is_same_v<decltype(&F::BeforeRoute), decltype(&Base::BeforeRoute)>) {
    table.before_route = Tell<&F::BeforeRoute, F>;
  }
  if constexpr (!std::is_same_v<decltype(&F::OnRequest), decltype(&Base::OnRequest)>) {
    table.on_request = Ask<&F::OnRequest, F>;
  }
  if constexpr (!std::is_same_v<decltype(&F::OnTimer), decltype(&Base::OnTimer)>) {
    table.on_timer = Ask<&F::OnTimer, F>;
  }
  if constexpr (!std::is_same_v<decltype(&F::OnResponse), decltype(&Base::OnResponse)>) {
    table.on_response = Ask<&F::OnResponse, F, const metaprotocol_response_info*>;
  }
  if constexpr (!std::is_same_v<decltype(&F::OnEnd), decltype(&Base::OnEnd)>) {
    table.on_end = Tell<&F::OnEnd, F, const metaprotocol_end_info*>;
  }
  return table;
}

}  // namespace external
}  // namespace metaprotocol

// `build` tells two builds of one filter apart. What is static here is this library's own: a
// variable of an inline function would be one for all libraries of a process.
#define METAPROTOCOL_EXPORT_FILTER(Class, name, build)                    \
  extern "C" const metaprotocol_filter_table* metaprotocol_filter(void) { \
    static const metaprotocol_filter_table table =                        \
        ::metaprotocol::external::FilterTable<Class>(name, build);        \
    return &table;                                                        \
  }
