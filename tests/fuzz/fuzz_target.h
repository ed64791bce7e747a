#ifndef KDN_TESTS_FUZZ_FUZZ_TARGET_H_
#define KDN_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// What each fuzz target defines. libFuzzer drives it in builds with KDN_FUZZ;
// replay_main.cc drives it in every other build, as a test.

// Must return 0; a crash is the finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kdn::fuzz {

// Valid inputs to start from; the same ones on every call.
std::vector<std::string> Seeds();

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_FUZZ_TARGET_H_
