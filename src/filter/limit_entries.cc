#include "src/filter/limit_entries.h"

#include <utility>

namespace metaprotocol {

void TellLimit(FilterContext& context, std::string limit, uint64_t remaining,
               uint64_t reset_seconds) {
  constexpr auto kSet = MutationOp::Kind::kSet;
  context.ChangeReply({kSet, "x-ratelimit-limit", std::move(limit)});
  context.ChangeReply({kSet, "x-ratelimit-remaining", std::to_string(remaining)});
  context.ChangeReply({kSet, "x-ratelimit-reset", std::to_string(reset_seconds)});
}

}  // namespace metaprotocol
