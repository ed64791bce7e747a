// Reads any bytes as a model.safetensors.

#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "kv/check.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

// The directory of the file, the same for all inputs of a run.
struct Directory {
  Directory() {
    KDN_CHECK(mkdtemp(name.data()) != nullptr, "no temporary directory");
  }
  ~Directory() { std::filesystem::remove_all(name); }
  std::string name = "/tmp/kdn-safetensors-XXXXXX";
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Directory directory;
  std::ofstream(directory.name + "/model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(size));
  const auto checkpoint = kdn::model::Checkpoint::Open(directory.name);
  if (!checkpoint.ok()) {
    KDN_CHECK(absl::IsInvalidArgument(checkpoint.status()) ||
                  absl::IsUnimplemented(checkpoint.status()),
              "a bad file is a typed error");
    return 0;
  }
  for (const char* name : {"a", "b"}) {
    const auto floats = checkpoint->GetFloats(name, {2, 3});
    KDN_CHECK(!floats.ok() || floats->size() == 6, "a tensor has its shape");
  }
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[24,36]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  return {file + header + std::string(36, '\x3f')};
}

}  // namespace kdn::fuzz
