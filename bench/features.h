// What may be done with each request, as configuration: for what each of it costs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bench {

struct Feature {
  std::string_view name;
  // Members of the JSON objects that they are named after.
  std::string_view config = {};
  std::string_view table = {};
  std::string_view route = {};
  std::string_view policy = {};
};

inline const std::vector<Feature>& Features() {
  static const std::vector<Feature> kFeatures = {
      {.name = "timeout", .route = R"("timeout":"5s")"},
      {.name = "retries", .route = R"("retry":{})"},
      {.name = "changes to request and reply",
       .route = R"("request_mutation":[{"set":{"key":"lane","value":"test"}}],
                   "response_mutation":[{"set":{"key":"by","value":"proxy"}}])"},
      {.name = "mirror", .route = R"("mirrors":[{"cluster":"copies"}])"},
      {.name = "fault, hardly ever drawn",
       .table = R"("filters":[{"name":"f","fault":{"abort":{"percent":0.0001}}}])"},
      {.name = "authorization", .table = R"("authorization":{"policies":[
           {"name":"p","rules":[{"match":[{"key":"method","prefix":"say"}]}]}]})"},
      {.name = "external authorization",
       .table = R"("external_authorization":{"cluster":"authz"})"},
      {.name = "local rate limit", .table = R"("local_rate_limit":{
           "token_bucket":{"max_tokens":4000000000,"fill_interval":"1s"}})"},
      {.name = "local rate limit by value",
       .table = R"("local_rate_limit":{"rules":[{"per_value_of":["method"],
           "token_bucket":{"max_tokens":4000000000,"fill_interval":"1s"}}]})"},
      {.name = "local rate limit that clients are told of",
       .table = R"("local_rate_limit":{"enable_x_ratelimit_headers":true,
           "token_bucket":{"max_tokens":4000000000,"fill_interval":"1s"}})"},
      {.name = "global rate limit",
       .table = R"("global_rate_limit":{"domain":"d","cluster":"limiter",
           "descriptors":[{"key":"method","descriptor_key":"m"}]})"},
      {.name = "concurrency limit", .table = R"("concurrency_limit":{"max_requests":1000000})"},
      {.name = "access log",
       .config = R"("access_logs":[{"path":"/dev/null","text":"%START_TIME% %METHOD% %ROUTE_NAME% )"
                 R"(%UPSTREAM_HOST% %RESPONSE_CODE% %BYTES_SENT% %DURATION%\n"}])"},
      {.name = "tracing", .config = R"("tracing":{"cluster":"spans"})"},
      {.name = "Istio's metrics", .config = R"("request_metrics":{})"},
      {.name = "consistent hash",
       .route = R"("hash_on":["method"])",
       .policy = R"("policy":"MAGLEV")"},
      {.name = "outlier detection", .policy = R"("outlier_detection":{})"},
      {.name = "slow start", .policy = R"("slow_start":{"window":"3600s"})"},
  };
  return kFeatures;
}

// Filters that every request passes and none has anything to do with.
inline Feature IdleFilters() {
  return {.name = "filters that have nothing to do",
          .table = R"("local_rate_limit":{"rules":[{"match":[{"key":"method","exact":"other"}],
                      "token_bucket":{"max_tokens":1,"fill_interval":"60s"}}]},
                  "global_rate_limit":{"match":[{"key":"method","exact":"other"}],"domain":"d",
                      "cluster":"l","descriptors":[{"key":"method","descriptor_key":"m"}]})"};
}

// A filter's configuration with it, and one route to the cluster "c" for requests with `match`.
inline std::string ConfigWith(const Feature& feature, std::string_view codec,
                              std::string_view match) {
  const auto more = [](std::string_view members) {
    return members.empty() ? std::string() : "," + std::string(members);
  };
  return R"({"name":"bench","protocol":{"codec":")" + std::string(codec) + R"("})" +
         more(feature.config) + R"(,"route_tables":[{"name":"t","routes":[{"match":[)" +
         std::string(match) + R"(],"cluster":"c")" + more(feature.route) + "}]" +
         more(feature.table) + "}]}";
}

// A cluster's.
inline std::string PolicyWith(const Feature& feature) {
  return "{" + std::string(feature.policy) + "}";
}

// All of them that can be together, and say something else than another one.
inline Feature AllFeatures(std::string& config, std::string& table, std::string& route,
                           std::string& policy) {
  const auto add = [](std::string& to, std::string_view what) {
    if (what.empty()) return;
    if (!to.empty()) to += ',';
    to += what;
  };
  for (const Feature& feature : Features()) {
    const bool other_limit =
        feature.name == "local rate limit" || feature.name == "local rate limit by value";
    const bool hashes = feature.name == "consistent hash";  // which knows no slow start
    if (other_limit || hashes) continue;
    add(config, feature.config);
    add(table, feature.table);
    add(route, feature.route);
    add(policy, feature.policy);
  }
  return {
      .name = "all of these", .config = config, .table = table, .route = route, .policy = policy};
}

}  // namespace bench
