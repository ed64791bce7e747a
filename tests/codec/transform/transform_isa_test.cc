// The rows that a node delivers do not depend on its CPU. A process chooses its
// instructions once, so each choice runs in a child process. This process
// itself chooses none, and therefore the file has one test only.

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>

#include "codec/format/stream_layout.h"
#include "kv/crc32c.h"
#include "tests/codec/supported_isas.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

struct Case {
  KvShape shape;
  RopePairing pairing;
  int rotary_dim;
  bool calibrated;
};
constexpr Case kCases[] = {
    {{2, 3, 61, 8, Dtype::kBf16}, RopePairing::kNeoX, 8, false},
    {{1, 2, 250, 128, Dtype::kBf16}, RopePairing::kNeoX, 128, true},
    {{1, 2, 40, 80, Dtype::kFp16}, RopePairing::kGptJ, 40, false},
    {{1, 2, 40, 80, Dtype::kFp32}, RopePairing::kGptJ, 80, true},
    {{1, 1, 64, 256, Dtype::kBf16}, RopePairing::kNeoX, 256, false}};

// Memory in which the children pass results to each other.
struct Shared {
  size_t bytes[std::size(kCases)];
  std::byte objects[std::size(kCases)][4 << 20];
  uint32_t digests[kIsas.size()][std::size(kCases)][kLevelCount];
};

ChunkOptions OptionsOf(const Case& c) {
  ChunkOptions options;
  options.shape = c.shape;
  options.pairing = c.pairing;
  options.rotary_dim = c.rotary_dim;
  return options;
}

std::shared_ptr<const Calibration> CalibrationOf(const Case& c) {
  return c.calibrated ? MadeCalibration(GeometryOf(c.shape))
                      : Calibration::Uncalibrated(GeometryOf(c.shape));
}

void EncodeAll(Shared* shared) {
  for (size_t i = 0; i < std::size(kCases); ++i) {
    const ObjectHeader header = HeaderOf(OptionsOf(kCases[i]));
    std::mt19937 rng(6);
    KvBuffer kv(header.shape, Layout::kTokenMajor);
    kv.FillRandom(&rng);
    const auto object = EncodeWith(CalibrationOf(kCases[i]), header, kv.view());
    KDN_CHECK(object.size() <= sizeof(shared->objects[i]),
              "the object fits into the shared memory");
    std::memcpy(shared->objects[i], object.data(), object.size());
    shared->bytes[i] = object.size();
  }
}

void DigestAll(const Shared& shared, uint32_t digests[][kLevelCount]) {
  for (size_t i = 0; i < std::size(kCases); ++i) {
    const ObjectHeader header = HeaderOf(OptionsOf(kCases[i]));
    const std::vector<std::byte> object(shared.objects[i],
                                        shared.objects[i] + shared.bytes[i]);
    for (Level level : LevelsOf(kApartLevels)) {
      KvBuffer decoded(header.shape, Layout::kTokenMajor);
      const absl::Status status =
          DecodeAllWith(CalibrationOf(kCases[i]), object, level,
                        Shifted(header.positions, 5), decoded.view());
      KDN_CHECK(status.ok(), "every CPU decodes the object");
      digests[i][static_cast<int>(level)] = Crc32c(decoded.bytes());
    }
  }
}

void InChildWith(Isa isa, const std::function<void()>& work) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("KDN_ISA", std::string(Name(isa)).c_str(), 1);
    work();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << Name(isa);
}

TEST(TransformIsa, DecodesToTheSameBitsWithAnyInstructions) {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* shared = static_cast<Shared*>(memory);
  const std::vector<Isa> isas = IsasOfThisCpu();
  for (const Isa isa : kIsas) {
    if (Supports(isa)) continue;
    std::cout << "skipped: this CPU has no " << Name(isa) << std::endl;
  }
  for (const Isa encoder : isas) {
    SCOPED_TRACE(Name(encoder));
    InChildWith(encoder, [&] { EncodeAll(shared); });
    for (size_t isa = 0; isa < isas.size(); ++isa) {
      InChildWith(isas[isa], [&] { DigestAll(*shared, shared->digests[isa]); });
      for (size_t i = 0; i < std::size(kCases); ++i) {
        for (Level level : LevelsOf(kApartLevels)) {
          const int at = static_cast<int>(level);
          EXPECT_EQ(shared->digests[isa][i][at], shared->digests[0][i][at])
              << Name(isas[isa]) << " case " << i << " level " << at;
        }
      }
    }
  }
  munmap(memory, sizeof(Shared));
}

}  // namespace
}  // namespace kdn::codec
