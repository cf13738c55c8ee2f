// How the simulated clients and servers speak: one interface over the protocols they can speak, so
// that a scenario is written once.
//
// Every message has a *token*, a short text that a reply repeats, local ones included. It tells a
// test whose reply it is looking at.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol::test {

struct WireMessage {
  char kind = 0;  // as the fake codec's: Q O R X E H h G ?; 0: not a message
  uint64_t id = 0;
  std::string token;
  FakeKv kv;
  std::string body;
  size_t size = 0;  // bytes on the wire
};

class Wire {
 public:
  virtual ~Wire() = default;

  virtual std::string Make(char kind, uint64_t id, std::string_view token,
                           std::string_view body = {}, const FakeKv& more = {}) const = 0;
  // The message that `bytes` begin with; nothing if it is not there to its end. Kind 0 says that
  // these are no messages.
  virtual std::optional<WireMessage> Take(Bytes bytes) const = 0;
  virtual bool has_ids() const = 0;
};

class FakeWire final : public Wire {
 public:
  explicit FakeWire(bool ids) : ids_(ids) {}

  std::string Make(char kind, uint64_t id, std::string_view token, std::string_view body,
                   const FakeKv& more) const override {
    FakeKv kv;
    if (!token.empty()) kv.emplace_back("name", token);
    kv.insert(kv.end(), more.begin(), more.end());
    return FakeMessage(kind, ids_ ? std::optional(id) : std::nullopt, kv, body);
  }

  std::optional<WireMessage> Take(Bytes bytes) const override {
    if (bytes.size() < 4) return std::nullopt;
    const size_t size = size_t{4} + LoadBe32(bytes.data());
    if (bytes.size() < size) return std::nullopt;
    const auto parsed = ParseFakeMessages(bytes.substr(0, size), ids_);
    WireMessage message;
    message.size = size;
    if (parsed.size() != 1 || parsed[0].kind == 0) return message;
    message.kind = parsed[0].kind;
    message.id = parsed[0].id;
    message.kv = parsed[0].kv;
    message.body = parsed[0].body;
    for (const auto& [key, value] : message.kv) {
      if (key == "name" && message.token.empty()) message.token = value;
    }
    return message;
  }

  bool has_ids() const override { return ids_; }

 private:
  bool ids_;
};

// Takes whole messages off a growing stream.
class WireReader {
 public:
  explicit WireReader(const Wire& wire) : wire_(&wire) {}

  // The next message of `stream`, which is all that has come since the beginning.
  std::optional<WireMessage> Next(Bytes stream) {
    if (broken_) return std::nullopt;
    auto message = wire_->Take(stream.substr(used_));
    if (!message) return std::nullopt;
    used_ += message->size;
    if (message->kind == 0) broken_ = true;
    return message;
  }
  size_t used() const { return used_; }
  bool broken() const { return broken_; }

 private:
  const Wire* wire_;
  size_t used_ = 0;
  bool broken_ = false;
};

}  // namespace metaprotocol::test
