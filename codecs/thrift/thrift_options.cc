// The options of the codec, as JSON in a protocol's configuration.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "codecs/thrift/thrift_codec.h"

namespace metaprotocol::thrift {
namespace {

std::string Dumped(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Both: what is wrong with the option, or "".
std::string ReadCheckFrames(const nlohmann::json& value, ThriftOptions& options) {
  if (!value.is_boolean()) return "check_frames is true or false, not " + Dumped(value);
  options.check_frames = value.get<bool>();
  return {};
}

std::string ReadOneWayMethods(const nlohmann::json& value, ThriftOptions& options) {
  const auto is_name = [](const nlohmann::json& method) {
    return method.is_string() && !method.get_ref<const std::string&>().empty();
  };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_name)) {
    return "one_way_methods is a list of names such as [\"note\", \"Service:note\"], not " +
           Dumped(value);
  }
  for (const nlohmann::json& method : value) {
    options.one_way_methods.insert(method.get<std::string>());
  }
  return {};
}

}  // namespace

CodecOrError CreateThriftCodec(std::string_view options) {
  const std::string all(options);
  nlohmann::json json;
  if (all.find_first_not_of(" \t\r\n") == std::string::npos) {
    json = nlohmann::json::object();
  } else {
    json = nlohmann::json::parse(all, nullptr, false);
  }
  if (!json.is_object()) {
    return {nullptr, "the thrift codec's options are a JSON object, not " + all};
  }
  ThriftOptions read;
  for (const auto& [name, value] : json.items()) {
    std::string error;
    if (name == "check_frames") {
      error = ReadCheckFrames(value, read);
    } else if (name == "one_way_methods") {
      error = ReadOneWayMethods(value, read);
    } else {
      error = "the thrift codec has no option \"" + name +
              "\"; there are check_frames and one_way_methods";
    }
    if (!error.empty()) return {nullptr, error};
  }
  return {std::make_shared<const ThriftCodec>(read), ""};
}

}  // namespace metaprotocol::thrift
