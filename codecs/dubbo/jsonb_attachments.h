// Reading and rewriting what fastjson2 puts into Dubbo bodies: heads and attachments.
#pragma once

#include <string>

#include "codecs/dubbo/attachment_plan.h"
#include "codecs/dubbo/jsonb.h"
#include "src/codec/bytes.h"

namespace metaprotocol::dubbo {

// One entry of the attachments, by positions in their document.
struct JsonbEntry {
  JsonbString key;
  JsonbString value;
  bool string_key = false;
  bool string_value = false;
  bool plain_value = false;  // a string, or nothing that its reader could make one of
  bool links = false;        // symbols, class names or references are in it
  size_t begin = 0;
  size_t value_begin = 0;
  size_t end = 0;
};

// Walks over the entries of a document that is an object.
class JsonbEntries {
 public:
  explicit JsonbEntries(Bytes document) : reader_(document) {}

  // Takes what is before the first entry; false if the document is no object.
  bool Begin();
  // False at the end, and where the document is broken, which `broken()` tells apart.
  bool Next(JsonbEntry& entry);
  bool broken() const { return broken_; }
  size_t position() const { return reader_.position(); }
  size_t links() const { return reader_.links(); }

 private:
  bool Read(JsonbEntry& entry);

  JsonbReader reader_;
  bool broken_ = false;
};

// As RewriteRequestBody and RewriteResponseBody (attachments.h): whether something has changed;
// what is appended otherwise is to be taken away again.
bool RewriteJsonbRequest(Bytes body, AttachmentPlan& plan, std::string& out);
bool RewriteJsonbResponse(Bytes body, AttachmentPlan& plan, bool may_add, std::string& out);

}  // namespace metaprotocol::dubbo
