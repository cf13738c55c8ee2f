// A declaration (api/, declaration.proto) in the form that messages are read and written by. Names
// have become indices, and everything that can be known beforehand is.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/bytes.h"
#include "src/codec/codec.h"
#include "src/codec/protobuf.h"

namespace metaprotocol::declared {

// Of a layout at most: 48 fields for both sides and 48 for one.
inline constexpr size_t kMaxFields = 96;

// The index of a field in its layout.
using FieldIndex = uint16_t;
inline constexpr FieldIndex kNoField = std::numeric_limits<FieldIndex>::max();
inline constexpr size_t kVariable = std::numeric_limits<size_t>::max();
// As many lists of a layout as a message can say the one of that has entries.
inline constexpr size_t kMostTargets = 32;

enum class FieldType : uint8_t {
  kNumber,     // `width` bytes
  kBits,       // of field `source`; no bytes of its own
  kFixedText,  // `width` bytes
  kPrefixed,   // a length of `width` bytes, then text
  kSized,      // text as long as field `source` says
  kUntil,      // text up to `until`, or to the end of the message
  kEntries,    // `entries`
  kMessage,    // of a length before it, of `width` bytes, or in `source`; its members follow
  kMember,     // of the message in field `source`; no bytes of its own
};

// What a member of a message holds.
enum class MemberType : uint8_t { kText, kUnsigned, kSigned, kSigned32, kPresence, kEntries };

// How a list of keys with values is written. Binary lists have lengths before keys and values,
// lists of text have `assign` and `separator`.
struct Entries {
  enum class Extent : uint8_t { kBytes, kCount, kSized, kUntil };
  Extent extent = Extent::kBytes;
  uint8_t key_width = 0;
  uint8_t value_width = 0;
  std::string assign;
  std::string separator;

  bool binary() const { return key_width != 0; }
};

// A protobuf message as a tree of what is known of it.
struct ProtoNode {
  static constexpr uint8_t kNone = 0xff;
  static constexpr size_t kMostParts = 4;  // of the path of a member
  struct Case {
    uint32_t number = 0;
    WireType wire = WireType::kLength;
    MemberType type = MemberType::kText;
    FieldIndex member = kNoField;
    uint8_t node = kNone;  // a message within the message
    bool is_list = false;  // a member that is one
    bool or_text = false;  // entries: what has no key is the text that the next case is
  };
  std::vector<Case> cases;  // by number
  // By tags of one byte: the first case, or kNone.
  std::array<uint8_t, 128> by_tag{};

  // The first case of such fields; null if there is none.
  const Case* Find(uint64_t tag) const {
    if (tag >= by_tag.size()) return FindAmongAll(tag);
    return by_tag[tag] == kNone ? nullptr : &cases[by_tag[tag]];
  }
  const Case* FindAmongAll(uint64_t tag) const;
};

// The same of one in JSON: an object, and those within it.
struct JsonNode {
  static constexpr uint8_t kNone = 0xff;
  static constexpr size_t kMostOfName = 64;
  static constexpr size_t kMostPlaces = 128;  // members, and the nodes above them

  struct Case {
    std::string name;
    std::string folded;  // FoldedName
    MemberType type = MemberType::kText;
    FieldIndex member = kNoField;
    uint8_t node = kNone;  // an object within the object
    uint8_t place = 0;     // among all of the message
  };
  std::vector<Case> cases;

  const Case* Find(std::string_view name) const {
    for (const Case& known : cases) {
      if (known.name == name) return &known;
    }
    return nullptr;
  }
  // What is left of a name for readers that ignore case, '_' and '-'.
  static std::string FoldedName(std::string_view name);
};

enum class MessageFormat : uint8_t { kProtobuf, kJson };

// A message that is a field.
struct SubMessage {
  FieldIndex field = kNoField;  // its members come right behind it
  size_t members = 0;
  MessageFormat format = MessageFormat::kProtobuf;
  std::vector<ProtoNode> nodes;      // the first is the message itself
  std::vector<JsonNode> json_nodes;  // likewise
  // The numbers that count its bytes, as offset and width, if all of them are at fixed places
  // before it: then it can take more or fewer bytes without another look at the rest.
  std::vector<std::pair<size_t, size_t>> lengths;
  size_t begin = kVariable;  // of its content, if that is the same in every message
};

struct Field {
  std::string name;
  FieldType type = FieldType::kNumber;
  uint32_t width = 0;
  bool nullable = false;
  bool decimal = false;  // kUntil: a number in digits
  FieldIndex source = kNoField;
  uint64_t mask = 0;
  std::string until;
  Entries entries;
  FieldIndex through = kNoField;  // kNumber: it counts the bytes up to the end of this one
  size_t offset = kVariable;      // where it is in every message, if that is known
  bool has_constant = false;
  uint64_t number = 0;                                  // the constant
  std::string text;                                     // likewise
  std::vector<std::pair<uint64_t, std::string>> names;  // sorted
  uint32_t key = MetadataKeys::kNone;
  FieldIndex behind = 0;  // the next that is not a member of it
  uint8_t message = 0;    // kMessage: in Layout::messages
  // kMember:
  MemberType member = MemberType::kText;
  uint32_t number_in_message = 0;  // protobuf: in the message that it is directly in
  uint8_t depth = 0;               // 0: directly in the message that is a field
  uint64_t within = 0;             // the nodes around it, as bits
  bool or_text = false;  // entries: what has no key is not one, but the text of the same number
  bool required = false;
  std::string without;

  bool is_number() const {
    return type == FieldType::kNumber || type == FieldType::kBits ||
           (type == FieldType::kUntil && decimal) ||
           (type == FieldType::kMember && member != MemberType::kText &&
            member != MemberType::kEntries);
  }
  bool is_signed() const {
    return type == FieldType::kMember &&
           (member == MemberType::kSigned || member == MemberType::kSigned32);
  }
  bool is_list() const {
    return type == FieldType::kEntries ||
           (type == FieldType::kMember && member == MemberType::kEntries);
  }
  // Text or a list as long as field `source` says.
  bool is_sized() const {
    return type == FieldType::kSized ||
           (type == FieldType::kEntries && entries.extent == Entries::Extent::kSized) ||
           (type == FieldType::kMessage && source != kNoField);
  }
  // Text that a mutation may replace.
  bool is_text() const {
    if (type == FieldType::kMember) return member == MemberType::kText;
    return !decimal && (type == FieldType::kFixedText || type == FieldType::kPrefixed ||
                        type == FieldType::kSized || type == FieldType::kUntil);
  }
};

struct Kind {
  struct Condition {
    FieldIndex field = kNoField;
    bool one_number = false;  // the usual case: `number` is all of `numbers`
    uint64_t number = 0;
    std::vector<uint64_t> numbers;
    std::vector<std::string> texts;
  };
  MessageKind kind = MessageKind::kOther;
  std::vector<Condition> when;
};

// Of a framing's sum: a number at a fixed place.
struct LengthPart {
  size_t offset = 0;
  size_t width = 0;
  uint64_t mask = std::numeric_limits<uint64_t>::max();
  int shift = 0;
};

// One of the conditions on which messages end with a checksum: a number at a fixed place.
struct NumberIs {
  LengthPart number;
  std::vector<uint64_t> values;
};

// What is asked of members of messages.
struct Demands {
  struct Constant {
    FieldIndex field = kNoField;
    uint64_t number = 0;
  };
  struct Without {
    FieldIndex field = kNoField;
    std::string characters;
  };
  std::vector<FieldIndex> required;
  std::vector<Constant> constants;
  std::vector<Without> withouts;
};

// A field that is a metadata key of the protocol's own, or a list of what peers name; but those in
// messages.
struct Said {
  FieldIndex field = kNoField;
  bool list = false;
  uint32_t key = MetadataKeys::kNone;
};

// A constant at a fixed place.
struct Opening {
  size_t offset = 0;
  std::string bytes;
};

// What messages of one side look like.
struct Layout {
  std::vector<Field> fields;

  // Framing by length: the sum of these fields and of `length_base`.
  std::vector<FieldIndex> length_fields;
  std::vector<LengthPart> length_parts;  // the same
  int64_t length_base = 0;
  // The one of them that is changed with the message's length: the last that is no field's size.
  FieldIndex free_length = kNoField;
  // Whether messages, or those of which all of `crc32_when` hold, end with a checksum.
  bool crc32 = false;
  std::vector<NumberIs> crc32_when;
  // Bytes after which the length is known; no message is shorter.
  size_t head_bytes = 0;

  std::vector<Kind> kinds;
  MessageKind otherwise = MessageKind::kOther;
  FieldIndex id = kNoField;
  FieldIndex status = kNoField;
  FieldIndex timeout = kNoField;
  std::vector<FieldIndex> lists;  // which mutations change
  std::vector<SubMessage> messages;
  // The message that all lists are in, if it is one that needs no second look at the whole of what
  // a mutation of entries changes: it is read when messages are decoded, and can take more bytes.
  static constexpr uint8_t kNoMessage = 0xff;
  uint8_t listing = kNoMessage;
  Demands demands;
  std::vector<Said> said;
  std::vector<Opening> opening;
  // What of those is in the first eight bytes of a message, as one number in this machine's order.
  uint64_t opening_word = 0;
  uint64_t opening_mask = 0;
  bool opens_in_word = false;         // nothing is behind them
  std::vector<FieldIndex> writable;   // what mutations and other numbers change; not members
  std::vector<FieldIndex> separated;  // fields with `until`
  FieldIndex last = kNoField;         // that is no member
  std::vector<FieldIndex> spans;      // fields with `through`
  std::vector<FieldIndex> copies;     // what goes into Message::tag, first byte first
  bool id_in_message = false;
  bool id_in_json = false;
  bool id_is_narrow = false;  // of 32 bits with a sign
  bool status_is_signed = false;
  bool timeout_is_signed = false;
  size_t plain = 0;      // so many fields from the first are numbers, and nothing else about them
  size_t plain_end = 0;  // where they end
  std::vector<FieldIndex> asked_of_plain;  // those of them that tell more than the framing does
  size_t telling = 0;                      // so many fields tell kind, id, status and timeout
  size_t needed = 0;                       // so many fields tell everything but metadata
  bool replaced_at_fixed_places = true;    // id and timeout

  // Of the message that `member` is in.
  MessageFormat FormatOf(const Field& member) const {
    return messages[fields[member.source].message].format;
  }
  bool IsInJson(const Field& field) const {
    return field.type == FieldType::kMember && FormatOf(field) == MessageFormat::kJson;
  }
  // The field that stands behind `index` and its members.
  size_t Behind(size_t index) const { return fields[index].behind; }
};

// A message that the proxy writes, by the fields of its layout.
struct Template {
  struct Value {
    uint64_t number = 0;
    std::string text;
    bool given = false;  // bits that are not leave the number alone that they are part of
  };
  bool exists = false;
  std::vector<Value> values;                           // by field
  std::vector<std::pair<FieldIndex, uint8_t>> copies;  // field, and its first bit in the tag
  std::string body;
  // By LocalReply; used where `has_status`.
  uint64_t status[kLocalReplyCount] = {};
  bool has_status[kLocalReplyCount] = {};
};

struct Tables {
  std::string name;
  bool little_endian = false;
  std::string delimiter;  // "" where messages say their length
  Layout layouts[2];      // by Direction
  std::vector<uint64_t> ok_statuses;
  std::vector<uint64_t> exception_statuses;
  uint64_t timeout_unit_us = 1000;
  int id_bits = 0;
  bool ordered_replies = false;
  bool stateful = false;
  bool server_requests = false;
  Template error_reply;         // as a response
  Template empty_reply;         // likewise
  Template heartbeat_reply[2];  // by the direction it travels in
  Template ping;                // as a request
  Template go_away;             // as a response
  std::vector<std::string> keys;
  uint64_t key_lengths = 0;  // of those, as bits

  // The status values that are the server's errors, if all others are not.
  std::vector<std::pair<uint64_t, uint64_t>> server_errors;

  const Layout& layout(Direction direction) const {
    return layouts[static_cast<size_t>(direction)];
  }
  // Whether a mutation's key is one of the protocol's own.
  bool IsOwn(std::string_view key) const {
    return (key_lengths & LengthBit(key)) != 0 &&
           std::find(keys.begin(), keys.end(), key) != keys.end();
  }
  static uint64_t LengthBit(std::string_view key) {
    return uint64_t{1} << (key.size() < 63 ? key.size() : 63);
  }
};

// The tables of a protocol, by form: messages have one of several if a number, which stands at the
// same place in all of them, says which.
struct Forms {
  // As many as their interests have room in a mask of 64 bits, and their numbers in a tag of two.
  static constexpr size_t kMost = 4;
  static constexpr size_t kUnknownForm = kMost;  // the number is not there yet
  static constexpr size_t kNoForm = kMost + 1;

  std::vector<Tables> tables;
  LengthPart place;
  std::vector<uint64_t> numbers;  // by form; empty if there is but one

  // The bytes after which the form is known.
  size_t head_bytes() const { return numbers.empty() ? 0 : place.offset + place.width; }
  // Which form a message has that begins with `bytes`.
  size_t FormOf(Bytes bytes) const { return numbers.empty() ? 0 : FormAmongAll(bytes); }
  size_t FormAmongAll(Bytes bytes) const;
};

}  // namespace metaprotocol::declared
