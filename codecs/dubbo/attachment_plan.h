// What a mutation does to the attachments of one message, whatever serialization they are in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "codecs/dubbo/frame.h"
#include "src/codec/mutation.h"

namespace metaprotocol::dubbo {

// What a whole mutation comes to for one key, depending on whether the message has the key. Worked
// out beforehand, so that maps of any size are rewritten in one pass without remembering entries.
class KeyPlan {
 public:
  explicit KeyPlan(std::string_view key) : key_(key) {}

  void Replace(std::string_view value) { if_present_ = {State::kValue, value}; }
  void Apply(const MutationOp& op) {
    required_ |= op.required;
    switch (op.kind) {
      case MutationOp::Kind::kSet:
        if_present_ = {State::kValue, op.value};
        if_absent_ = {State::kValue, op.value};
        break;
      case MutationOp::Kind::kAddIfAbsent:
        if (if_present_.state == State::kGone) if_present_ = {State::kValue, op.value};
        if (if_absent_.state == State::kGone) if_absent_ = {State::kValue, op.value};
        break;
      case MutationOp::Kind::kRemove:
        if_present_ = {State::kGone, {}};
        if_absent_ = {State::kGone, {}};
        break;
    }
  }

  std::string_view key() const { return key_; }
  bool keeps() const { return if_present_.state == State::kKeep; }
  bool required() const { return required_; }

  // The value to write for the next present entry; nothing: drop it. Not to be called if keeps().
  std::optional<std::string_view> TakeForPresent() {
    const bool first = !seen_;
    seen_ = true;
    if (!first || if_present_.state == State::kGone) return std::nullopt;
    return if_present_.value;
  }
  void MarkSeen() { seen_ = true; }
  // The value to append after all entries.
  std::optional<std::string_view> ValueIfNeverSeen() const {
    if (seen_ || if_absent_.state == State::kGone) return std::nullopt;
    return if_absent_.value;
  }

 private:
  enum class State { kKeep, kValue, kGone };
  struct Outcome {
    State state;
    std::string_view value;
  };

  std::string_view key_;
  Outcome if_present_{State::kKeep, {}};
  Outcome if_absent_{State::kGone, {}};
  bool seen_ = false;
  bool required_ = false;
};

class AttachmentPlan {
 public:
  // `timeout`: in place of what the message has under "timeout" and "_TO"; empty: as it is.
  AttachmentPlan(std::span<const MutationOp> mutation, std::string_view timeout) {
    if (!timeout.empty()) {
      for (const std::string_view key : {"timeout", "_TO"}) {
        plans_.emplace_back(key).Replace(timeout);
      }
    }
    for (const MutationOp& op : mutation) {
      KeyPlan* plan = For(op.key);
      if (plan == nullptr) plan = &plans_.emplace_back(op.key);
      plan->Apply(op);
    }
  }
  KeyPlan* For(std::string_view key) {
    for (KeyPlan& plan : plans_) {
      if (plan.key() == key) return &plan;
    }
    return nullptr;
  }
  const std::vector<KeyPlan>& all() const { return plans_; }

  // An entry with that key stays as it is, since others depend on it.
  void LeaveAlone(KeyPlan& key) {
    key.MarkSeen();
    if (!key.keeps() && key.required()) broken_ = true;
  }
  // All entries have been gone through.
  void Finish() { finished_ = true; }
  // Something that is required has not become of the message.
  bool falls_short() const {
    return broken_ ||
           (!finished_ && std::any_of(plans_.begin(), plans_.end(),
                                      [](const KeyPlan& key) { return key.required(); }));
  }

 private:
  std::vector<KeyPlan> plans_;
  bool finished_ = false;
  bool broken_ = false;
};

// Of a response's type: whether a value comes before the attachments.
inline bool TypeHasValue(uint8_t type) {
  return type % kWithAttachments != static_cast<uint8_t>(ResponseType::kNull);
}

}  // namespace metaprotocol::dubbo
