// Whether this is built with a sanitizer that has an allocator of its own and makes code slower.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define METAPROTOCOL_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define METAPROTOCOL_TEST_SANITIZED 1
#endif

namespace metaprotocol::test {

#ifdef METAPROTOCOL_TEST_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace metaprotocol::test
