// Answers instead of a server, with the reply that the route names.
#pragma once

#include "src/filter/filter.h"

namespace metaprotocol {

class DirectReply final : public Filter {
 public:
  std::string_view name() const override { return "direct_reply"; }
  RequestVerdict OnRequest(FilterContext& context) const override;
};

}  // namespace metaprotocol
