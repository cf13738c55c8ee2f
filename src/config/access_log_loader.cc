#include "src/config/access_log_loader.h"

#include <string>
#include <utility>

#include "src/config/condition_loader.h"

namespace metaprotocol {
namespace {

class Loader {
 public:
  Loader(AccessLogs& made, MetadataKeys& keys, Findings& findings)
      : made_(made), keys_(keys), findings_(findings) {}

  void Load(const config::AccessLog& config, const std::string& path) {
    AccessLog log;
    log.path = config.path;
    if (config.text) log.format = LogFormat::Text(Compile(*config.text, path + ".text"));
    if (config.json) log.format = LoadJson(*config.json, path + ".json.fields");
    if (!config.match.empty()) log.match = LoadMatch(config.match, path + ".match");
    log.chance = Route::ChanceOf(config.percent);
    log.failures_only = config.failures_only;
    log.min_duration_us = static_cast<uint64_t>(config.min_duration.count());
    made_.logs.push_back(std::move(log));
  }

 private:
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

  std::shared_ptr<const RouteTable> LoadMatch(const std::vector<config::Condition>& config,
                                              const std::string& path) {
    std::vector<RouteTable::Rule> rules(1);
    rules[0].conditions = LoadConditions(config, path, findings_);
    std::vector<RouteTable::BuildError> errors;
    auto match = RouteTable::Build("", std::move(rules), keys_, errors);
    for (const RouteTable::BuildError& error : errors) {
      ReportBadRegex(error, config, path, findings_);
    }
    return match;
  }

  AccessLogs& made_;
  MetadataKeys& keys_;
  Findings& findings_;
};

}  // namespace

AccessLogs LoadAccessLogs(const std::vector<config::AccessLog>& configs, MetadataKeys& keys,
                          Findings& findings) {
  AccessLogs made;
  Loader loader(made, keys, findings);
  for (size_t i = 0; i < configs.size(); ++i) {
    loader.Load(configs[i], "access_logs[" + std::to_string(i) + "]");
  }
  return made;
}

}  // namespace metaprotocol
