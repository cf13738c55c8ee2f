#include "codecs/thrift/dialect.h"

namespace metaprotocol::thrift {

namespace {

// Whether UTF-8 text can begin with this byte.
bool MayBeginText(uint8_t lead) { return lead < 0x80 || (lead >= 0xC2 && lead <= 0xF4); }

}  // namespace

std::string_view TransportName(Transport transport) {
  switch (transport) {
    case Transport::kFramed:
      return "framed";
    case Transport::kUnframed:
      return "unframed";
    case Transport::kHeader:
      return "header";
    case Transport::kTTHeader:
      return "ttheader";
    case Transport::kTTHeaderFramed:
      return "ttheader_framed";
    case Transport::kUnknown:
      break;
  }
  return "";
}

std::string_view ProtocolName(Protocol protocol) {
  switch (protocol) {
    case Protocol::kBinary:
      return "binary";
    case Protocol::kOldBinary:
      return "binary/non-strict";
    case Protocol::kCompact:
      return "compact";
    case Protocol::kUnknown:
      break;
  }
  return "";
}

DecodeResult Detect(Bytes bytes, Dialect& dialect) {
  // A set first bit is a protocol's version marker: neither a frame nor a name has such a length.
  // The shortest compact message is 5 bytes long, so no more than 2 may be waited for here.
  if (bytes.size() < 2) return DecodeResult::NeedMore(2);
  const uint16_t first = LoadBe16(bytes.data());
  if (first & 0x8000) {
    if (first == 0x8001) {
      dialect = {Transport::kUnframed, Protocol::kBinary};
      return DecodeResult::Ok();
    }
    if ((first & 0xFF1F) == 0x8201) {
      dialect = {Transport::kUnframed, Protocol::kCompact};
      return DecodeResult::Ok();
    }
    return DecodeResult::Error("not Thrift: first bytes are neither a length nor a known version");
  }
  // A length. What follows it is the message (framed), THeader's magic, or, if the length is that
  // of a name (unframed old binary), text: 0x80, 0x82 and 0x0F 0xFF do not begin any UTF-8 text,
  // and a zero byte does not begin a method name.
  if (bytes.size() < 6) return DecodeResult::NeedMore(6);
  const uint32_t length = LoadBe32(bytes.data());
  const uint16_t next = LoadBe16(bytes.data() + 4);
  if (next == 0x0FFF) {
    dialect = {Transport::kHeader, Protocol::kUnknown};
  } else if (next == 0x8001) {
    dialect = {Transport::kFramed, Protocol::kBinary};
  } else if ((next & 0xFF1F) == 0x8201 || (next & 0xFF1F) == 0x8202) {
    // Version 2 is fbthrift's; it differs in doubles only, which nobody reads here.
    dialect = {Transport::kFramed, Protocol::kCompact};
  } else if (length > 0 && (next & 0xFF00) == 0) {
    dialect = {Transport::kFramed, Protocol::kOldBinary};
  } else if (next == 0x1000) {
    dialect = {Transport::kTTHeader, Protocol::kBinary};
  } else if (bytes.substr(4, 2) == "[1") {
    return DecodeResult::Error("Thrift's JSON protocol is not supported");
  } else if (!MayBeginText(static_cast<uint8_t>(next >> 8))) {
    // No name: a protocol that is not known here, or another version of one that is.
    dialect = {Transport::kFramed, Protocol::kUnknown};
  } else if (length <= kMaxNameBytes && (length < 2 || (next & 0x00FF) != 0)) {
    dialect = {Transport::kUnframed, Protocol::kOldBinary};
  } else {
    return DecodeResult::Error("not Thrift: no known message begins like this");
  }
  return DecodeResult::Ok();
}

}  // namespace metaprotocol::thrift
