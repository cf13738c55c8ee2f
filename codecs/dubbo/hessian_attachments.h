// The attachments of requests and replies in Hessian, as they are found. For request.cc and
// reply_attachments.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/request_text.h"
#include "src/codec/metadata.h"
#include "src/codec/milliseconds.h"

namespace metaprotocol::dubbo {

// One attachment as it is found; what is neither wanted nor known is not converted.
class HessianAttachment {
 public:
  // `body`: what the entry's positions count in.
  HessianAttachment(const HessianEntry& entry, Bytes body)
      : entry_(entry), body_(body), key_(entry.key.raw) {
    if (entry.key.IsView()) return;
    converted_ = entry.key.Text();
    key_ = converted_;
  }

  std::string_view key() const { return key_; }

  void SetIn(Metadata& metadata) const {
    if (!metadata.WantsNamed(key_)) return;
    if (!entry_.string_value) {
      metadata.SetNamedUntold(key_);
    } else if (entry_.value.IsView()) {
      metadata.SetNamed(key_, entry_.value.raw);
    } else {
      metadata.SetNamedCopy(key_, entry_.value.Text());
    }
  }

  void SetGroupOf(HeadText& head) const {
    head.group_copy.clear();
    head.group = entry_.string_value ? Bytes(entry_.value.raw) : Bytes();
    if (!entry_.string_value || entry_.value.IsView()) return;
    head.group_copy = entry_.value.Text();
    head.group = head.group_copy;
  }

  // Numbers under the long name are passed over: dubbo-js, which sends one, means seconds.
  uint64_t AsTimeoutUs() const {
    if (entry_.string_value)
      return entry_.value.IsView() ? UsFromMilliseconds(entry_.value.raw) : 0;
    Hessian2Reader value(body_.substr(entry_.value_begin, entry_.end - entry_.value_begin));
    int32_t milliseconds = 0;
    const bool number =
        key_ == kShortTimeout && value.NextIsInt() && value.ReadInt(milliseconds) && value.AtEnd();
    return number && milliseconds > 0 ? uint64_t{static_cast<uint32_t>(milliseconds)} * 1000 : 0;
  }

 private:
  const HessianEntry& entry_;
  const Bytes body_;
  std::string converted_;
  std::string_view key_;
};

// Calls `each(attachment)` for the attachments that begin where `reader` is; false leaves the
// reason in `reader`.
template <class Each>
bool ForEachAttachment(Hessian2Reader& reader, Bytes body, Each each) {
  // Old clients send none; a reference to an argument would be legal, but no client writes that.
  if (reader.AtEnd()) return true;
  if (reader.tag() != 'H' && reader.tag() != 'M') return reader.SkipValue();
  if (!reader.ReadMapBegin()) return false;
  HessianEntry entry;
  while (!reader.TakeMapEnd()) {
    if (!ReadHessianEntry(reader, entry)) return false;
    if (entry.string_key) each(HessianAttachment(entry, body));
  }
  return true;
}

}  // namespace metaprotocol::dubbo
