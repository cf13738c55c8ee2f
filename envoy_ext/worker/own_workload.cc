#include "envoy_ext/worker/own_workload.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>

namespace metaprotocol::envoy {
namespace {

constexpr const char* kLabelsFile = "/etc/istio/pod/labels";
// Kubernetes allows 64 labels of some hundred bytes each, and more of them in practice.
constexpr size_t kMostLabelBytes = size_t{64} << 10;

std::string_view Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

std::string ReadLabelsFile() {
  std::ifstream file(kLabelsFile, std::ios::binary);
  std::string text(kMostLabelBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

}  // namespace

std::map<std::string, std::string, std::less<>> ParsePodLabels(std::string_view text) {
  std::map<std::string, std::string, std::less<>> labels;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    std::string_view value = line.substr(equals + 1);
    if (value.size() < 2 || !value.starts_with('"') || !value.ends_with('"')) continue;
    // The characters of labels' values need no escapes.
    labels.emplace(line.substr(0, equals), value.substr(1, value.size() - 2));
  }
  return labels;
}

Workload WorkloadFrom(std::string_view (*environment)(const char* name),
                      std::string_view labels_file) {
  auto labels = ParsePodLabels(labels_file);
  const auto more = nlohmann::json::parse(environment("ISTIO_METAJSON_LABELS"), nullptr, false);
  if (more.is_object()) {
    for (const auto& [name, value] : more.items()) {
      if (value.is_string()) labels.insert_or_assign(name, value.get<std::string>());
    }
  }
  const auto label = [&](std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      const auto found = labels.find(name);
      if (found != labels.end() && !found->second.empty()) return found->second;
    }
    return std::string();
  };

  Workload own;
  own.name = environment("ISTIO_META_WORKLOAD_NAME");
  own.name_space = environment("POD_NAMESPACE");
  own.cluster = environment("ISTIO_META_CLUSTER_ID");
  own.canonical_service =
      label({"service.istio.io/canonical-name", "app.kubernetes.io/name", "app"});
  if (own.canonical_service.empty()) own.canonical_service = own.name;
  own.canonical_revision =
      label({"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"});
  if (own.canonical_revision.empty() && !own.canonical_service.empty()) {
    own.canonical_revision = "latest";
  }
  own.app = label({"app"});
  if (own.app.empty()) own.app = own.canonical_service;
  own.version = label({"version"});
  if (own.version.empty()) own.version = own.canonical_revision;
  const std::string_view account = environment("SERVICE_ACCOUNT");
  if (!account.empty() && !own.name_space.empty()) {
    std::string_view domain = environment("TRUST_DOMAIN");
    if (domain.empty()) domain = "cluster.local";
    own.principal.append("spiffe://").append(domain).append("/ns/").append(own.name_space);
    own.principal.append("/sa/").append(account);
  }
  return own;
}

const Workload& OwnWorkload() {
  static const Workload* const kOwn =
      std::make_unique<const Workload>(WorkloadFrom(&Environment, ReadLabelsFile())).release();
  return *kOwn;
}

}  // namespace metaprotocol::envoy
