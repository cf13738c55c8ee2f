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

ExactIndex::ExactIndex(std::vector<KeyRef> keys)
    : keys_(std::move(keys)), longest_(keys_.size(), 0) {
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i].repeats()) repeating_ = i;
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
    longest_[i] = std::max(longest_[i], tuple[i].size());
  }
  std::vector<uint32_t>& rules = building_[std::move(joined)];
  if (rules.empty() || rules.back() != rule) rules.push_back(rule);
}

void ExactIndex::Seal() {
  size_t bytes = 0;
  for (const auto& [joined, rules] : building_) bytes += joined.size();
  characters_.reserve(bytes);  // never grows below, so that views into it stay valid
  few_ = building_.size() <= kFew;
  buckets_.resize(few_ ? 0 : std::bit_ceil(building_.size() * 2));
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
    }
    if (few_) {
      buckets_.push_back(bucket);
      continue;
    }
    size_t slot = bucket.hash & (buckets_.size() - 1);
    while (buckets_[slot].count != 0) slot = (slot + 1) & (buckets_.size() - 1);
    buckets_[slot] = bucket;
  }
  building_.clear();
}

void ExactIndex::Find(const MatchInput& input, std::span<const CompiledRule> rules,
                      FoundRule& best) const {
  Search search(input, rules, best);
  if (repeating_ != kMaxKeys || input.message.has_alternative()) {
    FindAmongSeveral(search);
    return;
  }
  for (size_t key = 0, count = keys_.size(); key < count; ++key) {
    const std::optional<std::string_view> value = keys_[key].Find(input);
    if (!value || value->size() > longest_[key]) return;
    search.tuple[key] = {value->data(), value->size()};
  }
  TryTuple(search);
}

void ExactIndex::FindAmongSeveral(Search& search) const {
  const MatchInput& input = search.input;
  size_t with_several = repeating_;
  for (size_t key = 0; key < keys_.size(); ++key) {
    size_t values = 0;
    keys_[key].AnyValue(input, [&](std::string_view value) {
      if (++values == 1) search.tuple[key] = {value.data(), value.size()};
      return values == 2;
    });
    if (values == 0) return;
    // A message has one key at most with two ways to write its value, and one key here repeats.
    if (values == 2 && key != repeating_) with_several = key;
  }
  if (with_several == repeating_ && repeating_ == kMaxKeys) {
    TryTuple(search);
  } else if (with_several == repeating_ || repeating_ == kMaxKeys) {
    TryValues(search, with_several);
  } else {
    keys_[with_several].AnyValue(input, [&](std::string_view value) {
      search.tuple[with_several] = {value.data(), value.size()};
      TryValues(search, repeating_);
      return false;
    });
  }
}

void ExactIndex::TryValues(Search& search, size_t key) const {
  keys_[key].AnyValue(search.input, [&](std::string_view value) {
    search.tuple[key] = {value.data(), value.size()};
    TryTuple(search);
    return false;
  });
}

void ExactIndex::TryTuple(const Search& search) const {
  if (few_) {
    for (const Bucket& bucket : buckets_) {
      if (!Holds(bucket, search)) continue;
      TryCandidates(bucket, search);
      return;
    }
    return;
  }
  uint64_t hash = 0;
  for (size_t key = 0; key < keys_.size(); ++key) {
    if (search.tuple[key].size > longest_[key]) return;
    hash = TextHash(search.tuple[key].view(), hash);
  }
  const size_t mask = buckets_.size() - 1;
  for (size_t slot = hash & mask; buckets_[slot].count != 0; slot = (slot + 1) & mask) {
    const Bucket& bucket = buckets_[slot];
    if (bucket.hash != hash || !Holds(bucket, search)) continue;
    TryCandidates(bucket, search);
    return;
  }
}

bool ExactIndex::Holds(const Bucket& bucket, const Search& search) const {
  const std::string_view* const texts = &texts_[bucket.tuple];
  for (size_t key = 0, count = keys_.size(); key < count; ++key) {
    if (texts[key] != search.tuple[key].view()) return false;
  }
  return true;
}

void ExactIndex::TryCandidates(const Bucket& bucket, const Search& search) const {
  for (uint32_t i = 0; i < bucket.count; ++i) {
    const uint32_t rule = candidates_[bucket.candidates + i];
    if (rule >= search.best.rule) return;
    const Verdict verdict = search.rules[rule].Check(search.input);
    if (verdict == Verdict::kNo) continue;
    search.best = {rule, verdict == Verdict::kUndecided};
    return;
  }
}

}  // namespace metaprotocol
