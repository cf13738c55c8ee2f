// The codecs of the module that tests of streams load into Envoy: the one made for tests, since no
// protocol that ships has streams. In place of codecs/builtin.cc.
#include <memory>

#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol {

void RegisterBuiltinCodecs(CodecRegistry& registry) {
  registry.Register("streams", [](std::string_view) {
    return CodecOrError{std::make_shared<test::FakeCodec>(test::FakeStreams()), ""};
  });
}

}  // namespace metaprotocol
