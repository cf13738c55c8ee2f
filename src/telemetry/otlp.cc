#include "src/telemetry/otlp.h"

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"

namespace metaprotocol {

std::string_view ExportMethod(OtlpSignal signal) {
  return signal == OtlpSignal::kSpans
             ? "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
             : "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
}

std::string ExportRequest(std::string_view service_name, std::string_view records) {
  std::string resource;
  AppendOtlpText(resource, 1, "service.name", service_name);
  std::string scope;
  AppendProtoBytes(scope, 1, "metaprotocol");
  std::string of_scope;
  AppendProtoBytes(of_scope, 1, scope);
  of_scope += records;
  std::string of_resource;
  AppendProtoBytes(of_resource, 1, resource);
  AppendProtoBytes(of_resource, 2, of_scope);
  std::string request;
  AppendProtoBytes(request, 1, of_resource);
  return request;
}

uint64_t RejectedRecords(Bytes response) {
  uint64_t rejected = 0;
  ProtoReader reader(response);
  for (ProtoField field; reader.Next(field);) {
    if (!field.is(1, WireType::kLength)) continue;
    ProtoReader partial(field.bytes);
    for (ProtoField inner; partial.Next(inner);) {
      if (inner.is(1, WireType::kVarint)) rejected = inner.value;
    }
  }
  return rejected;
}

void AppendOtlpAttribute(std::string& out, uint32_t field, std::string_view name,
                         std::string_view any_value) {
  std::string attribute;
  AppendProtoBytes(attribute, 1, name);
  AppendProtoBytes(attribute, 2, any_value);
  AppendProtoBytes(out, field, attribute);
}

void AppendOtlpText(std::string& out, uint32_t field, std::string_view name,
                    std::string_view value) {
  std::string any;
  AppendProtoBytes(any, 1, MadeUtf8(value));
  AppendOtlpAttribute(out, field, name, any);
}

void AppendOtlpNumber(std::string& out, uint32_t field, std::string_view name, uint64_t value) {
  std::string any;
  AppendProtoVarint(any, 3, value);
  AppendOtlpAttribute(out, field, name, any);
}

std::string BigEndian(uint64_t number) {
  std::string bytes;
  AppendBe64(bytes, number);
  return bytes;
}

}  // namespace metaprotocol
