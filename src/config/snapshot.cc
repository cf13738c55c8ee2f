#include "src/config/snapshot.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <utility>

#include "generated/config_schema.h"
#include "src/balance/outlier_detector.h"
#include "src/base/prime.h"
#include "src/config/destination.h"
#include "src/config/filter_loader.h"
#include "src/config/findings.h"
#include "src/config/json_value.h"
#include "src/config/route_loader.h"
#include "src/config/schema_reader.h"
#include "src/config/telemetry_loader.h"
#include "src/filter/direct_reply/direct_reply.h"
#include "src/upstream/connection_count.h"

namespace metaprotocol {
namespace {

template <class T>
T ReadConfig(std::string_view json, ErrorList& errors) {
  T config;
  JsonValue root;
  std::string problem;
  if (ParseJson(json, JsonLimits{}, root, problem)) {
    config::Reader reader(errors);
    ReadMessage(reader, root, &config);
  } else {
    errors.Add("", "", std::move(problem));
  }
  return config;
}

std::vector<ConfigError> AllErrors(ErrorList& reading, Findings& findings) {
  std::vector<ConfigError> errors = reading.Take();
  for (ConfigError& error : findings.errors().Take()) errors.push_back(std::move(error));
  return errors;
}

uint64_t Us(std::chrono::microseconds duration) { return static_cast<uint64_t>(duration.count()); }

SessionLimits LoadLimits(const config::Limits& config) {
  SessionLimits limits;
  limits.max_message_bytes = config.max_message_bytes;
  limits.stream_message_bytes = config.stream_message_bytes;
  limits.max_requests_in_flight = config.max_requests_in_flight;
  limits.max_bytes_in_flight = config.max_bytes_in_flight;
  limits.max_unread_reply_bytes = config.max_unread_reply_bytes;
  limits.max_sessions_per_worker = config.max_sessions_per_worker;
  limits.max_buffered_bytes_per_worker = config.max_buffered_bytes_per_worker;
  limits.max_kept_bytes_per_worker = config.max_kept_bytes_per_worker;
  limits.idle_timeout_us = Us(config.idle_timeout);
  limits.slow_client_timeout_us = Us(config.slow_client_timeout);
  limits.message_timeout_us = Us(config.message_timeout);
  limits.max_streams = config.max_streams;
  limits.stream_idle_timeout_us = Us(config.stream_idle_timeout);
  return limits;
}

// Whether the name of a protocol that the configuration itself brings is free.
bool NameIsFree(const config::Protocol& config, const CodecRegistry& codecs, Findings& findings) {
  const std::vector<std::string_view> names = codecs.Names();
  if (std::find(names.begin(), names.end(), config.codec) == names.end()) return true;
  findings.Error("protocol.codec", QuoteShort(config.codec),
                 std::string("is a codec of this build; a protocol ") +
                     (config.declaration ? "that is declared" : "of a library") +
                     " needs another name");
  return false;
}

std::shared_ptr<const Codec> LoadDeclaredCodec(const config::Protocol& config,
                                               const CodecRegistry& codecs, Findings& findings) {
  if (!NameIsFree(config, codecs, findings)) return nullptr;
  if (!config.options.empty()) {
    findings.Error("protocol.options", Shorten(config.options, 80),
                   "a declared protocol has no options");
  }
  if (!codecs.declared()) {
    findings.Error("protocol.declaration", "", "cannot be used: this build has no declared codecs");
    return nullptr;
  }
  return codecs.declared()(config.codec, *config.declaration, "protocol.declaration", findings);
}

std::shared_ptr<const Codec> LoadLibraryCodec(const config::Protocol& config,
                                              const CodecRegistry& codecs, Findings& findings) {
  if (!NameIsFree(config, codecs, findings)) return nullptr;
  if (!config.library.starts_with('/')) {
    findings.Error("protocol.library", QuoteShort(config.library), "must be an absolute path");
    return nullptr;
  }
  if (!codecs.library()) {
    findings.Error("protocol.library", "", "cannot be used: this build loads no libraries");
    return nullptr;
  }
  LibraryCodecOrError made = codecs.library()(config.codec, config.library, config.options);
  if (made.codec == nullptr && made.of_options) {
    findings.Error("protocol.options", Shorten(config.options, 80), std::move(made.error));
  } else if (made.codec == nullptr) {
    findings.Error("protocol.library", QuoteShort(config.library), std::move(made.error));
  }
  return std::move(made.codec);
}

std::shared_ptr<const Codec> LoadCodec(const config::Protocol& config, const CodecRegistry& codecs,
                                       Findings& findings) {
  if (config.declaration && !config.library.empty()) {
    findings.Error("protocol.library", QuoteShort(config.library),
                   "cannot be together with a declaration");
    return nullptr;
  }
  if (config.declaration) return LoadDeclaredCodec(config, codecs, findings);
  if (!config.library.empty()) return LoadLibraryCodec(config, codecs, findings);
  const std::vector<std::string_view> names = codecs.Names();
  if (std::find(names.begin(), names.end(), config.codec) == names.end()) {
    findings.Error("protocol.codec", QuoteShort(config.codec),
                   "is not a codec of this build; it has " + JoinNames(names));
    return nullptr;
  }
  CodecOrError created = codecs.Create(config.codec, config.options);
  if (created.codec == nullptr) {
    findings.Error("protocol.options", Shorten(config.options, 80), std::move(created.error));
  }
  return std::move(created.codec);
}

// Equal for options that differ in the order of their members only, which is Envoy's to choose.
std::string CodecKey(const config::Protocol& config, std::string_view json) {
  if (config.declaration) {
    const auto root = nlohmann::json::parse(json, nullptr, false);
    const auto protocol = root.is_object() ? root.find("protocol") : root.end();
    if (protocol == root.end() || !protocol->is_object()) return config.codec;
    return config.codec + ' ' + protocol->value("declaration", nlohmann::json()).dump();
  }
  const auto options = nlohmann::json::parse(config.options, nullptr, false);
  std::string key = config.codec;
  if (!config.library.empty()) key.append(" in ").append(config.library);
  const bool none = !options.is_object() || options.empty();
  return none ? key : key + ' ' + options.dump();
}

UpstreamMode LoadUpstreamMode(config::ProtocolUpstreamConnections wanted, const CodecTraits& codec,
                              Findings& findings) {
  using Wanted = config::ProtocolUpstreamConnections;
  const std::string path = "protocol.upstream_connections";
  switch (wanted) {
    case Wanted::AUTOMATIC:
      if (codec.stateful) return UpstreamMode::kPerSession;
      return codec.multiplexed ? UpstreamMode::kShared : UpstreamMode::kExclusive;
    case Wanted::PER_SESSION:
      return UpstreamMode::kPerSession;
    case Wanted::SHARED:
    case Wanted::EXCLUSIVE:
      break;
  }
  const bool shared = wanted == Wanted::SHARED;
  const std::string value = shared ? "\"SHARED\"" : "\"EXCLUSIVE\"";
  if (shared && codec.id_bits == 0) {
    findings.Error(path, value,
                   "messages of " + std::string(codec.name) +
                       " have no correlation id to tell clients apart; allowed are AUTOMATIC, "
                       "EXCLUSIVE, PER_SESSION");
  }
  if (codec.stateful) {
    findings.Warn(
        path, value,
        "connections of " + std::string(codec.name) +
            " remember their client (login, transaction), and another client will use them");
  }
  return shared ? UpstreamMode::kShared : UpstreamMode::kExclusive;
}

class TableLoader {
 public:
  TableLoader(const config::ProxyConfig& config, Snapshot& snapshot, Findings& findings)
      : config_(config),
        findings_(findings),
        keys_(snapshot.request_keys),
        surroundings_{config.protocol.codec,
                      snapshot.codec != nullptr && snapshot.codec->traits().mutation_in_head,
                      snapshot.request_keys, snapshot.response_keys, snapshot.filter_metrics},
        routes_(keys_, snapshot.response_keys, findings, config.default_timeout) {}

  void Load(Snapshot& snapshot) {
    for (size_t i = 0; i < config_.route_tables.size(); ++i) LoadTable(i, snapshot);
    snapshot.route_count = routes_.route_count();
  }

 private:
  void LoadTable(size_t position, Snapshot& snapshot) {
    const config::RouteTable& config = config_.route_tables[position];
    const std::string path = "route_tables[" + std::to_string(position) + "]";
    const auto [before, is_new] = names_.emplace(config.name, position);
    if (!is_new) {
      findings_.Error(path + ".name", QuoteShort(config.name),
                      "is the name of route_tables[" + std::to_string(before->second) +
                          "] already; names must be unique");
    }
    if (position > 0 && config.destinations.empty()) {
      findings_.Warn(path, "", "has no destinations and is not the first: no connection uses it");
    }
    Snapshot::Table table;
    for (size_t i = 0; i < config.destinations.size(); ++i) {
      LoadDestination(config.destinations[i], position,
                      path + ".destinations[" + std::to_string(i) + "]", table);
    }
    table.routes = routes_.Load(config, path);
    LoadFilters(config, path, table);
    LoadRouteFilters(config, path, table);
    snapshot.tables.push_back(std::move(table));
  }

  void LoadFilters(const config::RouteTable& config, const std::string& path,
                   Snapshot::Table& table) {
    const auto add = [&](const std::string& name, std::shared_ptr<const Filter> filter) {
      table.filters.push_back({name, std::move(filter)});
    };
    if (config.custom_authorization) {
      add("custom_authorization",
          LoadExternalAuthorization(*config.custom_authorization, config_.protocol.codec,
                                    path + ".custom_authorization", keys_, findings_));
    }
    if (config.authorization) {
      add("authorization",
          LoadAuthorization(*config.authorization, path + ".authorization", keys_, findings_));
    }
    if (config.external_authorization) {
      add("external_authorization",
          LoadExternalAuthorization(*config.external_authorization, config_.protocol.codec,
                                    path + ".external_authorization", keys_, findings_));
    }
    if (config.local_rate_limit) {
      add("local_rate_limit", LoadLocalRateLimit(*config.local_rate_limit,
                                                 path + ".local_rate_limit", keys_, findings_));
    }
    if (config.global_rate_limit) {
      add("global_rate_limit", LoadGlobalRateLimit(*config.global_rate_limit,
                                                   path + ".global_rate_limit", keys_, findings_));
    }
    if (config.concurrency_limit) {
      add("concurrency_limit", LoadConcurrencyLimit(*config.concurrency_limit,
                                                    path + ".concurrency_limit", keys_, findings_));
    }
    for (size_t i = 0; i < config.filters.size(); ++i) {
      const config::Filter& from = config.filters[i];
      const std::string place = path + ".filters[" + std::to_string(i) + "]";
      if (PositionOf(table, from.name)) {
        findings_.Error(place + ".name", QuoteShort(from.name),
                        "is the name of another filter of the table; names must be unique");
      }
      add(from.name, LoadFilter(from, place, surroundings_, findings_));
    }
  }

  void LoadRouteFilters(const config::RouteTable& config, const std::string& path,
                        Snapshot::Table& table) {
    const auto first_route = routes_.route_count() - static_cast<uint32_t>(config.routes.size());
    for (size_t i = 0; i < config.routes.size(); ++i) {
      const config::Route& route = config.routes[i];
      for (size_t j = 0; j < route.filters.size(); ++j) {
        const config::RouteFilter& from = route.filters[j];
        const std::string place =
            path + ".routes[" + std::to_string(i) + "].filters[" + std::to_string(j) + "]";
        const std::optional<size_t> position = PositionOf(table, from.name);
        if (!position) {
          findings_.Error(place + ".name", QuoteShort(from.name), "is no filter of the table");
          continue;
        }
        if (from.disabled && !*from.disabled) {
          findings_.Error(place + ".disabled", "false", "must be true, or not be there");
        }
        Snapshot::Table::RouteFilter other;
        other.route = first_route + static_cast<uint32_t>(i);
        other.position = *position;
        if (!from.disabled) {
          other.filter = LoadFilter(from, place, surroundings_, findings_);
        }
        table.route_filters.push_back(std::move(other));
      }
    }
  }

  static std::optional<size_t> PositionOf(const Snapshot::Table& table, const std::string& name) {
    for (size_t i = 0; i < table.filters.size(); ++i) {
      if (table.filters[i].name == name) return i;
    }
    return std::nullopt;
  }

  void LoadDestination(const std::string& text, size_t position, const std::string& path,
                       Snapshot::Table& table) {
    auto destination = NormalizeDestination(text);
    if (!destination) {
      return findings_.Error(path, QuoteShort(text),
                             "must be an IP address or *, a colon, and a port or *, such as "
                             "10.0.0.1:20880, [fd00::1]:20880, 10.0.0.1:* or *:20880");
    }
    const auto [before, is_new] = destinations_.emplace(*destination, position);
    if (!is_new) {
      return findings_.Error(
          path, QuoteShort(text),
          "is a destination of route_tables[" + std::to_string(before->second) + "] already");
    }
    table.destinations.push_back(std::move(*destination));
  }

  const config::ProxyConfig& config_;
  Findings& findings_;
  MetadataKeys& keys_;
  const FilterSurroundings surroundings_;
  RouteLoader routes_;
  std::map<std::string, size_t> names_;
  std::map<std::string, size_t> destinations_;
};

BalancePolicy::Kind LoadPolicyKind(config::ClusterPolicyPolicy policy) {
  switch (policy) {
    case config::ClusterPolicyPolicy::ROUND_ROBIN:
      return BalancePolicy::Kind::kRoundRobin;
    case config::ClusterPolicyPolicy::LEAST_REQUEST:
      return BalancePolicy::Kind::kLeastRequest;
    case config::ClusterPolicyPolicy::RANDOM:
      return BalancePolicy::Kind::kRandom;
    case config::ClusterPolicyPolicy::RING_HASH:
      return BalancePolicy::Kind::kRingHash;
    case config::ClusterPolicyPolicy::MAGLEV:
      return BalancePolicy::Kind::kMaglev;
  }
  return BalancePolicy::Kind::kRoundRobin;
}

BalancePolicy LoadBalance(const config::ClusterPolicy& config) {
  BalancePolicy balance;
  balance.kind = LoadPolicyKind(config.policy);
  balance.choice_count = config.choice_count;
  balance.minimum_ring_size = config.minimum_ring_size;
  balance.maximum_ring_size = config.maximum_ring_size;
  balance.maglev_table_size = config.maglev_table_size;
  balance.panic_threshold_percent = config.panic_threshold_percent;
  balance.fail_on_panic = config.fail_on_panic;
  balance.overprovisioning_percent = config.overprovisioning_percent;
  return balance;
}

OutlierSettings LoadOutliers(const config::OutlierDetection& config) {
  OutlierSettings settings;
  settings.consecutive_errors = config.consecutive_errors;
  settings.consecutive_gateway_errors = config.consecutive_gateway_errors;
  settings.consecutive_local_origin_failures = config.consecutive_local_origin_failures;
  settings.split_local_origin_errors = config.split_local_origin_errors;
  settings.failure_percentage = config.failure_percentage;
  settings.failure_percentage_volume = config.failure_percentage_volume;
  settings.failure_percentage_hosts = config.failure_percentage_hosts;
  settings.interval_us = Us(config.interval);
  settings.base_ejection_us = Us(config.base_ejection_time);
  settings.max_ejection_us = Us(config.max_ejection_time);
  settings.max_ejection_percent = config.max_ejection_percent;
  settings.statuses = config.status_codes;
  std::sort(settings.statuses.begin(), settings.statuses.end());
  return settings;
}

// Whether anybody looks at any of them.
bool WantsAny(const MetadataKeys& keys) {
  for (uint32_t slot = 0; slot < keys.size(); ++slot) {
    if (keys.wants(slot)) return true;
  }
  return false;
}

}  // namespace

const Snapshot::Table& Snapshot::TableFor(std::string_view address, uint32_t port) const {
  const Table* best = &tables.front();
  int best_fit = 0;
  for (const Table& table : tables) {
    for (const std::string& destination : table.destinations) {
      const int fit = DestinationFit(destination, address, port);
      if (fit <= best_fit) continue;
      best = &table;
      best_fit = fit;
    }
  }
  return *best;
}

void Snapshot::Compile() {
  static const DirectReply kDirectReply;
  chains_.clear();
  chain_of_route_.assign(route_count, nullptr);
  const auto new_chain = [this](const Table& table, const std::vector<const Filter*>& filters,
                                bool direct_reply) {
    auto chain = std::make_unique<FilterChain>();
    for (size_t i = 0; i < table.filters.size(); ++i) {
      if (filters[i] != nullptr) chain->Add(*filters[i]);
    }
    if (direct_reply) chain->Add(kDirectReply);
    return chains_.emplace_back(std::move(chain)).get();
  };
  for (Table& table : tables) {
    std::vector<const Filter*> filters;
    for (const Table::NamedFilter& named : table.filters) {
      filters.push_back(named.filter.get());
      if (named.filter->needs().before_route) table.before_route.push_back(named.filter.get());
    }
    std::unordered_map<uint32_t, std::vector<const Filter*>> of_routes;
    for (const Table::RouteFilter& other : table.route_filters) {
      of_routes.emplace(other.route, filters).first->second[other.position] = other.filter.get();
    }
    const FilterChain* const forwarding = new_chain(table, filters, false);
    const FilterChain* const answering = new_chain(table, filters, true);
    for (const Route* route : table.routes->routes()) {
      const FilterChain* chain = route->is_direct_reply ? answering : forwarding;
      const auto own = of_routes.find(route->index);
      if (own != of_routes.end()) chain = new_chain(table, own->second, route->is_direct_reply);
      chain_of_route_[route->index] = chain;
    }
  }
  request_interest = codec->InterestIn(request_keys);
  // Nobody looks at replies unless somebody does.
  if (WantsAny(response_keys)) {
    response_interest = codec->InterestIn(response_keys);
  }
}

void Snapshot::ContinueWith(const Snapshot& before) const {
  if (telemetry.metrics != nullptr && before.telemetry.metrics != nullptr) {
    telemetry.metrics->ContinueWith(*before.telemetry.metrics);
  }
  // By table and filter, and by route where it has one of its own.
  std::map<std::vector<std::string_view>, const Filter*> filters;
  const auto for_each_filter = [](const Snapshot& snapshot, const auto& f) {
    for (const Table& table : snapshot.tables) {
      const std::string_view name = table.routes->name();
      for (const Table::NamedFilter& named : table.filters) f({name, named.name}, *named.filter);
      if (table.route_filters.empty()) continue;
      std::unordered_map<uint32_t, std::string_view> route_names;
      for (const Route* route : table.routes->routes()) {
        route_names.emplace(route->index, route->name);
      }
      for (const Table::RouteFilter& other : table.route_filters) {
        if (other.filter == nullptr) continue;
        f({name, table.filters[other.position].name, route_names[other.route]}, *other.filter);
      }
    }
  };
  using Place = std::vector<std::string_view>;
  for_each_filter(before, [&](Place place, const Filter& filter) {
    filters.emplace(std::move(place), &filter);
  });
  if (filters.empty()) return;
  for_each_filter(*this, [&](const Place& place, const Filter& filter) {
    const auto it = filters.find(place);
    if (it != filters.end()) filter.ContinueWith(*it->second);
  });
}

SnapshotOrErrors LoadSnapshot(std::string_view json, const CodecRegistry& codecs) {
  ErrorList reading;
  const auto config = ReadConfig<config::ProxyConfig>(json, reading);
  Findings findings(reading);
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->name = config.name;
  snapshot->listener_name = config.listener_name;
  snapshot->limits = LoadLimits(config.limits.value_or(config::Limits{}));
  snapshot->default_timeout_us = Us(config.default_timeout);
  snapshot->codec = LoadCodec(config.protocol, codecs, findings);
  snapshot->codec_key = CodecKey(config.protocol, json);
  if (snapshot->codec != nullptr) {
    snapshot->upstream_mode =
        LoadUpstreamMode(config.protocol.upstream_connections, snapshot->codec->traits(), findings);
  }
  if (snapshot->codec != nullptr) {
    const CodecTraits& traits = snapshot->codec->traits();
    snapshot->request_keys = MetadataKeys(traits.metadata_keys, traits.keys_of_unread);
    snapshot->response_keys = MetadataKeys(traits.metadata_keys);
  }
  TableLoader(config, *snapshot, findings).Load(*snapshot);
  snapshot->telemetry =
      LoadTelemetry(config.access_logs, config.tracing, config.request_metrics,
                    config.generate_request_ids, snapshot->request_keys, findings);

  SnapshotOrErrors result;
  result.errors = AllErrors(reading, findings);
  result.warnings = findings.warnings().Take();
  if (!result.errors.empty()) return result;

  snapshot->Compile();
  result.snapshot = std::move(snapshot);
  return result;
}

namespace {

// `Config` is a ClusterPolicy, or its PriorityBounds.
template <typename Config>
void LoadBounds(const Config& config, PriorityBounds& bounds) {
  bounds.max_leases_per_host = config.max_leases_per_host;
  if (config.max_connections) {
    bounds.connections = std::make_shared<ConnectionCount>(*config.max_connections);
  }
  bounds.max_requests_in_flight = config.max_requests_in_flight;
  bounds.max_pending_requests = config.max_pending_requests;
  bounds.retry_budget_percent = config.retry_budget_percent;
  bounds.min_retries_in_flight = config.min_retries_in_flight;
}

}  // namespace

ClusterPolicyOrErrors LoadClusterPolicy(std::string_view json) {
  ErrorList reading;
  const auto config = ReadConfig<config::ClusterPolicy>(json.empty() ? "{}" : json, reading);
  Findings findings(reading);
  if (config.minimum_ring_size > config.maximum_ring_size) {
    findings.Error(
        "minimum_ring_size", std::to_string(config.minimum_ring_size),
        "must be at most maximum_ring_size, which is " + std::to_string(config.maximum_ring_size));
  }
  if (!IsPrime(config.maglev_table_size)) {
    findings.Error("maglev_table_size", std::to_string(config.maglev_table_size),
                   "must be a prime number, such as 65537");
  }

  using Policy = config::ClusterPolicyPolicy;
  if (config.slow_start &&
      (config.policy == Policy::RING_HASH || config.policy == Policy::MAGLEV)) {
    findings.Error("slow_start", "",
                   "cannot be with consistent hashing, whose keys keep their hosts");
  }

  ClusterPolicyOrErrors result;
  result.errors = AllErrors(reading, findings);
  if (!result.errors.empty()) return result;
  auto policy = std::make_shared<ClusterPolicy>();
  policy->balance = LoadBalance(config);
  LoadBounds(config, *policy);
  if (config.high_priority) LoadBounds(*config.high_priority, policy->high);
  policy->exchanges_per_shared_lease = config.exchanges_per_shared_lease;
  policy->max_shared_leases_per_host = config.max_shared_leases_per_host;
  policy->max_bytes_in_flight = config.max_bytes_in_flight;
  policy->max_lease_bytes_in_flight = config.max_lease_bytes_in_flight;
  policy->max_requests_per_connection = config.max_requests_per_connection;
  policy->lease_idle_timeout_us = Us(config.lease_idle_timeout);
  policy->connect_timeout_us = Us(config.connect_timeout);
  if (config.slow_start) {
    policy->slow_start = {.window_us = Us(config.slow_start->window),
                          .min_weight_percent = config.slow_start->min_weight_percent,
                          .aggression = config.slow_start->aggression};
  }
  if (config.outlier_detection) {
    policy->outliers = std::make_shared<OutlierDetector>(LoadOutliers(*config.outlier_detection));
  }
  result.policy = std::move(policy);
  return result;
}

}  // namespace metaprotocol
