#include "src/route/exact_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "src/base/text_hash.h"

namespace metaprotocol {
namespace {

void AppendLength(std::string& out, uint32_t length) {
  out.append(reinterpret_cast<const char*>(&length), sizeof length);
}

}  // namespace

ExactIndex::ExactIndex(std::vector<KeyRef> keys)
    : keys_(std::move(keys)), key_count_(keys_.size()), longest_(key_count_, 0) {
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

inline uint64_t ExactIndex::HashOf(const Text* tuple) const {
  uint64_t hash = 0;
  const Text* const end = tuple + key_count_;
  if (!by_ends_) {
    for (; tuple != end; ++tuple) hash = TextHash(tuple->view(), hash);
    return hash;
  }
  for (; tuple != end; ++tuple) hash = TextEndHash(tuple->view(), hash);
  return hash;
}

void ExactIndex::Seal() {
  size_t bytes = 0;
  for (const auto& [joined, rules] : building_) bytes += joined.size();
  characters_.reserve(bytes);  // never grows below, so that views into it stay valid
  std::vector<Bucket> sealed;
  sealed.reserve(building_.size());
  for (const auto& [joined, rules] : building_) {
    sealed.push_back({0, static_cast<uint32_t>(candidates_.size()),
                      static_cast<uint32_t>(rules.size()), static_cast<uint32_t>(texts_.size())});
    candidates_.insert(candidates_.end(), rules.begin(), rules.end());
    for (size_t i = 0, at = 0; i < keys_.size(); ++i) {
      uint32_t length = 0;
      std::memcpy(&length, joined.data() + at, sizeof length);
      at += sizeof length;
      const char* begin = characters_.data() + characters_.size();
      characters_.insert(characters_.end(), joined.data() + at, joined.data() + at + length);
      at += length;
      texts_.push_back({begin, length});
    }
  }
  building_.clear();
  few_ = sealed.size() <= kFew;
  if (few_) {
    buckets_ = std::move(sealed);
    return;
  }
  by_ends_ = FewAreAlike(sealed);
  buckets_.resize(std::bit_ceil(sealed.size() * 2));
  slot_mask_ = buckets_.size() - 1;
  for (Bucket& bucket : sealed) {
    bucket.hash = HashOf(&texts_[bucket.tuple]);
    size_t slot = bucket.hash & slot_mask_;
    while (buckets_[slot].count != 0) slot = (slot + 1) & slot_mask_;
    buckets_[slot] = bucket;
  }
}

bool ExactIndex::FewAreAlike(std::span<const Bucket> sealed) const {
  std::unordered_map<uint64_t, size_t> alike;
  return std::all_of(sealed.begin(), sealed.end(), [&](const Bucket& bucket) {
    return ++alike[HashOf(&texts_[bucket.tuple])] <= kMostAlike;
  });
}

void ExactIndex::Find(const MatchInput& input, std::span<const CompiledRule> rules,
                      FoundRule& best) const {
  Search search(input, rules, best);
  if (repeating_ != kMaxKeys || input.message.has_alternative()) {
    FindAmongSeveral(search);
    return;
  }
  Text* text = search.tuple.data();
  const size_t* longest = longest_.data();
  for (const KeyRef& key : keys_) {
    const std::optional<std::string_view> value = key.Find(input);
    if (!value || value->size() > *longest++) return;
    *text++ = {value->data(), value->size()};
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

inline bool ExactIndex::Holds(const Bucket& bucket, const Search& search) const {
  const Text* text = &texts_[bucket.tuple];
  for (const Text *wanted = search.tuple.data(), *const end = wanted + key_count_; wanted != end;
       ++wanted, ++text) {
    if (wanted->size != text->size || std::memcmp(wanted->data, text->data, text->size) != 0) {
      return false;
    }
  }
  return true;
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
  const uint64_t hash = HashOf(search.tuple.data());
  const Bucket* const buckets = buckets_.data();
  for (size_t slot = hash & slot_mask_; buckets[slot].count != 0; slot = (slot + 1) & slot_mask_) {
    const Bucket& bucket = buckets[slot];
    if (bucket.hash != hash || !Holds(bucket, search)) continue;
    TryCandidates(bucket, search);
    return;
  }
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
