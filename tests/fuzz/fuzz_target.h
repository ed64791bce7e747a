#ifndef KDN_TESTS_FUZZ_FUZZ_TARGET_H_
#define KDN_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

// The functions that each fuzz target defines. libFuzzer calls them in builds
// with KDN_FUZZ. replay_main.cc calls them in every build, as a test.

// Returns 0. Crashes when the input shows a bug.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kdn::fuzz {

// Valid inputs to start from, the same on every call.
std::vector<std::string> Seeds();

// The contents of a file of the source tree.
inline std::string ReadSource(const std::string& path) {
  std::ifstream file(std::string(KDN_SOURCE_DIR "/") + path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_FUZZ_TARGET_H_
