// The engine between clients and servers that do what they like, in whatever order: the simulated
// world of the unit tests, with libFuzzer as its author. Nothing may be lost, come twice, go to
// somebody else or be left over.
//
// Input: one byte that says whether there are retries and delays, and streams; then a script
// (sim_script.h), in which servers' bytes, clients' bytes, time and configuration come in any order
// and in pieces.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/cpp/support/sim_script_run.h"

namespace {

using namespace metaprotocol::test;

// Scripts have no operations of streams in bytes: what is left of one byte chooses among them.
void AddStreams(const uint8_t* data, size_t size, ScriptSetting& setting,
                std::vector<Action>& actions) {
  setting.streams = true;
  setting.protocol = ScriptProtocol::kMultiplexed;
  for (size_t i = 0; i < actions.size(); ++i) {
    const size_t at = kSettingBytes + 3 * i;
    const size_t which = at < size ? data[at] / kOpCount : 0;
    // Half of the traffic.
    if (which % 2 == 1) {
      actions[i].op = static_cast<Op>(kOpCount + which / 2 % kStreamOpCount);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t extras = data[0];
  auto [setting, actions] = ScriptFromBytes(data + 1, size - 1);
  setting.retries_and_delays = (extras & 1) != 0;
  if ((extras & 2) != 0) AddStreams(data + 1, size - 1, setting, actions);
  const std::vector<std::string> violations = RunScript(setting, actions);
  if (violations.empty()) return 0;
  for (const std::string& violation : violations) std::fprintf(stderr, "%s\n", violation.c_str());
  std::fputs(Describe(setting, actions).c_str(), stderr);
  std::abort();
}
