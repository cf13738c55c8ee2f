// Outlier detection: what becomes of requests is told to the cluster's detector, and what that
// finds to the metrics and the log.
#include <algorithm>
#include <string>

#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

std::string TextOf(const OutlierDetector::Change& change) {
  if (!change.ejected) return " is back";
  return " is left out for " + std::to_string(change.duration_us / 1000) +
         " ms: " + std::string(OutlierDetector::ReasonText(change.reason));
}

}  // namespace

void WorkerHub::CatchUp(Cluster& cluster, const UpstreamProtocol& protocol) {
  Tell(cluster, protocol, cluster.CatchUp(context_.now_us()));
}

void WorkerHub::Tell(const Cluster& cluster, const UpstreamProtocol& protocol,
                     const std::vector<OutlierDetector::Change>& changes) {
  for (const OutlierDetector::Change& change : changes) {
    context_.metrics.Get(protocol.name, "-", cluster.name())
        .Add(change.ejected ? Counter::kOutlierEjections : Counter::kOutlierReturns);
    if (!context_.host.LogEnabled(LogLevel::kInfo)) continue;
    context_.host.Log(LogLevel::kInfo, "upstream " + change.address + " of cluster " +
                                           cluster.name() + TextOf(change));
  }
}

void WorkerHub::JudgeReply(const Lease& lease, const Codec& codec, ReplyStatus status,
                           int32_t status_code) {
  const std::vector<int32_t>& statuses =
      lease.pool.host.cluster.policy().outliers->settings().statuses;
  const bool failed = statuses.empty()
                          ? status == ReplyStatus::kError && !codec.BlamesRequest(status_code)
                          : std::binary_search(statuses.begin(), statuses.end(), status_code);
  Judge(lease.pool, failed ? OutlierDetector::Sign::kError : OutlierDetector::Sign::kSuccess);
}

// The server could not be connected to, or has closed the connection. Nobody had to be waiting for
// the first, but a connection that is idle may be closed.
void WorkerHub::JudgeLoss(const Lease& lease) {
  if (lease.pool.host.outlier == nullptr) return;
  const uint32_t waiting = lease.connected ? 0 : 1;
  for (uint32_t i = std::max(lease.attempt_count, waiting); i != 0; --i) {
    Judge(lease.pool, OutlierDetector::Sign::kLocalOrigin);
  }
}

void WorkerHub::Judge(const LeasePool& pool, OutlierDetector::Sign sign) {
  const UpstreamHost& host = pool.host;
  if (host.outlier == nullptr) return;
  Tell(host.cluster, *pool.protocol,
       host.cluster.policy().outliers->Note(*host.outlier, sign, context_.now_us()));
}

}  // namespace metaprotocol
