#include "src/bindings/codec_bindings.h"

#include <pybind11/stl.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "codecs/declared/declared_codec.h"
#include "src/bindings/exceptions.h"
#include "src/codec/codec.h"
#include "src/codec/conformance.h"

namespace metaprotocol {
namespace {

namespace py = pybind11;

// A decoded message, in Python's own objects: nothing in it points into the decoded bytes.
struct DecodedMessage {
  MessageKind kind;
  ReplyStatus status;
  int32_t status_code;
  uint64_t id;
  uint64_t timeout_us;
  size_t length;
  std::vector<std::pair<py::bytes, py::bytes>> metadata;
  uint64_t stream_id = 0;
  bool end_stream = false;
  uint64_t window = 0;
};

class DecodeError : public std::exception {
 public:
  DecodeError(std::string text, bool too_large) : text_(std::move(text)), too_large_(too_large) {}
  const char* what() const noexcept override { return text_.c_str(); }
  bool too_large() const { return too_large_; }

 private:
  std::string text_;
  bool too_large_;
};

// One codec with the memory of one connection: decoding remembers what it has detected.
class PyCodec {
 public:
  PyCodec(const std::string& name, const std::string& options, const std::string& declaration,
          const std::string& library)
      : codec_(Create(name, options, declaration, library)) {
    keys_ = MetadataKeys::Everything(codec_->traits().metadata_keys);
  }

  py::dict Traits() const {
    const CodecTraits& traits = codec_->traits();
    py::dict dict;
    dict["name"] = traits.name;
    dict["id_bits"] = traits.id_bits;
    dict["multiplexed"] = traits.multiplexed;
    dict["ordered_replies"] = traits.ordered_replies;
    dict["stateful"] = traits.stateful;
    dict["mutation_in_head"] = traits.mutation_in_head;
    py::list keys;
    for (const std::string_view key : traits.metadata_keys) keys.append(py::str(key));
    dict["metadata_keys"] = keys;
    return dict;
  }

  // The message at the beginning of `data`, or how many bytes it takes to tell (an int).
  py::object Decode(Direction direction, const py::bytes& data, size_t max_message_bytes) {
    Message message;
    const DecodeResult result = DecodeInto(direction, data, max_message_bytes, message);
    if (result.status == DecodeResult::Status::kNeedMore) return py::int_(result.need);
    DecodedMessage decoded{message.kind,
                           message.status,
                           message.status_code,
                           message.id,
                           message.timeout_us,
                           message.length,
                           {},
                           message.stream_id,
                           message.end_stream,
                           message.window};
    for (const auto& [key, value] : message.metadata.Entries()) {
      decoded.metadata.emplace_back(py::bytes(key), py::bytes(value));
    }
    return py::cast(std::move(decoded));
  }

  py::bytes Encode(Direction direction, const py::bytes& data, std::optional<uint64_t> id,
                   const std::vector<std::tuple<std::string, std::string, std::string>>& mutation,
                   bool required) {
    Message message;
    const Bytes bytes = Whole(direction, data, message);
    Mutation ops;
    for (const auto& [op, key, value] : mutation) {
      ops.push_back({OpNamed(op), key, value, required});
    }
    std::string out;
    const Encoded encoded = codec_->Encode(message, bytes,
                                           {.id = id.value_or(message.id),
                                            .stream_id = id.value_or(message.stream_id),
                                            .mutation = ops},
                                           out);
    if (encoded.impossible) return "";
    out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
    return out;
  }

  std::optional<py::bytes> Reply(const py::bytes& request, LocalReply reply,
                                 const std::string& text) {
    Message message;
    Whole(Direction::kRequest, request, message);
    const ReplyContext context{message.id, message.tag, std::string(message.reply_name)};
    std::string out;
    if (!codec_->Reply(context, reply, text, out)) return std::nullopt;
    return py::bytes(out);
  }

  std::optional<py::bytes> HeartbeatReply(Direction direction, const py::bytes& heartbeat) {
    Message message;
    const Bytes bytes = Whole(direction, heartbeat, message);
    std::string out;
    if (!codec_->HeartbeatReply(message, bytes, out)) return std::nullopt;
    return py::bytes(out);
  }

  // Fields of a message with their places: name, first byte, byte behind the last, value. Where the
  // place is not known, both are 0.
  py::list Explain(Direction direction, const py::bytes& data) {
    Message message;
    const Bytes bytes = Whole(direction, data, message);
    py::list fields;
    if (const auto* declared = dynamic_cast<const declared::DeclaredCodec*>(codec_.get())) {
      std::string_view error;
      for (const auto& field : declared->Explain(direction, bytes, error)) {
        fields.append(py::make_tuple(field.name, field.begin, field.end, py::bytes(field.value)));
      }
      return fields;
    }
    for (const auto& [key, value] : message.metadata.Entries()) {
      const std::less<> before;
      const bool inside =
          !before(value.data(), bytes.data()) && before(value.data(), bytes.data() + bytes.size());
      const size_t begin = inside ? static_cast<size_t>(value.data() - bytes.data()) : 0;
      fields.append(py::make_tuple(py::bytes(key), begin, inside ? begin + value.size() : 0,
                                   py::bytes(value)));
    }
    return fields;
  }

  // The rule that the codec breaks with these bytes, or None; how many messages are in them; and
  // what was seen, as bits.
  py::tuple Check(Direction direction, const py::bytes& data, uint64_t seed) {
    const Bytes bytes = data;
    ConformanceResult result;
    {
      const py::gil_scoped_release release;
      result = CheckConformance(*codec_, direction, bytes, {.seed = seed});
    }
    return py::make_tuple(result.violation, result.messages, result.features);
  }

 private:
  static std::shared_ptr<const Codec> Create(const std::string& name, const std::string& options,
                                             const std::string& declaration,
                                             const std::string& library) {
    if (!library.empty()) {
      LibraryCodecOrError created = BuiltinCodecs().library()(name, library, options);
      if (created.codec == nullptr) throw py::value_error(library + " " + created.error);
      return std::move(created.codec);
    }
    CodecOrError created = declaration.empty() ? BuiltinCodecs().Create(name, options)
                                               : declared::CreateDeclaredCodec(name, declaration);
    if (created.codec == nullptr) throw py::value_error(created.error);
    return std::move(created.codec);
  }

  static MutationOp::Kind OpNamed(const std::string& name) {
    if (name == "set") return MutationOp::Kind::kSet;
    if (name == "add_if_absent") return MutationOp::Kind::kAddIfAbsent;
    if (name == "remove") return MutationOp::Kind::kRemove;
    throw py::value_error("a mutation is \"set\", \"add_if_absent\" or \"remove\", not \"" + name +
                          "\"");
  }

  DecodeResult DecodeInto(Direction direction, Bytes bytes, size_t max_message_bytes,
                          Message& message) {
    auto& state = states_[direction == Direction::kResponse];
    if (state == nullptr) state = codec_->NewDecodeState(direction);
    DecodeOptions options;
    options.interest = codec_->InterestIn(keys_);
    options.max_message_bytes = max_message_bytes;
    message.Clear(&keys_);
    const DecodeResult result = codec_->Decode(state.get(), direction, bytes, options, message);
    const bool too_large = result.status == DecodeResult::Status::kTooLarge;
    if (too_large || result.status == DecodeResult::Status::kError ||
        result.status == DecodeResult::Status::kUndecodable) {
      throw DecodeError(std::string(result.error), too_large);
    }
    return result;
  }

  Bytes Whole(Direction direction, const py::bytes& data, Message& message) {
    const Bytes bytes = data;
    const DecodeResult result =
        DecodeInto(direction, bytes, DecodeOptions().max_message_bytes, message);
    if (result.status == DecodeResult::Status::kNeedMore) {
      throw py::value_error("not a whole message: " + std::to_string(result.need) +
                            " bytes are needed");
    }
    return bytes.substr(0, message.length);
  }

  std::shared_ptr<const Codec> codec_;
  MetadataKeys keys_;
  std::unique_ptr<DecodeState> states_[2];
};

}  // namespace

const CodecRegistry& BuiltinCodecs() {
  static const CodecRegistry* const registry = [] {
    auto made = std::make_unique<CodecRegistry>();
    RegisterBuiltinCodecs(*made);
    return made.release();
  }();
  return *registry;
}

void BindCodecs(py::module_& module) {
  py::enum_<Direction>(module, "Direction")
      .value("REQUEST", Direction::kRequest)
      .value("RESPONSE", Direction::kResponse);
  py::enum_<MessageKind>(module, "MessageKind")
      .value("REQUEST", MessageKind::kRequest)
      .value("ONE_WAY", MessageKind::kOneWay)
      .value("RESPONSE", MessageKind::kResponse)
      .value("HEARTBEAT", MessageKind::kHeartbeat)
      .value("HEARTBEAT_REPLY", MessageKind::kHeartbeatReply)
      .value("GO_AWAY", MessageKind::kGoAway)
      .value("OTHER", MessageKind::kOther)
      .value("STREAM_OPEN", MessageKind::kStreamOpen)
      .value("STREAM_DATA", MessageKind::kStreamData)
      .value("STREAM_END", MessageKind::kStreamEnd)
      .value("STREAM_RESET", MessageKind::kStreamReset)
      .value("STREAM_WINDOW", MessageKind::kStreamWindow);
  py::enum_<ReplyStatus>(module, "ReplyStatus")
      .value("OK", ReplyStatus::kOk)
      .value("EXCEPTION", ReplyStatus::kException)
      .value("ERROR", ReplyStatus::kError);
  py::enum_<LocalReply> local_reply(module, "LocalReply");
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    const auto reply = static_cast<LocalReply>(i);
    std::string name(LocalReplyName(reply));
    for (char& c : name) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    local_reply.value(name.c_str(), reply);
  }
  py::register_exception<DecodeError>(module, "DecodeError", ValueErrorOfPackage());
  py::class_<DecodedMessage>(module, "Message")
      .def_readonly("kind", &DecodedMessage::kind)
      .def_readonly("status", &DecodedMessage::status)
      .def_readonly("status_code", &DecodedMessage::status_code)
      .def_readonly("id", &DecodedMessage::id)
      .def_readonly("timeout_us", &DecodedMessage::timeout_us)
      .def_readonly("length", &DecodedMessage::length)
      .def_readonly("metadata", &DecodedMessage::metadata)
      .def_readonly("stream_id", &DecodedMessage::stream_id)
      .def_readonly("end_stream", &DecodedMessage::end_stream)
      .def_readonly("window", &DecodedMessage::window);
  py::class_<PyCodec>(module, "Codec")
      .def(py::init<const std::string&, const std::string&, const std::string&,
                    const std::string&>(),
           py::arg("name"), py::arg("options") = "", py::arg("declaration") = "",
           py::arg("library") = "")
      .def_property_readonly("traits", &PyCodec::Traits)
      .def("decode", &PyCodec::Decode, py::arg("direction"), py::arg("data"),
           py::arg("max_message_bytes") = DecodeOptions().max_message_bytes)
      .def("encode", &PyCodec::Encode, py::arg("direction"), py::arg("data"),
           py::arg("id") = py::none(),
           py::arg("mutation") = std::vector<std::tuple<std::string, std::string, std::string>>(),
           py::arg("required") = false)
      .def("reply", &PyCodec::Reply, py::arg("request"), py::arg("reply"), py::arg("text") = "")
      .def("heartbeat_reply", &PyCodec::HeartbeatReply, py::arg("direction"), py::arg("heartbeat"))
      .def("explain", &PyCodec::Explain, py::arg("direction"), py::arg("data"))
      .def("check", &PyCodec::Check, py::arg("direction"), py::arg("data"), py::arg("seed") = 1);
  module.def("codec_names", [] {
    py::list names;
    for (const std::string_view name : BuiltinCodecs().Names()) names.append(py::str(name));
    return names;
  });
}

}  // namespace metaprotocol
