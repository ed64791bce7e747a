#include "kv/check.h"

#include <cstdio>
#include <cstdlib>

namespace kdn::check_internal {

void Fail(const char* file, int line, const char* condition,
          const char* message) {
  std::fprintf(stderr, "%s:%d: KDN_CHECK(%s) failed: %s\n", file, line,
               condition, message);
  std::abort();
}

}  // namespace kdn::check_internal
