#ifndef KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
#define KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_

#include <cstddef>

namespace kdn::fuzz {

// All that was ever asked of malloc and operator new since the first call. Only
// AddressSanitizer tells: 0 in other builds.
size_t AllocatedBytes();

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
