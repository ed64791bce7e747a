#ifndef KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
#define KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_

#include <cstddef>

namespace kdn::fuzz {

// All that was ever asked of operator new since the first call, freed or not;
// of malloc too where a sanitizer tells. Programs that link this count in every
// build.
size_t AllocatedBytes();

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_ALLOCATED_BYTES_H_
