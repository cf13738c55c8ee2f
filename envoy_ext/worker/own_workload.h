// The workload that this Envoy stands beside, as Istio's injection tells its container: by
// environment variables, from which Istio's agent makes the node's metadata, and by the file of the
// pod's labels. The module ABI does not give the node's metadata itself.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "src/observe/request_series.h"

namespace metaprotocol::envoy {

// The process's; read once.
const Workload& OwnWorkload();

// `environment`: the value of a variable, "" if it is not set. `labels_file`: what is in the file
// of the pod's labels, a `name="value"` on each line.
Workload WorkloadFrom(std::string_view (*environment)(const char* name),
                      std::string_view labels_file);

// Lines that are something else are left out.
std::map<std::string, std::string, std::less<>> ParsePodLabels(std::string_view text);

}  // namespace metaprotocol::envoy
