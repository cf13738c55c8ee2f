#include "src/config/telemetry_loader.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "src/config/condition_loader.h"

namespace metaprotocol {
namespace {

class Loader {
 public:
  Loader(Telemetry& made, MetadataKeys& keys, Findings& findings)
      : made_(made), keys_(keys), findings_(findings) {}

  void LoadLog(const config::AccessLog& config, const std::string& path) {
    AccessLog log;
    log.path = config.path;
    if (config.collector) {
      log.collector =
          TargetOf(OtlpSignal::kLogs, config.collector->cluster, config.collector->service_name);
    }
    if (config.path.empty() != config.collector.has_value()) {
      findings_.Error(path, "", "must have exactly one of path and collector");
    }
    if (config.text) log.format = LogFormat::Text(Compile(*config.text, path + ".text"));
    if (config.json) log.format = LoadJson(*config.json, path + ".json.fields");
    if (!config.match.empty()) {
      log.match = LoadMatch(config.match, path + ".match", keys_, findings_);
    }
    log.chance = Route::ChanceOf(config.percent);
    log.failures_only = config.failures_only;
    log.min_duration_us = static_cast<uint64_t>(config.min_duration.count());
    if (config.max_duration) {
      log.max_duration_us = static_cast<uint64_t>(config.max_duration->count());
    }
    for (const config::IntegerRange& range : config.response_codes) {
      log.response_codes.emplace_back(range.start, range.end);
    }
    made_.logs.push_back(std::move(log));
  }

  void LoadTracing(const config::Tracing& config) {
    auto tracing = std::make_shared<Tracing>(made_.keys, keys_);
    tracing->target = TargetOf(OtlpSignal::kSpans, config.cluster, config.service_name);
    tracing->chance = Route::ChanceOf(config.percent);
    tracing->overall = Route::ChanceOf(config.overall_percent);
    tracing->kind = config.kind == config::TracingKind::SERVER ? Tracing::Kind::kServer
                                                               : Tracing::Kind::kClient;
    if (!config.formats.empty()) tracing->formats = 0;
    for (const config::TracingFormat format : config.formats) {
      tracing->formats |= TraceFormatBit(FormatOf(format));
    }
    for (size_t i = 0; i < config.attributes.size(); ++i) {
      const std::string path = "tracing.attributes[" + std::to_string(i) + "]";
      tracing->attributes.push_back(LoadAttribute(config.attributes[i], path));
    }
    made_.tracing = std::move(tracing);
  }

  void LoadRequestIds() { made_.request_ids.emplace(made_.keys, keys_); }

  void LoadMetrics(const config::RequestMetrics& config) {
    auto metrics = std::make_shared<RequestMetrics>(
        config.reporter == config::RequestMetricsReporter::DESTINATION
            ? RequestMetrics::Reporter::kDestination
            : RequestMetrics::Reporter::kSource,
        config.max_methods, config.max_series, made_.keys, keys_);
    metrics->service = config.service;
    for (const config::NamedService& service : config.services) {
      metrics->services.insert_or_assign(
          service.host, RequestMetrics::Service{service.name, service.service_namespace});
    }
    for (const config::LabelOverrideMetric metric : config.disabled) {
      metrics->metrics &= static_cast<uint8_t>(~(1u << static_cast<unsigned>(MetricOf(metric))));
    }
    for (size_t i = 0; i < config.overrides.size(); ++i) {
      const config::LabelOverride& change = config.overrides[i];
      const auto* const name =
          std::find(kRequestLabelNames.begin(), kRequestLabelNames.end(), change.label);
      if (name == kRequestLabelNames.end()) {
        findings_.Error("request_metrics.overrides[" + std::to_string(i) + "].label",
                        QuoteShort(change.label), "is no label of these metrics");
        continue;
      }
      metrics->overrides.push_back({MetricOf(change.metric),
                                    static_cast<RequestLabel>(name - kRequestLabelNames.begin()),
                                    RequestMetrics::Shown(change.value)});
    }
    made_.metrics = std::move(metrics);
  }

 private:
  Tracing::Attribute LoadAttribute(const config::SpanAttribute& config, const std::string& path) {
    Tracing::Attribute attribute{.name = config.name};
    attribute.value = config.value.value_or(config.default_value);
    if (!config.default_value.empty() && !config.key) {
      findings_.Error(path + ".default_value", QuoteShort(config.default_value),
                      "is for attributes with key");
    }
    if (config.key) attribute.place = made_.keys.Want(*config.key, keys_);
    if (config.format) attribute.format = Compile(*config.format, path + ".format");
    if (config.environment) {
      const char* const found = std::getenv(config.environment->name.c_str());
      attribute.value = found != nullptr ? found : config.environment->default_value;
    }
    return attribute;
  }

  static OtlpTarget TargetOf(OtlpSignal signal, const std::string& cluster,
                             const std::string& service_name) {
    return {signal, cluster, service_name.empty() ? "metaprotocol" : service_name};
  }

  static RequestMetric MetricOf(config::LabelOverrideMetric metric) {
    switch (metric) {
      case config::LabelOverrideMetric::REQUESTS_TOTAL:
        break;
      case config::LabelOverrideMetric::REQUEST_DURATION:
        return RequestMetric::kDuration;
      case config::LabelOverrideMetric::REQUEST_BYTES:
        return RequestMetric::kRequestBytes;
      case config::LabelOverrideMetric::RESPONSE_BYTES:
        return RequestMetric::kResponseBytes;
    }
    return RequestMetric::kRequests;
  }

  static TraceFormat FormatOf(config::TracingFormat format) {
    switch (format) {
      case config::TracingFormat::W3C:
        break;
      case config::TracingFormat::B3:
        return TraceFormat::kB3;
      case config::TracingFormat::B3_MULTI:
        return TraceFormat::kB3Multi;
    }
    return TraceFormat::kW3c;
  }

  LogTemplate Compile(const std::string& format, const std::string& path) {
    std::string error;
    LogTemplate compiled = LogTemplate::Compile(format, made_.keys, keys_, error);
    if (!error.empty()) findings_.Error(path, QuoteShort(format), std::move(error));
    return compiled;
  }

  LogFormat LoadJson(const config::AccessLogJson& config, const std::string& path) {
    std::vector<std::pair<std::string, LogTemplate>> fields;
    for (size_t i = 0; i < config.fields.size(); ++i) {
      const config::AccessLogJsonField& field = config.fields[i];
      const std::string place = path + "[" + std::to_string(i) + "]";
      fields.emplace_back(field.name, Compile(field.value, place + ".value"));
    }
    return LogFormat::Json(std::move(fields));
  }

  Telemetry& made_;
  MetadataKeys& keys_;
  Findings& findings_;
};

}  // namespace

Telemetry LoadTelemetry(const std::vector<config::AccessLog>& logs,
                        const std::optional<config::Tracing>& tracing,
                        const std::optional<config::RequestMetrics>& metrics, bool request_ids,
                        MetadataKeys& keys, Findings& findings) {
  Telemetry made;
  Loader loader(made, keys, findings);
  for (size_t i = 0; i < logs.size(); ++i) {
    loader.LoadLog(logs[i], "access_logs[" + std::to_string(i) + "]");
  }
  if (tracing) loader.LoadTracing(*tracing);
  if (metrics) loader.LoadMetrics(*metrics);
  if (request_ids) loader.LoadRequestIds();
  return made;
}

}  // namespace metaprotocol
