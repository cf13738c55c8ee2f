// External authorization: a service says which requests may pass, and what their servers are told
// of who has sent them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/filter/filter.h"

namespace metaprotocol {

class ExternalAuthorization final : public Filter {
 public:
  // `protocol`: the codec's name.
  ExternalAuthorization(std::string_view protocol, MetadataKeys& keys);

  std::unique_ptr<const RouteTable> match;  // one rule; the service is not asked about others
  // If it is there, only requests that meet one of its rules are asked about.
  struct Rules {
    std::unique_ptr<const RouteTable> table;
    // What can be told of requests that cannot be read.
    std::unique_ptr<const RouteTable> unread;
  };
  std::optional<Rules> any_of;
  std::string cluster;  // of the service
  uint64_t timeout_us = 200 * 1000;
  bool failure_mode_allow = false;
  size_t max_body_bytes = 0;     // of each message, that the service is told
  std::vector<KeyRef> metadata;  // likewise
  std::vector<std::pair<std::string, std::string>> context;

  // Only the proxy and its service set `key`: what clients say under it, however they write it,
  // goes no further.
  void AddProxyKey(std::string key, MetadataKeys& keys);

  std::string_view name() const override { return "external_authorization"; }
  FilterNeeds needs() const override { return {.request = true, .state = true}; }
  bool WantsWhole(const MatchInput& head) const override {
    return !proxy_keys_.empty() || IsAskedAbout(head);
  }
  RequestVerdict OnRequest(FilterContext& context) const override;
  RequestVerdict OnCallDone(FilterContext& context, std::optional<Bytes> reply) const override;

 private:
  bool IsAskedAbout(const MatchInput& request) const;
  std::string Question(const FilterContext& context) const;
  // What speaks against taking the proxy's own keys away; empty: nothing, they are.
  std::string_view Strip(FilterContext& context) const;

  const std::string protocol_;
  std::vector<KeyRef> service_keys_;
  std::vector<KeyRef> method_keys_;
  std::vector<std::string> proxy_keys_;
};

}  // namespace metaprotocol
