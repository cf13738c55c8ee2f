// Random lives of the simulated world: whatever happens in whatever order, what must hold holds.
#include <array>
#include <cstdlib>
#include <random>

#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/sim_script_run.h"

namespace metaprotocol::test {
namespace {

std::vector<uint8_t> RandomBytes(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(kSettingBytes + 3 * (random() % 150));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  // Otherwise most worlds would be too small for anything to happen in them.
  if (random() % 2 == 0) {
    for (size_t i = 6; i < 18; ++i) bytes[i] = static_cast<uint8_t>(100 + random() % 150);
  }
  for (size_t i = kSettingBytes; i + 2 < bytes.size(); i += 3) {
    // Traffic comes more often than disasters, and nothing at all comes of a drained world.
    const auto op = static_cast<Op>(bytes[i] % kOpCount);
    if ((op >= Op::kServerMode && random() % 3 != 0) || op == Op::kDrain) {
      bytes[i] = static_cast<uint8_t>(random() % (static_cast<size_t>(Op::kWait) + 1));
    }
  }
  // Clients first.
  for (size_t i = 0; i < 3 && kSettingBytes + 3 * i < bytes.size(); ++i) {
    bytes[kSettingBytes + 3 * i] = 0;
  }
  return bytes;
}

// Leaves out what the failure does not need.
std::vector<Action> Shrunk(const ScriptSetting& setting, std::vector<Action> actions) {
  for (size_t size = actions.size() / 2; size != 0; size /= 2) {
    for (size_t at = 0; at < actions.size();) {
      auto fewer = actions;
      const size_t end = std::min(at + size, actions.size());
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(at),
                  fewer.begin() + static_cast<std::ptrdiff_t>(end));
      if (RunScript(setting, fewer).empty()) {
        at = end;
      } else {
        actions = std::move(fewer);
      }
    }
  }
  return actions;
}

// Much of a script's traffic as that of streams, and more of it.
void AddStreams(uint64_t seed, ScriptSetting& setting, std::vector<Action>& actions) {
  static constexpr std::array kMore = {Op::kOpenStream,   Op::kStreamData,   Op::kStreamData,
                                       Op::kStreamData,   Op::kServerStream, Op::kServerStream,
                                       Op::kServerStream, Op::kServerStream, Op::kWait,
                                       Op::kEndStream,    Op::kStreamWindow, Op::kResetStream};
  std::mt19937_64 random(seed);
  const auto any = [&] { return static_cast<uint32_t>(random() % 1024); };
  setting.streams = true;
  setting.protocol = ScriptProtocol::kMultiplexed;
  if (seed % 2 == 0) setting.bucket_tokens = setting.asks = 0;
  std::vector<Action> all;
  for (Action action : actions) {
    const bool rare = action.op == Op::kFinish || action.op == Op::kReset;
    if (!rare || random() % 4 == 0) all.push_back(action);
    for (uint32_t more = any() % 4; more != 0; --more) {
      action = {kMore[random() % kMore.size()], any(), any()};
      if (action.op == Op::kWait) action = {Op::kWait, action.a % 20, action.b % 2};
      all.push_back(action);
    }
  }
  actions = std::move(all);
}

enum class Extra { kNothing, kRetriesAndDelays, kStreams };

void KeepsEveryPromise(Extra extra) {
  const char* first = std::getenv("METAPROTOCOL_SCRIPT_SEED");
  const char* count = std::getenv("METAPROTOCOL_SCRIPT_RUNS");
  const uint64_t begin = first != nullptr ? std::strtoull(first, nullptr, 10) : 1;
  const uint64_t runs = count != nullptr ? std::strtoull(count, nullptr, 10) : 700;
  for (uint64_t seed = begin; seed < begin + runs; ++seed) {
    const auto bytes = RandomBytes(seed);
    auto [setting, actions] = ScriptFromBytes(bytes.data(), bytes.size());
    setting.retries_and_delays = extra == Extra::kRetriesAndDelays;
    if (extra == Extra::kStreams) AddStreams(seed, setting, actions);
    const auto violations = RunScript(setting, actions);
    if (violations.empty()) continue;
    for (const std::string& violation : violations) ADD_FAILURE() << violation;
    FAIL() << "METAPROTOCOL_SCRIPT_SEED=" << seed << " METAPROTOCOL_SCRIPT_RUNS=1\n"
           << Describe(setting, Shrunk(setting, actions));
  }
}

TEST(RandomScript, KeepsEveryPromise) { KeepsEveryPromise(Extra::kNothing); }

// One of them: nothing is forwarded twice.
TEST(RandomScript, KeepsEveryPromiseWithRetriesAndDelays) {
  KeepsEveryPromise(Extra::kRetriesAndDelays);
}

// Nothing of a stream is lost, comes twice or to somebody else, or follows its end.
TEST(RandomScript, KeepsEveryPromiseOfStreams) { KeepsEveryPromise(Extra::kStreams); }

}  // namespace
}  // namespace metaprotocol::test
