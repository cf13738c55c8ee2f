// A codec for every protocol that a declaration describes (api/, declaration.proto). README.md in
// this folder says what can be declared and what cannot.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "codecs/declared/tables.h"
#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::config {
struct Declaration;
}

namespace metaprotocol::declared {

class DeclaredCodec final : public Codec {
 public:
  explicit DeclaredCodec(Forms forms);

  const CodecTraits& traits() const override { return traits_; }
  Interest InterestIn(const MetadataKeys& keys) const override;
  std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const override;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override;
  bool HeartbeatReply(const Message& heartbeat, Bytes bytes, std::string& out) const override;
  bool Ping(uint64_t id, std::string& out) const override;
  bool GoAway(const ReplyContext& last, std::string& out) const override;

  // One field of a message, for people.
  struct Explained {
    std::string name;
    size_t begin = 0;
    size_t end = 0;
    std::string value;  // text as it is, numbers in decimal, with their names
  };
  // The fields of the message that `bytes` is, as far as they can be read; `error` says why not.
  std::vector<Explained> Explain(Direction direction, Bytes bytes, std::string_view& error) const;

 private:
  // Of a message that a tag is of.
  const Tables& TablesOf(uint64_t tag) const;

  const Forms forms_;
  const Tables& common_;  // what is the same in all of them
  std::vector<std::string_view> keys_;
  CodecTraits traits_;
};

// `json`: of a metaprotocol.config.v1.Declaration.
CodecOrError CreateDeclaredCodec(const std::string& name, std::string_view json);

// For CodecRegistry::RegisterDeclared.
std::shared_ptr<const Codec> CompileDeclaredCodec(const std::string& name,
                                                  const config::Declaration& declaration,
                                                  const std::string& path, Findings& findings);

}  // namespace metaprotocol::declared
