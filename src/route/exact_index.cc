#include "src/route/exact_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "src/base/text_hash.h"

namespace metaprotocol {
namespace {

void AppendLength(std::string& out, uint32_t length) {
  out.append(reinterpret_cast<const char*>(&length), sizeof length);
}

}  // namespace

ExactIndex::ExactIndex(std::vector<std::string> keys) : keys_(std::move(keys)) {
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (IsConnectionKey(keys_[i])) connection_keys_ |= uint32_t{1} << i;
  }
}

void ExactIndex::Add(uint32_t rule, std::span<const std::vector<std::string>> values) {
  first_rule_ = std::min(first_rule_, rule);
  // Counts through all combinations like an odometer.
  std::array<size_t, kMaxKeys> position{};
  Tuple tuple;
  for (;;) {
    for (size_t i = 0; i < keys_.size(); ++i) tuple[i] = values[i][position[i]];
    AddTuple(rule, tuple);
    size_t key = 0;
    while (key < keys_.size() && ++position[key] == values[key].size()) position[key++] = 0;
    if (key == keys_.size()) return;
  }
}

void ExactIndex::AddTuple(uint32_t rule, const Tuple& tuple) {
  std::string joined;
  for (size_t i = 0; i < keys_.size(); ++i) {
    AppendLength(joined, static_cast<uint32_t>(tuple[i].size()));
    joined += tuple[i];
  }
  std::vector<uint32_t>& rules = building_[std::move(joined)];
  if (rules.empty() || rules.back() != rule) rules.push_back(rule);
}

void ExactIndex::Seal() {
  size_t bytes = 0;
  for (const auto& [joined, rules] : building_) bytes += joined.size();
  characters_.reserve(bytes);  // never grows below, so that views into it stay valid
  buckets_.resize(std::bit_ceil(building_.size() * 2));
  for (const auto& [joined, rules] : building_) {
    Bucket bucket{0, static_cast<uint32_t>(candidates_.size()), static_cast<uint32_t>(rules.size()),
                  static_cast<uint32_t>(texts_.size())};
    candidates_.insert(candidates_.end(), rules.begin(), rules.end());
    for (size_t i = 0, at = 0; i < keys_.size(); ++i) {
      uint32_t length = 0;
      std::memcpy(&length, joined.data() + at, sizeof length);
      at += sizeof length;
      const char* begin = characters_.data() + characters_.size();
      characters_.insert(characters_.end(), joined.data() + at, joined.data() + at + length);
      at += length;
      texts_.emplace_back(begin, length);
      bucket.hash = TextHash(texts_.back(), bucket.hash);
      beginnings_.insert(bucket.hash);
    }
    size_t slot = bucket.hash & (buckets_.size() - 1);
    while (buckets_[slot].count != 0) slot = (slot + 1) & (buckets_.size() - 1);
    buckets_[slot] = bucket;
  }
  building_.clear();
}

uint32_t ExactIndex::Find(const MatchInput& input, std::span<const CompiledRule> rules,
                          uint32_t best) const {
  Search search(input, rules, best);
  bool repeated = false;
  uint64_t hash = 0;
  for (size_t key = 0; key < keys_.size(); ++key) {
    const std::string_view name = keys_[key];
    const Metadata& metadata = SourceOfKey(key, input);
    bool found = false;
    for (size_t i = 0, size = metadata.size(); i < size; ++i) {
      const Metadata::Entry& entry = metadata.at(i);
      if (entry.key != name) continue;
      repeated = repeated || found;
      if (!found) search.Take(key, entry.value);
      found = true;
    }
    if (!found) return best;
    if (!repeated) hash = TextHash(search.tuple[key].view(), hash);
  }
  if (repeated) {
    TryCombinations(search, 0, 0);
  } else {
    TryTuple(search, hash);
  }
  return search.best;
}

void ExactIndex::TryTuple(Search& search, uint64_t hash) const {
  const size_t mask = buckets_.size() - 1;
  for (size_t slot = hash & mask; buckets_[slot].count != 0; slot = (slot + 1) & mask) {
    const Bucket& bucket = buckets_[slot];
    if (bucket.hash != hash) continue;
    size_t same = 0;
    while (same < keys_.size() && texts_[bucket.tuple + same] == search.tuple[same].view()) ++same;
    if (same < keys_.size()) continue;
    for (uint32_t i = 0; i < bucket.count; ++i) {
      const uint32_t rule = candidates_[bucket.candidates + i];
      if (rule >= search.best) return;
      if (search.rules[rule].Holds(search.input)) {
        search.best = rule;
        return;
      }
    }
    return;
  }
}

void ExactIndex::TryCombinations(Search& search, size_t key, uint64_t hash) const {
  if (key == keys_.size()) return TryTuple(search, hash);
  const std::string_view name = keys_[key];
  const Metadata& metadata = SourceOfKey(key, search.input);
  for (size_t i = 0; i < metadata.size(); ++i) {
    if (metadata.at(i).key != name) continue;
    const uint64_t extended = TextHash(search.Take(key, metadata.at(i).value), hash);
    if (beginnings_.contains(extended)) TryCombinations(search, key + 1, extended);
  }
}

}  // namespace metaprotocol
