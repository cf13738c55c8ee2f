// The order in which weighted clusters take turns.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace metaprotocol {

// Longest schedule: bounds the memory of a route, and how far proportions can be exact.
inline constexpr uint64_t kMaxScheduleLength = 10000;

// The sum of the weights divided by their greatest common divisor: the length of their schedule. 0
// if all are 0.
uint64_t ScheduleLength(std::span<const uint32_t> weights);

// One period of the turns, as indices into `weights`. Repeated for ever, any run of that length
// holds each index exactly as often as its weight asks, and among the first k turns of a period,
// for any k, its exact share of k, rounded either up or down. ScheduleLength() is at most
// kMaxScheduleLength.
std::vector<uint16_t> WeightedSchedule(std::span<const uint32_t> weights);

}  // namespace metaprotocol
