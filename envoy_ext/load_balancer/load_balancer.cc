// The load balancing policy "metaprotocol": tells the worker's engine which hosts a cluster has,
// and gives each lease the host that the engine chose for it.
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/log.h"
#include "envoy_ext/worker/worker.h"
#include "src/config/snapshot.h"

namespace metaprotocol::envoy {
namespace {

// Begins the names of clusters that nobody connects to, and that say which hosts another one has.
// They are for clusters beside whose own load balancing Envoy takes no policy of ours.
constexpr std::string_view kHostsOfPrefix = "metaprotocol-hosts|";

// Over all clusters and workers: a cluster that is replaced gets new load balancers.
std::atomic<uint64_t> next_generation{1};

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

struct Position {
  uint32_t priority;
  uint32_t index;  // among the healthy hosts, which are the only ones Envoy lets a policy choose
};

HostHealth HealthOf(int health) {
  switch (health) {
    case abi::kHostHealthy:
      return HostHealth::kHealthy;
    case abi::kHostDegraded:
      return HostHealth::kDegraded;
    default:
      return HostHealth::kUnhealthy;
  }
}

class LoadBalancer {
 public:
  LoadBalancer(void* envoy, std::shared_ptr<const ClusterPolicy> policy)
      : envoy_(envoy), policy_(std::move(policy)), generation_(next_generation++) {
    abi::Buffer name{nullptr, 0};
    abi::LbClusterName(envoy_, &name);
    if (name.data != nullptr) cluster_ = name.view();
    of_another_ = cluster_.starts_with(kHostsOfPrefix);
    if (of_another_) cluster_.erase(0, kHostsOfPrefix.size());
    // Envoy's main thread has a load balancer of each cluster too, but no engine. It makes the
    // tables that would hold up a worker.
    if (!Worker::IsMainThread()) {
      worker_ = &Worker::Get();
      ClusterPolicy on_a_worker = *policy_;
      on_a_worker.balance.large_tables_made_elsewhere = true;
      policy_ = std::make_shared<const ClusterPolicy>(std::move(on_a_worker));
    } else if (policy_->balance.kind == BalancePolicy::Kind::kRingHash ||
               policy_->balance.kind == BalancePolicy::Kind::kMaglev) {
      tables_ = Balancer::Create(policy_->balance);
    }
    if (worker_ != nullptr) {
      worker_->leases().BalancerCame(cluster_, of_another_);
      worker_->AddCluster(this, [this] {
        generation_ = next_generation++;
        Publish();
      });
    }
    Publish();
  }

  ~LoadBalancer() {
    if (worker_ == nullptr) return;
    worker_->RemoveCluster(this);
    worker_->leases().BalancerGone(cluster_, of_another_);
    worker_->WithEngine([&](Engine& engine) { engine.RemoveCluster(cluster_, generation_); });
  }

  LoadBalancer(const LoadBalancer&) = delete;
  LoadBalancer& operator=(const LoadBalancer&) = delete;

  // Reads the hosts anew.
  void Publish() {
    std::vector<HostInfo> hosts;
    healthy_.clear();
    round_robin_.clear();
    const auto priorities = static_cast<uint32_t>(abi::LbPriorityCount(envoy_));
    for (uint32_t priority = 0; priority < priorities; ++priority) {
      ReadHosts(priority, hosts);
      ReadHealthy(priority);
    }
    if (worker_ == nullptr) {
      // Nobody is served here: tables that all workers share are made without keeping one waiting,
      // and are there as long as the cluster is.
      if (tables_ != nullptr) tables_->Update(hosts);
      return;
    }
    worker_->WithEngine([&](Engine& engine) {
      engine.SetCluster(cluster_, generation_, policy_, std::move(hosts));
    });
  }

  bool Choose(void* context, Position& choice) {
    abi::Buffer wanted{nullptr, 0};
    if (context != nullptr &&
        abi::LbRequestHeader(context, abi::ToBuffer(kHostHeader), &wanted, 0, nullptr)) {
      const auto it = healthy_.find(wanted.view());
      if (it == healthy_.end()) return false;
      choice = it->second;
      return true;
    }
    if (round_robin_.empty()) return false;
    choice = round_robin_[next_++ % round_robin_.size()];
    return true;
  }

 private:
  void ReadHosts(uint32_t priority, std::vector<HostInfo>& hosts) {
    const std::unordered_map<std::string, uint32_t> weights = LocalityWeights(priority);
    const size_t count = abi::LbHostCount(envoy_, priority);
    for (size_t i = 0; i < count; ++i) {
      abi::Buffer address{nullptr, 0};
      if (!abi::LbHostAddress(envoy_, priority, i, &address)) continue;
      HostInfo host;
      host.address = address.view();
      host.weight = abi::LbHostWeight(envoy_, priority, i);
      host.health = HealthOf(abi::LbHostHealth(envoy_, priority, i));
      host.priority = priority;
      host.zone = Locality(priority, i);
      abi::Buffer workload{nullptr, 0};
      if (abi::LbHostMetadata != nullptr &&
          abi::LbHostMetadata(envoy_, priority, i, abi::ToBuffer("istio"),
                              abi::ToBuffer("workload"), &workload)) {
        host.workload = workload.view();
      }
      const auto weight = weights.find(host.zone);
      if (weight != weights.end()) host.locality_weight = weight->second;
      hosts.push_back(std::move(host));
    }
  }

  std::string Locality(uint32_t priority, size_t index) {
    abi::Buffer region{nullptr, 0};
    abi::Buffer zone{nullptr, 0};
    abi::Buffer sub_zone{nullptr, 0};
    if (!abi::LbHostLocality(envoy_, priority, index, &region, &zone, &sub_zone)) return {};
    std::string name;
    if (region.length + zone.length + sub_zone.length == 0) return name;
    name += region.view();
    name += '/';
    name += zone.view();
    name += '/';
    name += sub_zone.view();
    return name;
  }

  // Envoy numbers localities by their healthy hosts, so a host's locality is found by its address.
  std::unordered_map<std::string, uint32_t> LocalityWeights(uint32_t priority) {
    std::unordered_map<std::string, uint32_t> by_locality;
    std::unordered_map<std::string, uint32_t> by_address;
    const size_t localities = abi::LbLocalityCount(envoy_, priority);
    for (size_t locality = 0; locality < localities; ++locality) {
      const uint32_t weight = abi::LbLocalityWeight(envoy_, priority, locality);
      if (weight == 0 || abi::LbLocalityHostCount(envoy_, priority, locality) == 0) continue;
      abi::Buffer address{nullptr, 0};
      if (abi::LbLocalityHostAddress(envoy_, priority, locality, 0, &address)) {
        by_address.emplace(address.view(), weight);
      }
    }
    if (by_address.empty()) return by_locality;
    const size_t count = abi::LbHostCount(envoy_, priority);
    for (size_t i = 0; i < count; ++i) {
      abi::Buffer address{nullptr, 0};
      if (!abi::LbHostAddress(envoy_, priority, i, &address)) continue;
      const auto it = by_address.find(std::string(address.view()));
      if (it != by_address.end()) by_locality.emplace(Locality(priority, i), it->second);
    }
    return by_locality;
  }

  void ReadHealthy(uint32_t priority) {
    const size_t count = abi::LbHealthyHostCount(envoy_, priority);
    const bool first = round_robin_.empty();
    for (size_t i = 0; i < count; ++i) {
      abi::Buffer address{nullptr, 0};
      if (!abi::LbHealthyHostAddress(envoy_, priority, i, &address)) continue;
      const Position position{priority, static_cast<uint32_t>(i)};
      healthy_.emplace(address.view(), position);
      if (first) round_robin_.push_back(position);  // of the first priority that has any
    }
  }

  void* const envoy_;
  std::shared_ptr<const ClusterPolicy> policy_;
  uint64_t generation_;
  Worker* worker_ = nullptr;
  std::unique_ptr<Balancer> tables_;  // main thread, policies with tables
  std::string cluster_;
  bool of_another_ = false;
  std::unordered_map<std::string, Position, TextHash, std::equal_to<>> healthy_;
  std::vector<Position> round_robin_;
  size_t next_ = 0;
};

// What a configuration is to Envoy.
struct LoadBalancerConfig {
  std::shared_ptr<const ClusterPolicy> policy;
};

LoadBalancer* LoadBalancerOf(const void* module) {
  return static_cast<LoadBalancer*>(const_cast<void*>(module));
}

}  // namespace

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(lb_config_new)(void*, abi::Buffer,
                                                                 abi::Buffer config) {
  return Guarded("lb_config_new", static_cast<const void*>(nullptr), [&]() -> const void* {
    Worker::ThisIsMainThread();
    ClusterPolicyOrErrors loaded = LoadClusterPolicy(config.length == 0 ? "{}" : config.view());
    if (loaded.policy == nullptr) {
      EnvoyLog(abi::kLogError,
               "metaprotocol: cluster policy rejected: " + FormatErrors(loaded.errors));
      return nullptr;
    }
    return std::make_unique<LoadBalancerConfig>(LoadBalancerConfig{std::move(loaded.policy)})
        .release();
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(lb_config_destroy)(const void* config) {
  Guarded("lb_config_destroy", [&] { delete static_cast<const LoadBalancerConfig*>(config); });
}

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(lb_new)(const void* config, void* envoy) {
  return Guarded("lb_new", static_cast<const void*>(nullptr), [&]() -> const void* {
    return std::make_unique<LoadBalancer>(envoy,
                                          static_cast<const LoadBalancerConfig*>(config)->policy)
        .release();
  });
}

METAPROTOCOL_EXPORT bool METAPROTOCOL_HOOK(lb_choose_host)(void*, const void* module, void* context,
                                                           uint32_t* priority, uint32_t* index) {
  return Guarded("lb_choose_host", false, [&] {
    Position choice{};
    if (!LoadBalancerOf(module)->Choose(context, choice)) return false;
    *priority = choice.priority;
    *index = choice.index;
    return true;
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(lb_on_host_membership_update)(void*, const void* module,
                                                                         size_t, size_t) {
  Guarded("lb_on_host_membership_update", [&] { LoadBalancerOf(module)->Publish(); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(lb_destroy)(const void* module) {
  Guarded("lb_destroy", [&] { delete LoadBalancerOf(module); });
}

}  // namespace metaprotocol::envoy
