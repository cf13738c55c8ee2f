// Any bytes into a codec behind the C ABI: the one that `metaprotocol new codec` makes, with the
// target that `metaprotocol fuzz --engine libfuzzer` builds for such codecs.
#include "include/fuzzing/library_fuzzer.cc"
#include "python/metaprotocol/scaffold/codec/page_codec.cc"
