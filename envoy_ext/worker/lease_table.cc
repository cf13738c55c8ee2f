#include "envoy_ext/worker/lease_table.h"

#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/carrier/carrier.h"

namespace metaprotocol::envoy {
namespace {

constexpr int kMaxRounds = 8;
// A carrier listener whose streams have larger windows than our own configuration gives them cannot
// pause: the bytes would cost more than they save.
constexpr uint32_t kMaxPauseBytes = 1u << 20;

void AppendHex(std::string& out, uint64_t value) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  out.append(digits, end);
}

bool ParseHex(std::string_view text, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return error == std::errc() && end == text.data() + text.size();
}

// RFC 4648 section 4.
std::string Base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const std::string_view group = bytes.substr(i, 3);
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j) {
      word = word << 8 | (j < group.size() ? static_cast<unsigned char>(group[j]) : 0);
    }
    for (size_t j = 0; j < 4; ++j) {
      out += j <= group.size() ? kDigits[word >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

}  // namespace

LeaseCloseReason CloseReasonFromLocalReply(std::string_view body, bool was_ready) {
  struct Sign {
    std::string_view flag;  // %RESPONSE_FLAGS%
    std::string_view text;  // of Envoy's own reply, where the flags were not configured
    LeaseCloseReason reason;
  };
  static constexpr Sign kSigns[] = {
      {"NC", "cluster_not_found", LeaseCloseReason::kNoCluster},
      {"UH", "no healthy upstream", LeaseCloseReason::kNoHost},
      {"UO", "overflow", LeaseCloseReason::kOverflow},
      {"UF", "connection failure", LeaseCloseReason::kConnectFailed},
      {"UC", "connection termination", LeaseCloseReason::kRemoteClose},
      {"LR", "local reset", LeaseCloseReason::kLocalClose},
  };
  const std::string_view flags = body.substr(0, body.find(' '));
  for (const Sign& sign : kSigns) {
    for (size_t at = 0; at < flags.size(); at = std::min(flags.find(',', at), flags.size()) + 1) {
      if (flags.substr(at, flags.find(',', at) - at) == sign.flag) return sign.reason;
    }
  }
  for (const Sign& sign : kSigns) {
    if (body.find(sign.text) != std::string_view::npos) return sign.reason;
  }
  return was_ready ? LeaseCloseReason::kRemoteClose : LeaseCloseReason::kConnectFailed;
}

LeaseTable::LeaseTable() {
  if (getrandom(&nonce_, sizeof nonce_, 0) != sizeof nonce_) {
    nonce_ = reinterpret_cast<uintptr_t>(this) * 0x9e3779b97f4a7c15u;
  }
}

LeaseTable::~LeaseTable() = default;

Lease* LeaseTable::Find(LeaseId id) {
  const auto it = leases_.find(id);
  return it == leases_.end() ? nullptr : it->second.get();
}

void LeaseTable::Forget(Lease& lease) {
  if (lease.bridge != nullptr) lease.bridge->lease = nullptr;
  if (lease.carrier != nullptr) lease.carrier->streams().erase(lease.stream);
  leases_.erase(lease.id);
}

Carrier* LeaseTable::current_carrier() const {
  // The oldest, as the dialer has it too, which closes a worker's surplus ones.
  for (Carrier* carrier : carriers_) {
    if (!carrier->retiring()) return carrier;
  }
  return nullptr;
}

void LeaseTable::Open(LeaseId id, std::string_view cluster, std::string_view host) {
  auto lease = std::make_unique<Lease>();
  lease->id = id;
  lease->cluster = cluster;
  lease->host = host;
  leases_.emplace(id, std::move(lease));
  commands_.push_back({Command::Kind::kOpen, id});
}

void LeaseTable::Release(LeaseId id) { commands_.push_back({Command::Kind::kRelease, id}); }

void LeaseTable::Reset(LeaseId id) { commands_.push_back({Command::Kind::kReset, id}); }

void LeaseTable::Probe(LeaseId id) { commands_.push_back({Command::Kind::kProbe, id}); }

void LeaseTable::Pause(LeaseId id, bool paused) {
  commands_.push_back({paused ? Command::Kind::kPause : Command::Kind::kResume, id});
}

void LeaseTable::Write(Lease& lease, Bytes bytes) {
  // Without a bridge the connection is gone and the engine is about to hear of it.
  if (lease.bridge == nullptr || bytes.empty()) return;
  // Never end_stream: a half-closed connection would go back to the pool and hang its next user.
  abi::BridgeSendUpstream(lease.bridge->envoy, abi::ToBuffer(bytes), false);
}

void LeaseTable::Run(const Command& command) {
  Lease* lease = Find(command.id);
  if (lease == nullptr) return;
  switch (command.kind) {
    case Command::Kind::kOpen:
      if (lease->state == Lease::State::kWaiting) OpenStream(*lease);
      return;
    case Command::Kind::kProbe:
      if (lease->state != Lease::State::kReady || lease->probing) return;
      lease->probing = true;
      lease->carrier->h2().SendByte(lease->stream);
      output_pending_ = true;
      return;
    case Command::Kind::kPause:
      if (lease->state == Lease::State::kReady) FillAnswer(*lease);
      return;
    case Command::Kind::kResume:
      if (lease->state == Lease::State::kReady) TakeAnswer(*lease);
      return;
    case Command::Kind::kRelease:
    case Command::Kind::kReset:
      switch (lease->state) {
        case Lease::State::kWaiting:
        case Lease::State::kGone:
          Forget(*lease);
          return;
        case Lease::State::kOpening:
          // There is nothing yet to answer through. The connection will be somebody else's.
          lease->state = Lease::State::kAbandoned;
          return;
        case Lease::State::kAbandoned:
        case Lease::State::kReleasing:
          return;
        case Lease::State::kReady:
          if (command.kind == Command::Kind::kReset) {
            Answer(*lease);
          } else {
            lease->state = Lease::State::kReleasing;
            TakeAnswer(*lease);
            lease->carrier->h2().EndRequest(lease->stream);
            output_pending_ = true;
            releasing_.push_back(lease->id);
          }
          return;
      }
  }
}

void LeaseTable::OpenStream(Lease& lease) {
  if (!H2Client::IsFieldValue(lease.cluster)) return MarkGone(lease, LeaseCloseReason::kNoCluster);
  if (!lease.host.empty() && !H2Client::IsFieldValue(lease.host)) {
    return MarkGone(lease, LeaseCloseReason::kNoHost);
  }
  Carrier* const carrier = current_carrier();
  if (carrier == nullptr) {
    waiting_.push_back(lease.id);
    return;
  }
  std::string name;
  AppendHex(name, lease.id);
  name += '-';
  AppendHex(name, nonce_);
  std::vector<H2Header> headers = {{kClusterHeader, lease.cluster}, {kLeaseHeader, name}};
  const std::string session = Base64(lease.host);
  if (!lease.host.empty()) {
    headers.push_back({kHostHeader, lease.host});
    headers.push_back({kSessionHeader, session});
  }
  if (IsDirect(lease.cluster)) headers.push_back({kDirectHeader, "1"});
  const uint32_t stream = carrier->h2().Open(headers);
  if (stream == 0) return MarkGone(lease, LeaseCloseReason::kNoCluster);  // longer than any cluster
  lease.state = Lease::State::kOpening;
  lease.carrier = carrier;
  lease.stream = stream;
  carrier->streams().emplace(stream, lease.id);
  output_pending_ = true;
  carrier->RetireIfWornOut();
}

void LeaseTable::BalancerCame(std::string_view cluster, bool of_another) {
  Balancers& balancers = balancers_[std::string(cluster)];
  ++(of_another ? balancers.of_others : balancers.own);
}

void LeaseTable::BalancerGone(std::string_view cluster, bool of_another) {
  const auto it = balancers_.find(std::string(cluster));
  if (it == balancers_.end()) return;
  --(of_another ? it->second.of_others : it->second.own);
  if (it->second.own + it->second.of_others == 0) balancers_.erase(it);
}

bool LeaseTable::IsDirect(const std::string& cluster) const {
  const auto it = balancers_.find(cluster);
  return it != balancers_.end() && it->second.own == 0;
}

void LeaseTable::FillAnswer(Lease& lease) {
  const uint32_t mark = lease.carrier->h2().peer_window();
  if (lease.backlog > mark || mark > kMaxPauseBytes) return;
  void* const bridge = lease.bridge->envoy;
  uint32_t size = mark + 1 - lease.backlog;
  lease.backlog += size;
  if (!lease.answering) {
    lease.answering = true;
    lease.carrier->h2().HoldBody(lease.stream);
    size += H2Client::kStreamWindow;
    abi::BridgeSendResponseHeaders(bridge, 200, nullptr, 0, false);
  }
  const std::string filling(size, '\0');
  abi::BridgeSendResponseData(bridge, abi::ToBuffer(filling), false);
}

void LeaseTable::TakeAnswer(Lease& lease) {
  if (lease.backlog == 0) return;
  lease.carrier->h2().GrantWindow(lease.stream, std::exchange(lease.backlog, 0));
  output_pending_ = true;
}

void LeaseTable::Answer(Lease& lease) {
  Bridge& bridge = *lease.bridge;
  const bool answering = lease.answering;
  TakeAnswer(lease);
  Forget(lease);
  if (answering) {
    abi::BridgeSendResponseData(bridge.envoy, {nullptr, 0}, true);
  } else {
    abi::BridgeSendResponse(bridge.envoy, 200, nullptr, 0, {nullptr, 0});
  }
}

void LeaseTable::MarkGone(Lease& lease, LeaseCloseReason reason) {
  if (lease.bridge != nullptr) {
    lease.bridge->lease = nullptr;
    lease.bridge = nullptr;
  }
  if (lease.state == Lease::State::kAbandoned || lease.state == Lease::State::kReleasing) {
    return Forget(lease);
  }
  if (lease.state != Lease::State::kGone) events_.push_back(lease.id);
  lease.state = Lease::State::kGone;
  lease.reason = reason;
}

void LeaseTable::CarrierReady(Carrier& carrier) {
  for (Carrier* older : carriers_) older->RetireFor(carrier);
  carriers_.push_back(&carrier);
  output_pending_ = true;
  for (const LeaseId id : std::exchange(waiting_, {})) {
    commands_.push_back({Command::Kind::kOpen, id});
  }
}

void LeaseTable::CarrierGone(Carrier& carrier) {
  std::erase(carriers_, &carrier);
  std::vector<Lease*> lost;
  for (const auto& [stream, id] : carrier.streams()) {
    if (Lease* lease = Find(id)) lost.push_back(lease);
  }
  carrier.streams().clear();
  for (Lease* lease : lost) {
    lease->carrier = nullptr;
    MarkGone(*lease, LeaseCloseReason::kLocalClose);
  }
}

void LeaseTable::StreamEnded(Carrier& carrier, uint32_t stream, std::string_view body) {
  const auto it = carrier.streams().find(stream);
  if (it == carrier.streams().end()) return;
  if (Lease* lease = Find(it->second)) {
    const bool was_ready = lease->bridge != nullptr || lease->ready_told;
    MarkGone(*lease, CloseReasonFromLocalReply(body, was_ready));
  }
}

Lease* LeaseTable::BridgeReady(Bridge& bridge, std::string_view lease_header) {
  const size_t dash = lease_header.find('-');
  uint64_t id = 0;
  uint64_t nonce = 0;
  if (dash == std::string_view::npos || !ParseHex(lease_header.substr(0, dash), id) ||
      !ParseHex(lease_header.substr(dash + 1), nonce) || nonce != nonce_) {
    return nullptr;
  }
  Lease* lease = Find(id);
  if (lease == nullptr || lease->bridge != nullptr) return nullptr;
  if (lease->state != Lease::State::kOpening && lease->state != Lease::State::kAbandoned) {
    return nullptr;
  }
  lease->bridge = &bridge;
  bridge.lease = lease;
  if (lease->state == Lease::State::kAbandoned) {
    commands_.push_back({Command::Kind::kRelease, id});
  } else {
    events_.push_back(id);
  }
  lease->state = Lease::State::kReady;
  return lease;
}

void LeaseTable::BridgeProbed(Bridge& bridge) {
  if (bridge.lease == nullptr || !std::exchange(bridge.lease->probing, false)) return;
  bridge.lease->drained = true;
  events_.push_back(bridge.lease->id);
}

void LeaseTable::BridgeGone(Bridge& bridge) {
  if (bridge.lease != nullptr) MarkGone(*bridge.lease, LeaseCloseReason::kRemoteClose);
}

void LeaseTable::TellReady(Lease& lease, Engine& engine) {
  if (lease.ready_told) return;
  lease.ready_told = true;
  engine.LeaseReady(lease.id, &lease);
}

void LeaseTable::RunPending(Engine& engine) {
  if (running_) return;
  struct Running {
    bool& flag;
    explicit Running(bool& f) : flag(f) { flag = true; }
    ~Running() { flag = false; }
  } const running(running_);
  // Bounded, for an engine may answer each failed lease with a new one.
  for (int round = 0; round < kMaxRounds && pending(); ++round) {
    for (const Command& command : std::exchange(commands_, {})) Run(command);
    output_pending_ = false;
    for (Carrier* carrier : std::vector<Carrier*>(carriers_)) carrier->Flush();
    for (const LeaseId id : std::exchange(releasing_, {})) {
      if (Lease* lease = Find(id)) Answer(*lease);
    }
    for (const LeaseId id : std::exchange(events_, {})) {
      Lease* lease = Find(id);
      if (lease == nullptr) continue;
      if (lease->state == Lease::State::kReady) {
        TellReady(*lease, engine);
        // Being told may have made the engine give it up.
        if (Lease* still = Find(id); still != nullptr && std::exchange(still->drained, false)) {
          engine.LeaseDrained(id);
        }
      } else if (lease->state == Lease::State::kGone) {
        const LeaseCloseReason reason = lease->reason;
        Forget(*lease);
        engine.LeaseClosed(id, reason);
      }
    }
  }
}

size_t LeaseTable::probes_open() const {
  return static_cast<size_t>(std::count_if(
      leases_.begin(), leases_.end(), [](const auto& entry) { return entry.second->probing; }));
}

std::string LeaseTable::DumpJson() const {
  size_t counts[6] = {};
  for (const auto& [id, lease] : leases_) ++counts[static_cast<size_t>(lease->state)];
  static constexpr std::string_view kNames[] = {"waiting",   "opening",   "ready",
                                                "abandoned", "releasing", "gone"};
  std::string out = "{";
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (i != 0) out += ", ";
    out += '"';
    out += kNames[i];
    out += "\": " + std::to_string(counts[i]);
  }
  out += ", \"probing\": " + std::to_string(probes_open()) + ", \"carriers\": [";
  for (size_t i = 0; i < carriers_.size(); ++i) {
    if (i != 0) out += ", ";
    out += carriers_[i]->DumpJson();
  }
  return out + "]}";
}

}  // namespace metaprotocol::envoy
