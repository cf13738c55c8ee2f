// See frame.h.
#include "codecs/dubbo/frame.h"

#include <array>

namespace metaprotocol::dubbo {

std::string_view SerializationName(Serialization serialization) {
  // Names as Dubbo's own extensions are registered; numbers are reserved or unassigned there.
  static constexpr std::array<std::string_view, kSerializationMask + 1> kNames = {"0",
                                                                                  "1",
                                                                                  "hessian2",
                                                                                  "java",
                                                                                  "compactedjava",
                                                                                  "5",
                                                                                  "fastjson",
                                                                                  "nativejava",
                                                                                  "kryo",
                                                                                  "fst",
                                                                                  "native-hessian",
                                                                                  "avro",
                                                                                  "protostuff",
                                                                                  "13",
                                                                                  "14",
                                                                                  "15",
                                                                                  "gson",
                                                                                  "17",
                                                                                  "18",
                                                                                  "19",
                                                                                  "20",
                                                                                  "protobuf-json",
                                                                                  "protobuf",
                                                                                  "fastjson2",
                                                                                  "24",
                                                                                  "kryo2",
                                                                                  "26",
                                                                                  "msgpack",
                                                                                  "28",
                                                                                  "29",
                                                                                  "30",
                                                                                  "31"};
  return kNames[static_cast<uint8_t>(serialization) & kSerializationMask];
}

}  // namespace metaprotocol::dubbo
