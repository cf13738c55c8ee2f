// Text to and from shared libraries of somebody else's, in the words of their C ABI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "include/metaprotocol/codec.h"

namespace metaprotocol::library {

inline metaprotocol_bytes View(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view Text(metaprotocol_bytes bytes) {
  return bytes.data == nullptr ? std::string_view() : std::string_view(bytes.data, bytes.size);
}

// What a library writes, up to a bound.
class Sink {
 public:
  Sink(std::string& out, size_t most) : out_(out), begin_(out.size()), most_(most) {}

  metaprotocol_sink c_sink() {
    return {this, [](void* context, const char* data, size_t size) {
              static_cast<Sink*>(context)->Append(data, size);
            }};
  }
  // Whether it can be used; if not, nothing of it stays.
  bool Finish(bool written) {
    if (written && !over_) return true;
    out_.resize(begin_);
    return false;
  }

 private:
  void Append(const char* data, size_t size) {
    if (data == nullptr || over_) return;
    over_ = size > most_ - (out_.size() - begin_);
    if (!over_) out_.append(data, size);
  }

  std::string& out_;
  const size_t begin_;
  const size_t most_;
  bool over_ = false;
};

// The `create` of a library's table, whose last argument takes what is wrong: what it makes, or
// null and why.
template <class Creating>
void* Create(Creating create, std::string& why) {
  constexpr size_t kLongestReason = 4096;
  Sink sink(why, kLongestReason);
  const metaprotocol_sink to = sink.c_sink();
  void* const made = create(&to);
  if (made == nullptr && (!sink.Finish(true) || why.empty())) {
    why = "refuses its options without a reason";
  }
  return made;
}

}  // namespace metaprotocol::library
