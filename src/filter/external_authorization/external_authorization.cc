#include "src/filter/external_authorization/external_authorization.h"

#include <charconv>

#include "src/codec/called_keys.h"
#include "src/filter/external_authorization/check_messages.h"

namespace metaprotocol {
namespace {

// Metadata may be as long as a message; what the service is told of one key is not.
constexpr size_t kMostValueBytes = 4096;

constexpr std::string_view kDenied = "denied by the authorization service";
constexpr std::string_view kNoVerdict = "the authorization service gave no verdict";
constexpr std::string_view kUnreadable =
    "what this carries cannot be read here, only its server can";
constexpr std::string_view kSpellings = "a key of the proxy's own is there in too many spellings";

// The words of a denial, for as long as they are needed.
class Denial final : public FilterState {
 public:
  explicit Denial(std::string text) : text_(std::move(text)) {}
  std::string_view text() const { return text_; }

 private:
  const std::string text_;
};

std::string_view FirstOf(const std::vector<KeyRef>& keys, const MatchInput& request) {
  for (const KeyRef& key : keys) {
    const std::string_view value = key.Find(request).value_or("");
    if (!value.empty()) return value.substr(0, kMostValueBytes);
  }
  return {};
}

std::string_view OfConnection(const MatchInput& request, std::string_view key) {
  size_t slot = 0;
  while (kConnectionKeys[slot] != key) ++slot;
  return request.connection.First(slot).value_or("");
}

// As Envoy tells it: the first name in the certificate, by kind.
std::string_view PrincipalOf(const MatchInput& request) {
  for (const std::string_view key : {kPeerUriSanKey, kPeerDnsSanKey, kPeerSubjectKey}) {
    const std::string_view name = OfConnection(request, key);
    if (!name.empty()) return name;
  }
  return {};
}

uint32_t PortOf(const MatchInput& request) {
  const std::string_view text = OfConnection(request, kDestinationPortKey);
  uint32_t port = 0;
  std::from_chars(text.data(), text.data() + text.size(), port);
  return port;
}

RequestVerdict Deny(FilterContext& context, std::string_view text) {
  context.Count(Counter::kExternalAuthorizationDenied);
  context.Answer(LocalReply::kDenied, text);
  return RequestVerdict::kAnswered;
}

}  // namespace

ExternalAuthorization::ExternalAuthorization(std::string_view protocol, MetadataKeys& keys)
    : protocol_(protocol) {
  for (const std::string_view key : kServiceKeys) service_keys_.emplace_back(key, keys);
  for (const std::string_view key : kMethodKeys) method_keys_.emplace_back(key, keys);
}

void ExternalAuthorization::AddProxyKey(std::string key, MetadataKeys& keys) {
  keys.WantSpellings(key);
  proxy_keys_.push_back(std::move(key));
}

bool ExternalAuthorization::IsAskedAbout(const MatchInput& request) const {
  const RouteMatch found = match->Match(request);
  if (found.route == nullptr && !found.undecided) return false;
  if (!any_of) return true;
  const RouteMatch met = any_of->table->Match(request);
  if (met.route != nullptr || met.undecided) return true;
  return request.message.unread() && any_of->unread->Match(request).route != nullptr;
}

std::string ExternalAuthorization::Question(const FilterContext& context) const {
  const MatchInput request = context.input();
  CheckRequestWriter writer;
  writer.SetSource(OfConnection(request, kSourceAddressKey), PrincipalOf(request));
  writer.SetDestination(OfConnection(request, kDestinationAddressKey), PortOf(request));
  writer.SetCalled(FirstOf(service_keys_, request), FirstOf(method_keys_, request));
  writer.SetProtocol(protocol_);
  for (const KeyRef& key : metadata) {
    if (const auto value = key.Find(request)) {
      writer.AddMetadata(key.name(), value->substr(0, kMostValueBytes));
    }
  }
  const RequestView& view = context.request();
  writer.SetMessage(view.message.length,
                    view.bytes.substr(0, view.message.length).substr(0, max_body_bytes));
  for (const auto& [key, value] : this->context) writer.AddContext(key, value);
  return writer.Finish();
}

std::string_view ExternalAuthorization::Strip(FilterContext& context) const {
  const Metadata& said = context.input().message;
  if (said.unread()) return kUnreadable;
  if (said.too_many_spellings()) return kSpellings;
  // Whether it is there or not: a codec may know of values that it does not tell as text.
  for (const std::string& key : proxy_keys_) {
    context.Change({MutationOp::Kind::kRemove, key, {}});
  }
  for (const std::string& key : said.spellings()) {
    context.Change({MutationOp::Kind::kRemove, key, {}});
  }
  return {};
}

RequestVerdict ExternalAuthorization::OnRequest(FilterContext& context) const {
  if (!proxy_keys_.empty()) {
    const std::string_view why = Strip(context);
    if (!why.empty()) return Deny(context, why);
  }
  if (!IsAskedAbout(context.input())) return RequestVerdict::kContinue;
  context.StartCall(cluster, kCheckAuthorization, Question(context), timeout_us);
  context.Count(Counter::kExternalAuthorizationCalls);
  return RequestVerdict::kStop;
}

RequestVerdict ExternalAuthorization::OnCallDone(FilterContext& context,
                                                 std::optional<Bytes> reply) const {
  const CheckVerdict verdict = reply ? ReadCheckResponse(*reply) : CheckVerdict{};
  switch (verdict.kind) {
    case CheckVerdict::Kind::kNone:
      context.Count(Counter::kExternalAuthorizationFailures);
      if (failure_mode_allow) return RequestVerdict::kContinue;
      return Deny(context, kNoVerdict);
    case CheckVerdict::Kind::kAllowed:
      for (const MutationOp& change : verdict.changes) context.Change(change);
      return RequestVerdict::kContinue;
    case CheckVerdict::Kind::kDenied:
      break;
  }
  if (verdict.text.empty()) return Deny(context, kDenied);
  auto denial = std::make_unique<Denial>(std::string(kDenied) + ": " + verdict.text);
  const std::string_view text = denial->text();
  context.own_state() = std::move(denial);
  return Deny(context, text);
}

}  // namespace metaprotocol
