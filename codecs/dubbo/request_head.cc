// See request_head.h.
#include "codecs/dubbo/request_head.h"

#include <cstring>

namespace metaprotocol::dubbo {
namespace {

constexpr std::string_view kBadTypes = "malformed parameter types";

}  // namespace

bool CountArguments(std::string_view descriptor, size_t& count) {
  constexpr auto bit = [](char letter) { return uint32_t{1} << (letter - 'A'); };
  constexpr uint32_t kPrimitive = bit('V') | bit('Z') | bit('B') | bit('C') | bit('D') | bit('F') |
                                  bit('I') | bit('J') | bit('S');
  count = 0;
  const char* p = descriptor.data();
  for (const char* const end = p + descriptor.size(); p != end; ++p, ++count) {
    while (*p == '[') {
      if (++p == end) return false;
    }
    if (*p == 'L') {
      const auto left = static_cast<size_t>(end - p);
      const auto* const name_end = static_cast<const char*>(std::memchr(p, ';', left));
      if (name_end == nullptr || name_end == p + 1) return false;
      p = name_end;
    } else if (*p < 'A' || *p > 'Z' || (bit(*p) & kPrimitive) == 0) {
      return false;
    }
  }
  return true;
}

bool ReadHessianHead(Hessian2Reader& reader, size_t first, size_t end, HessianRequestHead& head,
                     std::string_view& error) {
  for (size_t i = first; i < end; ++i) {
    if (i == kParameterTypes && reader.NextIsInt()) {
      int32_t arguments = 0;
      if (!reader.ReadInt(arguments)) return false;
      if (arguments >= 0) {
        head.arguments = static_cast<size_t>(arguments);
        return true;
      }
    }
    if (!reader.ReadString(head.fields[i])) return false;
  }
  if (end < kHeadFields) return true;
  const HessianString& types = head.fields[kParameterTypes];
  const bool counted = types.chunked ? CountArguments(types.Text(), head.arguments)
                                     : CountArguments(types.raw, head.arguments);
  if (!counted) error = kBadTypes;
  return counted;
}

bool ReadJsonHead(JsonValues& values, size_t first, size_t end, JsonRequestHead& head,
                  std::string_view& error) {
  for (size_t i = first; i < end; ++i) {
    if (!values.Next(head.fields[i])) return false;
  }
  if (end < kHeadFields) return true;
  std::string types;
  const Bytes token = head.fields[kParameterTypes];
  if ((token != "null" && !JsonText(token, types)) || !CountArguments(types, head.arguments)) {
    error = kBadTypes;
    return false;
  }
  return true;
}

bool ReadJsonbHead(JsonbValues& values, size_t first, size_t end, JsonbRequestHead& head,
                   std::string_view& error) {
  for (size_t i = first; i < end; ++i) {
    if (!values.Next(head.fields[i])) return false;
  }
  if (end < kHeadFields) return true;
  const Bytes document = head.fields[kParameterTypes];
  JsonbString string;
  std::string types;
  const bool is_text = JsonbStringOf(document, string) && string.Text(types);
  if ((JsonbIsNull(document) || is_text) && CountArguments(types, head.arguments)) return true;
  error = kBadTypes;
  return false;
}

}  // namespace metaprotocol::dubbo
