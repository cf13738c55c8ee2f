#include "src/balance/balancer.h"

#include "src/balance/least_request.h"
#include "src/balance/maglev.h"
#include "src/balance/random.h"
#include "src/balance/ring_hash.h"
#include "src/balance/round_robin.h"

namespace metaprotocol {

std::unique_ptr<Balancer> Balancer::Create(const BalancePolicy& policy) {
  switch (policy.kind) {
    case BalancePolicy::Kind::kRoundRobin:
      break;
    case BalancePolicy::Kind::kLeastRequest:
      return std::make_unique<LeastRequestBalancer>(policy);
    case BalancePolicy::Kind::kRandom:
      return std::make_unique<RandomBalancer>(policy);
    case BalancePolicy::Kind::kRingHash:
      return std::make_unique<RingHashBalancer>(policy);
    case BalancePolicy::Kind::kMaglev:
      return std::make_unique<MaglevBalancer>(policy);
  }
  return std::make_unique<RoundRobinBalancer>(policy);
}

}  // namespace metaprotocol
