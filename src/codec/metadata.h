// Metadata: what a codec read from one message, as key/value views into the message's own bytes.
// Routes match on it.
#pragma once

#include <array>
#include <cstddef>
#include <forward_list>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol {

// An ordered list of key/value pairs. Keys may repeat; `Find` returns the first, so what a codec
// adds first (the protocol's own fields) cannot be overridden by what a peer put into attachments.
//
// Views stay valid as long as the decoded bytes do; text that is not contiguous in them is kept
// alive by `Own`. Objects are meant to be reused message after message: the first kInline entries
// never allocate.
class Metadata {
 public:
  struct Entry {
    std::string_view key;
    std::string_view value;
  };

  // Entries beyond this are dropped (and `truncated()` says so): a peer cannot make a message cost
  // more than this many comparisons per route condition.
  static constexpr size_t kMaxEntries = 512;

  void Clear() {
    size_ = 0;
    truncated_ = false;
    overflow_.clear();
    owned_.clear();
  }

  void Add(std::string_view key, std::string_view value) {
    if (size_ < kInline) {
      inline_[size_++] = {key, value};
    } else if (size_ < kMaxEntries) {
      overflow_.push_back({key, value});
      ++size_;
    } else {
      truncated_ = true;
    }
  }

  // Keeps `text` alive until Clear() and returns a view of it.
  std::string_view Own(std::string text) { return owned_.emplace_front(std::move(text)); }

  std::optional<std::string_view> Find(std::string_view key) const {
    for (size_t i = 0; i < size_; ++i) {
      if (at(i).key == key) return at(i).value;
    }
    return std::nullopt;
  }

  // The bytes that the views point into have been copied to `to`.
  void Rebase(std::string_view from, const char* to) {
    for (size_t i = 0; i < size_; ++i) {
      Entry& entry = i < kInline ? inline_[i] : overflow_[i - kInline];
      entry = {Rebased(entry.key, from, to), Rebased(entry.value, from, to)};
    }
  }
  // `view` itself unless it lies within `from`.
  static std::string_view Rebased(std::string_view view, std::string_view from, const char* to) {
    const std::less<> before;
    if (before(view.data(), from.data()) || !before(view.data(), from.data() + from.size())) {
      return view;
    }
    return {to + (view.data() - from.data()), view.size()};
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool truncated() const { return truncated_; }
  const Entry& at(size_t i) const { return i < kInline ? inline_[i] : overflow_[i - kInline]; }

 private:
  static constexpr size_t kInline = 16;
  std::array<Entry, kInline> inline_;
  size_t size_ = 0;
  bool truncated_ = false;
  std::vector<Entry> overflow_;
  std::forward_list<std::string> owned_;
};

}  // namespace metaprotocol
