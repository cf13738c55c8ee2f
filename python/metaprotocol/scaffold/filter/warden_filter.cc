// The filter "warden" in a library of its own: denies requests that do not say for whom they are,
// and tells servers who has let the others pass.
#include <optional>
#include <string>
#include <string_view>

#include "metaprotocol/filter.hpp"

class WardenFilter final : public metaprotocol::ExternalFilter {
 public:
  // `options` is JSON; setup.option() reads it, and refuses members that nobody asks for.
  // What else is wrong with them is thrown, as request_key() does for what can be no key.
  WardenFilter(const std::string& /*options*/, metaprotocol::FilterSetup setup)
      : key_(setup.option("key").value_or("tenant")),
        asked_(setup.request_key(key_)),
        denied_(setup.counter("denied")) {}

  static constexpr uint32_t traits() { return METAPROTOCOL_CHANGES_REQUESTS; }

  Verdict OnRequest(Request& request) const {
    const std::optional<std::string_view> found = request.Get(asked_);
    if (!found || found->empty()) {
      request.Count(denied_);
      return request.Answer("denied", "no " + key_);
    }
    const std::string note = "let " + std::string(*found) + " pass";
    // What cannot be written must not be missed: the request fails instead.
    if (!request.Change(METAPROTOCOL_SET, "x-warden", note)) return Verdict::kBroken;
    return Verdict::kContinue;
  }

 private:
  const std::string key_;
  const metaprotocol::RequestKey asked_;
  const metaprotocol::CounterId denied_;  // in Envoy's metric filter_counter
};

METAPROTOCOL_EXPORT_FILTER(WardenFilter, "warden", "1")
