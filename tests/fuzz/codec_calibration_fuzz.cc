// Reads any bytes as a calibration file, writes the file again, and makes the
// calibration that a codec uses. Then the same with a correct checksum, so that
// mutations get past the checksum.

#include <cmath>
#include <cstring>
#include <random>

#include "codec/calibration/calibration_format.h"
#include "codec/calibration/calibrator.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "tests/fuzz/allocated_bytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::codec {
namespace {

constexpr size_t kCrcOffset = 8;
constexpr size_t kCrcEnd = 12;

void RepairCrc(absl::Span<std::byte> file) {
  if (file.size() < kCrcEnd) return;
  const uint32_t crc =
      ExtendCrc32c(Crc32c(file.first(kCrcOffset)), file.subspan(kCrcEnd));
  std::memcpy(file.data() + kCrcOffset, &crc, sizeof(crc));
}

// The most bytes that reading a file may allocate. Inverting a matrix takes
// some 60 bytes (doubles, floats, copies) for each byte of it, for the smallest
// matrices more. Each of at most 256 tables takes 19 KB and what the file says
// of the table.
constexpr size_t AllocatedMax(size_t bytes) {
  return 128 * bytes + 256 * 24 * 1024;
}

void Consume(absl::Span<const std::byte> file) {
  const auto stored = ReadCalibration(file);
  if (stored.ok()) {
    const std::vector<std::byte> again = WriteCalibration(*stored);
    KDN_CHECK(again.size() == file.size() &&
                  std::memcmp(again.data(), file.data(), file.size()) == 0,
              "writing a calibration gives the bytes that were read");
  } else {
    KDN_CHECK(absl::IsDataLoss(stored.status()), "bad bytes are DATA_LOSS");
  }
  const size_t before = fuzz::AllocatedBytes();
  const auto calibration = ParseCalibration(file);
  KDN_CHECK(fuzz::AllocatedBytes() - before <= AllocatedMax(file.size()),
            "memory is taken in proportion to the file");
  KDN_CHECK(calibration.ok() || absl::IsDataLoss(calibration.status()) ||
                (stored.ok() && absl::IsInvalidArgument(calibration.status())),
            "a well-formed file may still not be consistent");
}

// A calibration of a model of one layer whose components have different
// deviations.
std::string SeedOf(int kv_heads, int head_dim, const CalibrationInfo& info) {
  ModelSpec spec;
  spec.name = "fuzz";
  spec.num_layers = 1;
  spec.num_kv_heads = kv_heads;
  spec.head_dim = head_dim;
  spec.rope.rotary_dim = head_dim / 2 * 2;
  auto calibrator = Calibrator::Create(spec);
  KDN_CHECK(calibrator.ok(), "such a model can be coded");
  const KvShape shape = ShapeOf(spec, 2 * calibrator->TokensMin());
  std::mt19937 rng(head_dim);
  std::normal_distribution<float> normal;
  std::vector<std::byte> kv(shape.bytes());
  for (size_t i = 0; i < kv.size() / 2; ++i) {
    const float value =
        normal(rng) * std::exp2(-0.25f * static_cast<float>(i % head_dim));
    StoreFloats(spec.dtype, &value, 1, kv.data() + 2 * i);
  }
  const KvView view(kv.data(), shape, KvStrides::TokenMajor(shape));
  std::vector<double> importance(static_cast<size_t>(kv_heads) * shape.tokens);
  for (double& x : importance) x = std::exp2(normal(rng));
  KDN_CHECK(
      calibrator->Add(view, std::vector<int32_t>(shape.tokens), importance)
          .ok(),
      "normal values are finite");
  auto stored = calibrator->Finish({});
  KDN_CHECK(stored.ok(), "there are enough tokens");
  stored->info = info;
  const std::vector<std::byte> file = WriteCalibration(*stored);
  KDN_CHECK(ParseCalibration(file).ok(), "a new calibration can be read");
  return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

}  // namespace
}  // namespace kdn::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  kdn::codec::Consume(file);
  kdn::codec::RepairCrc(absl::MakeSpan(file));
  kdn::codec::Consume(file);
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  const codec::CalibrationInfo info{.created = absl::FromUnixSeconds(1 << 30),
                                    .others = {{"a", ""}, {"tokens", "8192"}}};
  return {codec::SeedOf(2, 8, {}), codec::SeedOf(3, 24, info)};
}

}  // namespace kdn::fuzz
