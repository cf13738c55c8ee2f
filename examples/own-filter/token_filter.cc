// A filter of one's own: calls carry an attachment `token`, "TIER:USER:CHECK", whose last part only
// they can write who know a secret. What is in it decides where a call goes, and its provider
// learns who makes it; calls with any other token are denied.
//
// The check is a sum that anybody could break. It stands for the one that you have.
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "metaprotocol/filter.hpp"

class TokenFilter final : public metaprotocol::ExternalFilter {
 public:
  TokenFilter(const std::string& /*options*/, metaprotocol::FilterSetup setup)
      : secret_(setup.option("secret").value_or("")),
        token_(setup.request_key("token")),
        tier_(setup.request_key("tier")) {
    if (secret_.empty()) throw std::invalid_argument("secret must not be empty");
  }

  static constexpr uint32_t traits() { return METAPROTOCOL_CHANGES_REQUESTS; }

  // What routes see: never a tier that the client has written itself.
  void BeforeRoute(Request& request) const {
    const std::optional<Said> said = Read(request);
    if (!said || !request.Set(tier_, said->tier)) (void)request.Set(tier_, "none");
  }

  Verdict OnRequest(Request& request) const {
    const std::optional<Said> said = Read(request);
    if (!said) return request.Answer("denied", "bring a token");
    const bool changed = request.Change(METAPROTOCOL_REMOVE, "token") &&
                         request.Change(METAPROTOCOL_SET, "user", said->user);
    return changed ? Verdict::kContinue : Verdict::kBroken;
  }

 private:
  struct Said {
    std::string_view tier;
    std::string_view user;
  };

  // What the token says, if it is one of ours.
  std::optional<Said> Read(const Request& request) const {
    const std::string_view token = request.Get(token_).value_or("");
    const size_t first = token.find(':');
    const size_t last = token.rfind(':');
    if (last == std::string_view::npos || first == last) return std::nullopt;
    if (token.substr(last + 1) != Check(token.substr(0, last))) return std::nullopt;
    return Said{token.substr(0, first), token.substr(first + 1, last - first - 1)};
  }

  std::string Check(std::string_view said) const {
    uint32_t sum = 2166136261u;
    for (const std::string_view part : {std::string_view(secret_), said}) {
      for (const char c : part) sum = (sum ^ static_cast<unsigned char>(c)) * 16777619u;
    }
    char text[9];
    std::snprintf(text, sizeof text, "%08x", sum);
    return text;
  }

  const std::string secret_;
  const metaprotocol::RequestKey token_;
  const metaprotocol::RequestKey tier_;
};

METAPROTOCOL_EXPORT_FILTER(TokenFilter, "token", "1")
