// When the requests of a route are tried once more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace metaprotocol {

struct RetryPolicy {
  // Why an attempt has failed, as bits of `causes`.
  enum Cause : uint8_t {
    kConnectFailure = 1,  // there was no connection
    kNotWritten = 2,      // there was one, but nothing of the request had left
    kLost = 4,            // it went before a reply had begun
    kTimeout = 8,         // no reply within per_try_timeout_us
    kError = 16,          // replies by which the server or its protocol layer says that it failed
    kException = 32,      // replies with an exception of the application
  };
  // Of these it is certain that no server has seen the request.
  static constexpr uint8_t kUnseen = kConnectFailure | kNotWritten;

  uint32_t retries = 2;  // at most, after the first attempt
  uint8_t causes = kUnseen;
  std::vector<int32_t> status_codes = {};    // replies with these, sorted
  std::vector<std::string> reply_keys = {};  // replies with a value under one of these
  uint64_t per_try_timeout_us = 0;           // 0: none
  // The pause before a retry is a random part of this, which doubles with each, up to the maximum;
  // 0: none.
  uint64_t backoff_us = 0;
  uint64_t max_backoff_us = 0;

  bool Has(Cause cause) const { return (causes & cause) != 0; }
  bool HasStatus(int32_t code) const {
    return std::binary_search(status_codes.begin(), status_codes.end(), code);
  }
};

}  // namespace metaprotocol
