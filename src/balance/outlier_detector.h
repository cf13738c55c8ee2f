// Outlier detection: hosts that fail requests, one after the other or too many of them, are left
// out for a time. What counts are requests, not connections.
//
// One detector serves one cluster on all workers of the process: what they have seen of a host is
// counted together. A success where nothing has failed is one load; a host that is out, or back, is
// a new epoch, upon which each worker computes anew who may be chosen.
//
// The rules are Envoy's (its documentation's page on outlier detection), and so are the names.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/balance/balancer.h"

namespace metaprotocol {

struct OutlierSettings {
  // So many failures of a kind, one after the other, and the host is out; 0: never.
  uint32_t consecutive_errors = 5;          // any
  uint32_t consecutive_gateway_errors = 0;  // none but the server's own word that it has failed
  uint32_t consecutive_local_origin_failures = 5;  // only where they are split
  // Failures to get a reply at all count by themselves, and not among the others.
  bool split_local_origin_errors = false;
  // Of the requests of one interval, the share whose failure puts a host out; 0: never. Only for
  // hosts with so many requests, and only if there are so many such hosts.
  uint32_t failure_percentage = 0;
  uint32_t failure_percentage_volume = 50;
  uint32_t failure_percentage_hosts = 5;
  uint64_t interval_us = uint64_t{10} * 1000 * 1000;
  // How long it is out, times how often it has been lately, up to the maximum.
  uint64_t base_ejection_us = uint64_t{30} * 1000 * 1000;
  uint64_t max_ejection_us = uint64_t{300} * 1000 * 1000;
  // Of all hosts, those that may be out or unhealthy at a time; one may in any case.
  uint32_t max_ejection_percent = 10;
  // Sorted. Replies with these statuses are failures, and no other ones; empty: those that say that
  // the server has failed, and do not blame the request.
  std::vector<int32_t> statuses = {};

  bool operator==(const OutlierSettings&) const = default;
};

class OutlierDetector {
 public:
  // What has become of a request on a host.
  enum class Sign : uint8_t {
    kSuccess,      // a reply, whatever the application says in it
    kError,        // a reply that says that the server has failed
    kBadReply,     // a reply that cannot be understood
    kLocalOrigin,  // no connection, a lost one, or no reply in time
  };
  enum class Reason : uint8_t { kErrors, kGatewayErrors, kLocalOriginFailures, kPercentage };
  static std::string_view ReasonText(Reason reason);

  // One host, as all workers see it.
  class Host {
   public:
    explicit Host(std::string address) : address_(std::move(address)) {}
    const std::string& address() const { return address_; }
    bool ejected() const { return ejected_.load(std::memory_order_relaxed); }

   private:
    friend class OutlierDetector;
    const std::string address_;
    std::atomic<bool> ejected_{false};
    // Some of the next three are not 0.
    std::atomic<bool> failing_{false};
    std::atomic<uint32_t> errors_{0};
    std::atomic<uint32_t> gateway_errors_{0};
    std::atomic<uint32_t> local_failures_{0};
    std::atomic<uint32_t> requests_{0};  // of the present interval...
    std::atomic<uint32_t> failures_{0};  // ...and those that have failed
    // Behind the detector's mutex.
    uint64_t until_us_ = 0;
    uint64_t returned_us_ = 0;
    uint32_t times_ = 0;
  };

  // Somebody who is out, or back.
  struct Change {
    std::string address;
    bool ejected = false;
    Reason reason = Reason::kErrors;
    uint64_t duration_us = 0;  // of an ejection
  };

  explicit OutlierDetector(OutlierSettings settings) : settings_(std::move(settings)) {}

  const OutlierSettings& settings() const { return settings_; }

  // The hosts that a worker has, in their order. What is known of one is forgotten when no worker
  // has it any more.
  std::vector<std::shared_ptr<Host>> SetHosts(std::span<const HostInfo> hosts);

  // Any thread. Nearly always nothing follows from it.
  std::vector<Change> Note(Host& host, Sign sign, uint64_t now_us);

  // Whether Review has something to do.
  bool due(uint64_t now_us) const { return now_us >= due_us_.load(std::memory_order_relaxed); }
  // Lets hosts back whose time is over, and looks at the shares of an interval that is.
  std::vector<Change> Review(uint64_t now_us);

  // Changes whenever somebody is out or back.
  uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }

 private:
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  bool Counts(Sign sign) const;
  std::optional<Reason> CountFailure(Host& host, Sign sign) const;
  static void Clear(Host& host);
  std::vector<std::shared_ptr<Host>> Present() const;
  std::optional<Change> Eject(Host& host, Reason reason, uint64_t now_us);
  void EjectByShare(uint64_t now_us, std::vector<Change>& changes);
  void BeDueBy(uint64_t due_us);

  const OutlierSettings settings_;
  std::atomic<uint64_t> epoch_{1};
  std::atomic<uint64_t> due_us_{kNever};

  std::mutex mutex_;  // all below, and whoever goes out or comes back
  // As long as a worker has them.
  std::map<std::string, std::weak_ptr<Host>, std::less<>> hosts_;
  size_t present_ = 0;  // of those that a worker has been given last
  size_t ejected_ = 0;
  size_t unhealthy_ = 0;  // for other reasons
  uint64_t interval_ends_us_ = kNever;
};

}  // namespace metaprotocol
