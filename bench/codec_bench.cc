#include "bench/codec_bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/baselines.h"
#include "bench/gaussian_source.h"
#include "bench/own_levels.h"
#include "bench/quality.h"
#include "bench/raw_limits.h"
#include "bench/report.h"
#include "bench/speed_bed.h"
#include "cli/calibration_run.h"
#include "cli/text_files.h"
#include "codec/calibration/calibration_format.h"
#include "codec/calibration/calibrator.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr int kChunkTokens[] = {256, 1500};  // the KDN's and CacheGen's chunks

std::vector<Level> OwnLevels() {
  std::vector<Level> levels;
  for (int i = 0; i < kLevelCount; ++i) {
    levels.push_back(static_cast<Level>(i));
  }
  return levels;
}

using SharedCalibration = std::shared_ptr<const codec::Calibration>;

CodecUnderTest Own(Level level, std::string family,
                   SharedCalibration calibration, const RopeSpec& rope) {
  return {std::string(Name(level)), std::move(family),
          [level, calibration = std::move(calibration), rope](
              const KvTensor& kv, absl::Span<const int32_t> positions) {
            return OwnLevel(level, calibration, rope, kv, positions);
          }};
}

std::vector<CodecUnderTest> Codecs(const RopeSpec& rope,
                                   const SharedCalibration& calibration) {
  std::vector<CodecUnderTest> codecs;
  for (const Level level : OwnLevels()) {
    const bool fixed = level == Level::kLossless || level == Level::kInt8;
    codecs.push_back(Own(level, fixed ? std::string(Name(level)) : "kdn",
                         calibration, rope));
    if (fixed) continue;
    codecs.push_back(Own(level, "kdn-uncalibrated", nullptr, rope));
  }
  for (int level = 1; level <= 3; ++level) {
    codecs.push_back({absl::StrCat("cachegen-", level), "cachegen",
                      [level](const KvTensor& kv, absl::Span<const int32_t>) {
                        return CacheGen(kv, level);
                      }});
  }
  for (int bits : {2, 4}) {
    codecs.push_back({absl::StrCat("kivi-", bits), "kivi",
                      [bits](const KvTensor& kv, absl::Span<const int32_t>)
                          -> absl::StatusOr<Coded> { return Kivi(kv, bits); }});
  }
  return codecs;
}

// All calibration texts, joined. By default, the facts beside the model.
absl::StatusOr<std::string> CalibrationText(const CodecOptions& options) {
  std::vector<std::string> texts = options.calibration_texts;
  const std::string facts = options.model + "/facts";
  std::error_code error;
  if (texts.empty() && std::filesystem::is_directory(facts, error)) {
    texts.push_back(facts);
  }
  if (texts.empty()) {
    return absl::InvalidArgumentError(
        "name a text to calibrate on with --calibrate FILE");
  }
  auto files = cli::FilesOf(texts);
  if (!files.ok()) return files.status();
  std::sort(files->begin(), files->end());
  std::string all;
  for (const std::filesystem::path& file : *files) {
    const absl::StatusOr<std::string> text = cli::ReadText(file);
    if (!text.ok()) return text.status();
    all += *text;
  }
  return all;
}

absl::StatusOr<SharedCalibration> CalibrateFor(const QualityBed& bed,
                                               const CodecOptions& options) {
  std::fprintf(stderr, "calibrating ...\n");
  const absl::StatusOr<std::string> text = CalibrationText(options);
  if (!text.ok()) return text.status();
  cli::CalibrationRun run;
  run.base_bits = options.base_bits;
  // More tokens take longer and change little.
  constexpr size_t kTokensMax = 8192;
  std::vector<int32_t> tokens = bed.tokenizer().EncodeBeginning(*text);
  tokens.resize(std::min(tokens.size(), kTokensMax));
  const auto stored = cli::Calibrate(bed.llama(), tokens, run);
  if (!stored.ok()) return stored.status();
  return codec::ParseCalibration(codec::WriteCalibration(*stored));
}

// One measured setting of one codec.
struct Point {
  std::string codec;
  std::string family;
  int chunk_tokens = 0;
  Quality quality;
};

Json JsonOf(const Point& point, Dtype dtype) {
  const Quality& quality = point.quality;
  Json json = {{"codec", point.codec},
               {"family", point.family},
               {"chunk_tokens", point.chunk_tokens},
               {"bits_per_value", quality.bits_per_value},
               {"ratio", 8.0 * SizeOf(dtype) / quality.bits_per_value},
               {"kl_mean", quality.kl_mean},
               {"kl_p99", quality.kl_p99},
               {"top1", quality.top1}};
  if (quality.accuracy >= 0) json["accuracy"] = quality.accuracy;
  return json;
}

// Bits per value that a family of codecs needs for the mean divergence `kl`,
// interpolated linearly in log(divergence) between the family's points. For a
// divergence worse than that of its coarsest point, the bits of that point: an
// upper bound. Negative when all points of the family are worse than `kl`.
double BitsAt(double kl, absl::Span<const Point> points,
              absl::string_view family, int chunk_tokens) {
  std::vector<std::pair<double, double>> curve;  // log divergence, bits
  for (const Point& point : points) {
    if (point.family != std::string(family) ||
        point.chunk_tokens != chunk_tokens) {
      continue;
    }
    curve.emplace_back(std::log(point.quality.kl_mean),
                       point.quality.bits_per_value);
  }
  std::sort(curve.rbegin(), curve.rend());
  const double at = std::log(kl);
  if (curve.empty() || at < curve.back().first) return -1;
  if (at >= curve.front().first) return curve.front().second;
  size_t i = 1;
  while (curve[i].first > at) ++i;
  const auto& [coarse_kl, coarse_bits] = curve[i - 1];
  const auto& [fine_kl, fine_bits] = curve[i];
  return coarse_bits +
         (fine_bits - coarse_bits) * (coarse_kl - at) / (coarse_kl - fine_kl);
}

void CompareAtEqualDivergence(absl::Span<const Point> points, Json& json) {
  for (const Point& point : points) {
    if (point.family != "cachegen") continue;
    const double bits =
        BitsAt(point.quality.kl_mean, points, "kdn", point.chunk_tokens);
    json["ratio_vs_cachegen_equal_kl"].push_back(
        {{"level", point.codec},
         {"chunk_tokens", point.chunk_tokens},
         {"kl_mean", point.quality.kl_mean},
         {"cachegen_bits", point.quality.bits_per_value},
         {"kdn_bits", bits},
         {"ratio", point.quality.bits_per_value / bits}});
  }
}

absl::Status MeasureQuality(const CodecOptions& options, Json& json) {
  const absl::StatusOr<QualityBed> bed =
      QualityBed::Create(options.model, options.text, {});
  if (!bed.ok()) return bed.status();
  const auto calibration = CalibrateFor(*bed, options);
  if (!calibration.ok()) return calibration.status();
  std::vector<Point> points;
  for (const CodecUnderTest& codec : Codecs(bed->spec().rope, *calibration)) {
    for (const int chunk_tokens : kChunkTokens) {
      std::fprintf(stderr, "measuring %s of %s in chunks of %d ...\n",
                   codec.name.c_str(), codec.family.c_str(), chunk_tokens);
      const absl::StatusOr<Quality> quality = bed->Measure(codec, chunk_tokens);
      if (!quality.ok()) return quality.status();
      points.push_back({codec.name, codec.family, chunk_tokens, *quality});
      json["points"].push_back(JsonOf(points.back(), bed->spec().dtype));
      if (codec.family == Name(Level::kLossless) &&
          chunk_tokens == kChunkTokens[0]) {
        json["lossless_ratio"] = json["points"].back()["ratio"];
      }
    }
  }
  CompareAtEqualDivergence(points, json);
  return absl::OkStatus();
}

// Calibrates on a draw of its own from the source.
absl::StatusOr<SharedCalibration> CalibrateOn(GaussianSource& source,
                                              const CodecOptions& options) {
  const KvTensor sample = source.Draw(4096);
  ModelSpec spec;
  spec.name = "gaussian";
  spec.num_layers = 1;
  spec.num_kv_heads = 1;
  spec.head_dim = sample.shape().head_dim;
  spec.dtype = sample.shape().dtype;
  spec.weights_digest = "none";
  spec.tokenizer_digest = "none";
  auto calibrator = codec::Calibrator::Create(spec);
  if (!calibrator.ok()) return calibrator.status();
  std::vector<std::byte> memory(sample.shape().bytes());
  const MutableKvView view(memory.data(), sample.shape(),
                           KvStrides::HeadMajor(sample.shape()));
  sample.Store(view);
  const std::vector<int32_t> positions(sample.shape().tokens);
  if (absl::Status s = calibrator->Add(view, positions); !s.ok()) return s;
  codec::Calibrator::Options chosen;
  chosen.base_bits = options.base_bits;
  const auto stored = calibrator->Finish(chosen);
  if (!stored.ok()) return stored.status();
  return codec::ParseCalibration(codec::WriteCalibration(*stored));
}

// Measures how many bits each codec needs above the rate-distortion bound: the
// least bits that any code needs for the same error.
absl::Status MeasureSynthetic(const CodecOptions& options, Json& json) {
  std::fprintf(stderr, "measuring Gaussian sources ...\n");
  for (const double tau : {8.0, 16.0, 32.0}) {
    GaussianSource source(/*head_dim=*/128, tau, /*seed=*/1);
    const auto calibration = CalibrateOn(source, options);
    if (!calibration.ok()) return calibration.status();
    const KvTensor kv = source.Draw(1024);
    const RopeSpec no_rotation;
    std::vector<int32_t> positions(kv.shape().tokens);
    for (const CodecUnderTest& codec : Codecs(no_rotation, *calibration)) {
      const absl::StatusOr<Coded> coded = codec.code(kv, positions);
      if (!coded.ok()) return coded.status();
      const double nmse = NormalizedError(kv, coded->kv);
      if (nmse <= 0 || nmse >= 1) continue;  // no finite bound
      const double bits = 8.0 * static_cast<double>(coded->bytes) / kv.size();
      json["synthetic"].push_back(
          {{"codec", codec.name},
           {"family", codec.family},
           {"tau", tau},
           {"bits_per_value", bits},
           {"nmse", nmse},
           {"bits_above_bound", bits - source.RateOf(nmse)}});
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureSpeeds(const CodecOptions& options, Json& json) {
  absl::StatusOr<SpeedBed> bed = SpeedBed::Create(options.base_bits);
  if (!bed.ok()) return bed.status();
  for (const Level level : OwnLevels()) {
    std::fprintf(stderr, "measuring the speed of %s ...\n",
                 std::string(Name(level)).c_str());
    const absl::StatusOr<double> memcpy_gbps =
        MemcpyGbps(4 * kSpeedChunkBytes, 1u << 20, /*threads=*/1);
    if (!memcpy_gbps.ok()) return memcpy_gbps.status();
    Json point = {{"codec", Name(level)}, {"memcpy_gbps", *memcpy_gbps}};
    for (const codec::Isa isa : codec::kIsas) {
      if (!codec::Supports(isa)) continue;
      const std::string name(codec::Name(isa));
      // The loops of int8 always run with BestIsa().
      if (level == Level::kInt8 && isa != codec::BestIsa()) continue;
      const absl::StatusOr<CodecSpeed> speed = bed->Measure(level, isa);
      if (!speed.ok()) return speed.status();
      point["bits_per_value"] = speed->bits_per_value;
      point["decode_gbps"][name] = speed->decode_gbps;
      point["decode_over_memcpy"][name] = speed->decode_gbps / *memcpy_gbps;
      if (isa != codec::BestIsa()) continue;
      point["encode_gbps"] = speed->encode_gbps;
      point["encode_over_memcpy"] = speed->encode_gbps / *memcpy_gbps;
    }
    json["speeds"].push_back(std::move(point));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCodecBench(const CodecOptions& options) {
  Json json = {{"benchmark", "codec"}, {"model", options.model}};
  absl::Status status = MeasureQuality(options, json);
  if (status.ok()) status = MeasureSynthetic(options, json);
  if (status.ok()) status = MeasureSpeeds(options, json);
  return status.ok() ? PrintReport(json, options.json) : status;
}

}  // namespace kdn::bench
