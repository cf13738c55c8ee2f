// Random lives of the simulated world: whatever happens in whatever order, what must hold holds.
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

void KeepsEveryPromise(bool retries_and_delays) {
  const char* first = std::getenv("METAPROTOCOL_SCRIPT_SEED");
  const char* count = std::getenv("METAPROTOCOL_SCRIPT_RUNS");
  const uint64_t begin = first != nullptr ? std::strtoull(first, nullptr, 10) : 1;
  const uint64_t runs = count != nullptr ? std::strtoull(count, nullptr, 10) : 700;
  for (uint64_t seed = begin; seed < begin + runs; ++seed) {
    const auto bytes = RandomBytes(seed);
    auto [setting, actions] = ScriptFromBytes(bytes.data(), bytes.size());
    setting.retries_and_delays = retries_and_delays;
    const auto violations = RunScript(setting, actions);
    if (violations.empty()) continue;
    for (const std::string& violation : violations) ADD_FAILURE() << violation;
    FAIL() << "METAPROTOCOL_SCRIPT_SEED=" << seed << " METAPROTOCOL_SCRIPT_RUNS=1\n"
           << Describe(setting, Shrunk(setting, actions));
  }
}

TEST(RandomScript, KeepsEveryPromise) { KeepsEveryPromise(false); }

// One of them: nothing is forwarded twice.
TEST(RandomScript, KeepsEveryPromiseWithRetriesAndDelays) { KeepsEveryPromise(true); }

}  // namespace
}  // namespace metaprotocol::test
