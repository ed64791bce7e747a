#ifndef KDN_TESTS_FUZZ_FUZZ_TARGET_H_
#define KDN_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

// What each fuzz target defines. libFuzzer drives it in builds with KDN_FUZZ;
// replay_main.cc drives it in every other build, as a test.

// Must return 0; a crash is the finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kdn::fuzz {

// Valid inputs to start from; the same ones on every call.
std::vector<std::string> Seeds();

// A file of the source tree.
inline std::string ReadSource(const std::string& path) {
  std::ifstream file(std::string(KDN_SOURCE_DIR "/") + path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace kdn::fuzz

#endif  // KDN_TESTS_FUZZ_FUZZ_TARGET_H_
