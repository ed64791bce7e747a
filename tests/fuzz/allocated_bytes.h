#ifndef KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
#define KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_

#include <cstddef>

namespace kdn::fuzz {

// The bytes that were allocated with operator new since the first call, freed
// or not. Builds with a sanitizer also count malloc. A program counts in every
// build if it links this file.
size_t AllocatedBytes();

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
