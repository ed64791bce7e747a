// Decodes chunks of Llama 3.1 8B's shape on the GPU of this machine, compares
// every row with the CPU's decoder and prints one JSON object:
//
//   gpu_codec_bench [--chunks N] [--layers N] [--repeats N]
//                   [--values-mib N]
//
// Rates are bytes of decoded bf16 rows per second, medians of the repeats. The
// streams and the calibration are already on the GPU. --values-mib is the
// device memory for the values between the symbol pass and the row pass.
// scripts/gpu-check runs this program.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/cuda/synthetic_chunk.h"
#include "codec/cuda/gpu_decoder.h"
#include "kv/check.h"
#include "kv/clock.h"

namespace kdn::bench {
namespace {

using codec::cuda::DeviceMemory;
using codec::cuda::GpuStream;

struct Options {
  int chunks = 64;
  int layers = 32;
  int repeats = 20;
  int values_mib = 1024;
};

// Prints the error and exits: no figures come from a GPU that fails.
void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::cerr << what << ": " << cudaGetErrorString(error) << "\n";
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}
template <typename T>
T Checked(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Median seconds of `work`, which enqueues on `stream`.
template <typename F>
double MedianSeconds(int repeats, GpuStream stream, const F& work) {
  constexpr int kWarmUps = 3;
  cudaEvent_t begin;
  cudaEvent_t end;
  Check(cudaEventCreate(&begin), "an event");
  Check(cudaEventCreate(&end), "an event");
  std::vector<double> seconds;
  for (int i = 0; i < kWarmUps + repeats; ++i) {
    Check(cudaEventRecord(begin, stream), "an event");
    work();
    Check(cudaEventRecord(end, stream), "an event");
    Check(cudaEventSynchronize(end), "waiting");
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "an event");
    if (i >= kWarmUps) seconds.push_back(milliseconds / 1e3);
  }
  Check(cudaEventDestroy(begin), "an event");
  Check(cudaEventDestroy(end), "an event");
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// Device memory that chunks are decoded into, and a second block of the same
// size, into which the first block is copied.
class Bench {
 public:
  Bench(const Options& options, GpuStream stream)
      : options_(options), stream_(stream), shape_(ShapeOf(options)) {
    rows_ = Checked(DeviceMemory::AllocateAsync(bytes(), stream));
    copy_ = Checked(DeviceMemory::AllocateAsync(bytes(), stream));
  }

  size_t bytes() const { return shape_.bytes() * options_.chunks; }

  double CopyGbps() {
    Check(cudaMemsetAsync(rows_.data(), 0x5a, bytes(), stream_), "filling");
    const double seconds = MedianSeconds(options_.repeats, stream_, [&] {
      Check(cudaMemcpyAsync(copy_.data(), rows_.data(), bytes(),
                            cudaMemcpyDeviceToDevice, stream_),
            "copying");
    });
    return static_cast<double>(bytes()) / seconds / 1e9;
  }

  // Decodes the chunks at each level. Returns one JSON object per level.
  nlohmann::json Decode(const char* name,
                        const std::vector<SyntheticChunk>& chunks) {
    const auto image = std::make_shared<codec::cuda::CalibrationImage>(
        chunks.front().calibration);
    const auto calibration =
        Checked(codec::cuda::GpuCalibration::UploadSync(image, stream_));
    nlohmann::json cases = nlohmann::json::array();
    for (const Level level : {Level::kBase, Level::kBase1, Level::kBase2}) {
      const auto expected = ExpectedRows(chunks, level);
      const absl::Time begin = SteadyNow();
      const auto plan = PlanOf(chunks, level, image);
      const double plan_seconds = absl::ToDoubleSeconds(SteadyNow() - begin);
      const auto batch = Checked(codec::cuda::GpuBatch::UploadAsync(
          calibration, plan,
          {.values_bytes = uint64_t(options_.values_mib) << 20}, stream_));
      Check(cudaMemsetAsync(rows_.data(), 0xee, bytes(), stream_), "filling");
      const double seconds = MedianSeconds(
          options_.repeats, stream_, [&] { Check(batch->DecodeAsync()); });
      Check(batch->FinishSync());
      cases.push_back(
          {{"calibration", name},
           {"level", std::string(Name(level))},
           {"bits_per_value", 16.0 * static_cast<double>(plan->bytes().size()) /
                                  static_cast<double>(bytes())},
           {"plan_gbps_one_core",
            static_cast<double>(bytes()) / plan_seconds / 1e9},
           {"decode_gbps", static_cast<double>(bytes()) / seconds / 1e9},
           {"rows_equal", RowsEqual(expected)}});
    }
    return cases;
  }

 private:
  static KvShape ShapeOf(const Options& options) {
    KvShape shape = LlamaShape();
    shape.layers = options.layers;
    return shape;
  }

  std::shared_ptr<const codec::cuda::BatchPlan> PlanOf(
      const std::vector<SyntheticChunk>& chunks, Level level,
      std::shared_ptr<const codec::cuda::CalibrationImage> image) const {
    auto plan = std::make_shared<codec::cuda::BatchPlan>(std::move(image));
    for (int i = 0; i < options_.chunks; ++i) {
      const SyntheticChunk& chunk = chunks[i % chunks.size()];
      Check(plan->Add({.index = &*chunk.index,
                       .object = chunk.object,
                       .level = level,
                       .slice = {0, shape_.layers, 0, shape_.kv_heads},
                       .positions = chunk.wanted,
                       .places = codec::cuda::StridedPlaces{
                           rows_.data() + i * shape_.bytes(),
                           KvStrides::TokenMajor(shape_)}}));
    }
    return plan;
  }

  std::vector<std::vector<std::byte>> ExpectedRows(
      const std::vector<SyntheticChunk>& chunks, Level level) const {
    std::vector<std::vector<std::byte>> rows;
    for (const SyntheticChunk& chunk : chunks) {
      rows.push_back(DecodeOnCpu(chunk, level));
    }
    return rows;
  }

  bool RowsEqual(const std::vector<std::vector<std::byte>>& expected) const {
    std::vector<std::byte> rows(shape_.bytes());
    for (int i = 0; i < options_.chunks; ++i) {
      Check(rows_.CopyOutSync(i * shape_.bytes(), rows.data(), rows.size(),
                              stream_));
      if (rows != expected[i % expected.size()]) return false;
    }
    return true;
  }

  Options options_;
  GpuStream stream_;
  KvShape shape_;
  DeviceMemory rows_;
  DeviceMemory copy_;
};

// Adds the fastest decoding at the base level with a calibration, and whether
// all rows of all cases equal the CPU's.
void Summarise(nlohmann::json* report) {
  double best = 0;
  bool equal = true;
  for (const auto& one : (*report)["cases"]) {
    equal = equal && one["rows_equal"].get<bool>();
    if (one["calibration"] == "calibrated" && one["level"] == "base") {
      best = std::max(best, one["decode_gbps"].get<double>());
    }
  }
  (*report)["decode_gbps_gpu"] = best;
  (*report)["symbols_equal"] = equal;
}

void Run(const Options& options) {
  Check(codec::cuda::CheckGpu());
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0), "the GPU's properties");
  int driver = 0;
  Check(cudaDriverGetVersion(&driver), "the driver's version");
  nlohmann::json report = {
      {"date", absl::FormatTime("%Y-%m-%d", absl::Now(), absl::UTCTimeZone())},
      {"gpu", properties.name},
      {"cuda_driver", driver},
      {"cuda_runtime", CUDART_VERSION},
      {"chunks", options.chunks},
      {"layers", options.layers},
      {"values_mib", options.values_mib},
      {"cases", nlohmann::json::array()}};
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreate(&stream), "a stream");
  {
    Bench bench(options, stream);
    report["bytes"] = bench.bytes();
    for (const bool calibrated : {true, false}) {
      const auto chunks = MakeChunks(options.layers, calibrated);
      const nlohmann::json cases =
          bench.Decode(calibrated ? "calibrated" : "uncalibrated", chunks);
      report["cases"].insert(report["cases"].end(), cases.begin(), cases.end());
    }
    // Counts each byte once, though a copy reads and writes it.
    report["device_copy_gbps"] = bench.CopyGbps();
  }
  Check(cudaStreamDestroy(stream), "a stream");
  Summarise(&report);
  std::cout << report.dump(2) << "\n";
}

bool Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    int* option = nullptr;
    if (std::strcmp(argv[i], "--chunks") == 0) option = &options->chunks;
    if (std::strcmp(argv[i], "--layers") == 0) option = &options->layers;
    if (std::strcmp(argv[i], "--repeats") == 0) option = &options->repeats;
    if (std::strcmp(argv[i], "--values-mib") == 0) {
      option = &options->values_mib;
    }
    if (option == nullptr || !absl::SimpleAtoi(argv[i + 1], option) ||
        *option < 1) {
      return false;
    }
  }
  return argc % 2 == 1;
}

}  // namespace
}  // namespace kdn::bench

int main(int argc, char** argv) {
  kdn::bench::Options options;
  if (!kdn::bench::Parse(argc, argv, &options)) {
    std::cerr << "usage: gpu_codec_bench [--chunks N] [--layers N] "
                 "[--repeats N] [--values-mib N]\n";
    return 2;
  }
  kdn::bench::Run(options);
  return 0;
}
