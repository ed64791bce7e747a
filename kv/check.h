#ifndef KDN_KV_CHECK_H_
#define KDN_KV_CHECK_H_

namespace kdn::check_internal {

// Prints the place and the message to stderr and aborts.
[[noreturn]] void Fail(const char* file, int line, const char* condition,
                       const char* message);

}  // namespace kdn::check_internal

// Aborts, in every build, when the condition is false. For invariants of this
// program, never for input.
#define KDN_CHECK(condition, message) \
  (static_cast<bool>(condition)       \
       ? static_cast<void>(0)         \
       : ::kdn::check_internal::Fail(__FILE__, __LINE__, #condition, message))

// The same in debug and sanitizer builds only, for checks that cost too much in
// release builds.
#ifdef NDEBUG
#define KDN_DCHECK(condition, message) static_cast<void>(0)
#else
#define KDN_DCHECK(condition, message) KDN_CHECK(condition, message)
#endif

#endif  // KDN_KV_CHECK_H_
