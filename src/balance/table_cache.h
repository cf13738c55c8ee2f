// Tables of consistent hashing, shared by all workers of the process.
//
// Such a table depends on the hosts and the policy alone, and takes milliseconds to make and
// hundreds of kilobytes to keep. So whoever needs one first makes it, the others wait for that or
// find it made, and it goes when nobody uses it any more. A large one, which would hold up a worker
// for longer than its connections should notice, is left to those who have nobody waiting, and
// workers do without until it is there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/balance/balancer.h"
#include "src/balance/host_set.h"
#include "src/base/text_hash.h"

namespace metaprotocol {

// All that a table is made from.
struct TableKey {
  uint64_t smallest = 0;  // bounds of its size
  uint64_t largest = 0;
  std::vector<std::string> addresses;  // of the source's hosts
  std::vector<uint32_t> hosts;         // their indices, which is what the table holds
  std::vector<double> shares;

  TableKey(uint64_t smallest, uint64_t largest, std::span<const HostInfo> all,
           const HostSet::Source& source)
      : smallest(smallest), largest(largest), hosts(source.hosts), shares(source.shares) {
    for (const uint32_t host : hosts) addresses.push_back(all[host].address);
  }

  bool operator==(const TableKey&) const = default;
  uint64_t Hash() const {
    uint64_t hash = smallest ^ largest << 32;
    for (const std::string& address : addresses) hash = TextHash(address, hash);
    return hash;
  }
};

// Tables of more entries than this are large: making one takes some milliseconds.
inline constexpr size_t kLargeTable = size_t{1} << 17;

// Thread-safe. The only lock of the balancers, and taken when hosts change, not for requests.
template <typename Table>
class TableCache {
  struct Entry;

 public:
  // Keeps a table alive, or the wish for one.
  class Handle {
   public:
    // Null until somebody has made it; then always the same.
    const Table* get() const {
      return entry_->is_made.load(std::memory_order_acquire) ? &entry_->table : nullptr;
    }
    bool operator==(const Handle&) const = default;

   private:
    friend class TableCache;
    explicit Handle(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
    std::shared_ptr<Entry> entry_;
  };

  // The process's only one for this kind of table; never destroyed.
  static TableCache& Get() {
    static TableCache* const instance = std::make_unique<TableCache>().release();
    return *instance;
  }

  // The table for `key`; make() is called if there is none, by one caller at a time.
  template <typename F>
  Handle Find(TableKey key, F&& make) {
    const std::shared_ptr<Entry> entry = EntryFor(std::move(key));
    std::call_once(entry->made, [&] {
      entry->table = make();
      entry->is_made.store(true, std::memory_order_release);
    });
    return Handle(entry);
  }
  // The same, but nothing is made: whoever else calls Find for that key does.
  Handle Wish(TableKey key) { return Handle(EntryFor(std::move(key))); }

  size_t size() {
    const std::lock_guard lock(mutex_);
    DropUnused();
    return entries_.size();
  }

 private:
  struct Entry {
    explicit Entry(TableKey key) : key(std::move(key)) {}
    const TableKey key;
    std::once_flag made;
    std::atomic<bool> is_made{false};
    Table table;
  };

  std::shared_ptr<Entry> EntryFor(TableKey key) {
    const uint64_t hash = key.Hash();
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = entries_.equal_range(hash);
    for (auto it = begin; it != end; ++it) {
      std::shared_ptr<Entry> entry = it->second.lock();
      if (entry != nullptr && entry->key == key) return entry;
    }
    if (entries_.size() >= drop_at_) {
      DropUnused();
      drop_at_ = 2 * entries_.size() + 16;
    }
    auto entry = std::make_shared<Entry>(std::move(key));
    entries_.emplace(hash, entry);
    return entry;
  }
  void DropUnused() {
    std::erase_if(entries_, [](const auto& item) { return item.second.expired(); });
  }

  std::mutex mutex_;
  std::unordered_multimap<uint64_t, std::weak_ptr<Entry>> entries_;  // by the key's hash
  size_t drop_at_ = 16;
};

}  // namespace metaprotocol
