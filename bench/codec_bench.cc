#include "bench/codec_bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/baselines.h"
#include "bench/coder_process.h"
#include "bench/gaussian_source.h"
#include "bench/isa_process.h"
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

constexpr char kLmcacheFamily[] = "cachegen-lmcache";
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

// Null: LMCache is not measured.
using SharedCoder = std::shared_ptr<CoderProcess>;

// LMCache's code with the bins of our own CacheGen's level. It counts its
// tables on the chunk.
CodecUnderTest Lmcache(SharedCoder coder, int level) {
  return {absl::StrCat(kLmcacheFamily, "-", level), kLmcacheFamily,
          [coder = std::move(coder), level](const KvTensor& kv,
                                            absl::Span<const int32_t>) {
            std::vector<int> key_bins;
            std::vector<int> value_bins;
            for (int layer = 0; layer < kv.shape().layers; ++layer) {
              key_bins.push_back(CacheGenBins(level, KvPart::kK, layer));
              value_bins.push_back(CacheGenBins(level, KvPart::kV, layer));
            }
            return coder->Code(kv, key_bins, value_bins);
          }};
}

// What the codecs know of a model before they see a chunk. A chunk's size does
// not count it.
struct Trained {
  SharedCalibration kdn;
  std::vector<std::shared_ptr<CacheGenTables>> cachegen;  // levels 1 to 3

  explicit Trained(const KvShape& shape) {
    for (int level = 1; level <= 3; ++level) {
      cachegen.push_back(std::make_shared<CacheGenTables>(shape, level));
    }
  }
};

std::vector<CodecUnderTest> Codecs(const RopeSpec& rope, const Trained& trained,
                                   const SharedCoder& lmcache) {
  std::vector<CodecUnderTest> codecs;
  for (const Level level : OwnLevels()) {
    const bool fixed = level == Level::kLossless || level == Level::kInt8;
    codecs.push_back(Own(level, fixed ? std::string(Name(level)) : "kdn",
                         trained.kdn, rope));
    // The built-in calibration has no archive level.
    if (fixed || level == Level::kArchive) continue;
    codecs.push_back(Own(level, "kdn-uncalibrated", nullptr, rope));
  }
  for (int level = 1; level <= 3; ++level) {
    codecs.push_back({absl::StrCat("cachegen-", level), "cachegen",
                      [level](const KvTensor& kv, absl::Span<const int32_t>) {
                        return CacheGen(kv, level);
                      }});
    codecs.push_back({absl::StrCat("cachegen-", level), "cachegen-trained",
                      [tables = trained.cachegen[level - 1]](
                          const KvTensor& kv,
                          absl::Span<const int32_t>) -> absl::StatusOr<Coded> {
                        return CacheGen(kv, *tables);
                      }});
    if (lmcache != nullptr) codecs.push_back(Lmcache(lmcache, level));
  }
  for (int bits : {2, 4}) {
    codecs.push_back({absl::StrCat("kivi-", bits), "kivi",
                      [bits](const KvTensor& kv, absl::Span<const int32_t>)
                          -> absl::StatusOr<Coded> { return Kivi(kv, bits); }});
  }
  return codecs;
}

bool IsWanted(const std::string& family, const CodecOptions& options) {
  const std::vector<std::string>& wanted = options.families;
  return wanted.empty() ||
         std::find(wanted.begin(), wanted.end(), family) != wanted.end();
}

// Whether a wanted family knows the model.
bool NeedsTraining(const CodecOptions& options) {
  constexpr const char* kTrained[] = {"lossless", "int8", "kdn",
                                      "cachegen-trained"};
  return std::any_of(
      std::begin(kTrained), std::end(kTrained),
      [&](const char* family) { return IsWanted(family, options); });
}

// The windows of all calibration texts. By default, the facts beside the model.
absl::StatusOr<std::vector<std::vector<int32_t>>> WindowsOf(
    const CodecOptions& options, const model::Tokenizer& tokenizer) {
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
  return cli::CalibrationWindows(texts, tokenizer, cli::kWindows);
}

// Counts CacheGen's tables on KV of the windows.
absl::Status CountTables(const QualityBed& bed,
                         absl::Span<const std::vector<int32_t>> windows,
                         Trained& trained) {
  for (const std::vector<int32_t>& window : windows) {
    const int count = static_cast<int>(window.size());
    model::KvCache cache(bed.spec(), count);
    if (auto s = bed.llama().PrefillInChunks(cache, window, 0).status();
        !s.ok()) {
      return s;
    }
    const KvTensor kv = KvTensor::Of(cache.Tokens(0, count));
    for (const auto& tables : trained.cachegen) tables->Count(kv);
  }
  return absl::OkStatus();
}

absl::StatusOr<Trained> TrainFor(const QualityBed& bed,
                                 const CodecOptions& options) {
  Trained trained(ShapeOf(bed.spec(), 1));
  if (!NeedsTraining(options)) return trained;
  std::fprintf(stderr, "calibrating ...\n");
  const auto windows = WindowsOf(options, bed.tokenizer());
  if (!windows.ok()) return windows.status();
  cli::CalibrationRun run;
  run.base_bits = options.base_bits;
  const auto stored = cli::Calibrate(bed.llama(), *windows, run);
  if (!stored.ok()) return stored.status();
  auto calibration = codec::ParseCalibration(codec::WriteCalibration(*stored));
  if (!calibration.ok()) return calibration.status();
  trained.kdn = *std::move(calibration);
  if (absl::Status s = CountTables(bed, *windows, trained); !s.ok()) return s;
  return trained;
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
               {"kl_se", quality.kl_se},
               {"kl_p99", quality.kl_p99},
               {"top1", quality.top1},
               {"perplexity", quality.perplexity},
               {"positions", quality.positions},
               {"contexts", quality.contexts}};
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

// A family of CacheGen and the family of the KDN that it is compared with.
struct Comparison {
  const char* cachegen;
  const char* tables;  // of CacheGen and, but for the last one, of the KDN
  const char* kdn;
};

// In all but the last, both codecs are charged alike. "trained": both know the
// model, and neither pays for it. "alone": a chunk brings all that its decoder
// needs, CacheGen's tables or the statistics of the KDN's built-in calibration.
// The last compares the two systems as they are used: LMCache puts tables into
// every chunk, and a cluster of the KDN keeps one calibration of a model.
constexpr Comparison kComparisons[] = {
    {"cachegen", "alone", "kdn-uncalibrated"},
    {"cachegen-trained", "trained", "kdn"},
    {kLmcacheFamily, "alone", "kdn-uncalibrated"},
    {kLmcacheFamily, "as used", "kdn"},
};

bool IsMeasured(absl::string_view family, absl::Span<const Point> points) {
  return std::any_of(points.begin(), points.end(), [&](const Point& point) {
    return point.family == std::string(family);
  });
}

void CompareAtEqualDivergence(absl::Span<const Point> points, Json& json) {
  for (const Comparison& comparison : kComparisons) {
    if (!IsMeasured(comparison.kdn, points)) continue;
    for (const Point& point : points) {
      if (point.family != comparison.cachegen) continue;
      const double bits = BitsAt(point.quality.kl_mean, points, comparison.kdn,
                                 point.chunk_tokens);
      json["ratio_vs_cachegen_equal_kl"].push_back(
          {{"level", point.codec},
           {"tables", comparison.tables},
           {"chunk_tokens", point.chunk_tokens},
           {"kl_mean", point.quality.kl_mean},
           {"cachegen_bits", point.quality.bits_per_value},
           {"kdn_family", comparison.kdn},
           {"kdn_bits", bits},
           {"ratio", bits > 0 ? point.quality.bits_per_value / bits : -1}});
    }
  }
}

// Null when LMCache is not to be measured.
absl::StatusOr<SharedCoder> StartLmcache(const CodecOptions& options) {
  if (!IsWanted(kLmcacheFamily, options)) return nullptr;
  if (options.lmcache.empty()) {
    if (options.families.empty()) return nullptr;
    return absl::InvalidArgumentError(
        absl::StrCat("the family ", kLmcacheFamily, " needs --lmcache"));
  }
  return CoderProcess::Start(options.lmcache, {});
}

absl::Status MeasureQuality(const CodecOptions& options,
                            const SharedCoder& lmcache, Json& json) {
  const absl::StatusOr<QualityBed> bed = QualityBed::Create(
      options.model, options.texts, {.windows = options.windows});
  if (!bed.ok()) return bed.status();
  const absl::StatusOr<Trained> trained = TrainFor(*bed, options);
  if (!trained.ok()) return trained.status();
  std::vector<Point> points;
  for (const CodecUnderTest& codec :
       Codecs(bed->spec().rope, *trained, lmcache)) {
    if (!IsWanted(codec.family, options)) continue;
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
absl::StatusOr<Trained> TrainOn(GaussianSource& source,
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
  auto calibration = codec::ParseCalibration(codec::WriteCalibration(*stored));
  if (!calibration.ok()) return calibration.status();
  Trained trained(sample.shape());
  trained.kdn = *std::move(calibration);
  for (const auto& tables : trained.cachegen) tables->Count(sample);
  return trained;
}

// Measures how many bits each codec needs above the rate-distortion bound: the
// least bits that any code needs for the same error.
absl::Status MeasureSynthetic(const CodecOptions& options,
                              const SharedCoder& lmcache, Json& json) {
  std::fprintf(stderr, "measuring Gaussian sources ...\n");
  for (const double tau : {8.0, 16.0, 32.0}) {
    GaussianSource source(/*head_dim=*/128, tau, /*seed=*/1);
    const absl::StatusOr<Trained> trained = TrainOn(source, options);
    if (!trained.ok()) return trained.status();
    const KvTensor kv = source.Draw(1024);
    const RopeSpec no_rotation;
    std::vector<int32_t> positions(kv.shape().tokens);
    for (const CodecUnderTest& codec : Codecs(no_rotation, *trained, lmcache)) {
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

// Measures this process's instruction set.
absl::Status MeasureOwnSpeeds(const CodecOptions& options, Json& json) {
  absl::StatusOr<SpeedBed> bed = SpeedBed::Create(options.base_bits);
  if (!bed.ok()) return bed.status();
  const std::string isa(Name(BestIsa()));
  for (const Level level : OwnLevels()) {
    std::fprintf(stderr, "measuring the speed of %s with %s ...\n",
                 std::string(Name(level)).c_str(), isa.c_str());
    const absl::StatusOr<double> memcpy_gbps =
        MemcpyGbps(4 * kSpeedChunkBytes, 1u << 20, /*threads=*/1);
    if (!memcpy_gbps.ok()) return memcpy_gbps.status();
    const absl::StatusOr<CodecSpeed> speed = bed->Measure(level);
    if (!speed.ok()) return speed.status();
    json["speeds"].push_back(
        {{"codec", Name(level)},
         {"isa", isa},
         {"bits_per_value", speed->bits_per_value},
         {"memcpy_gbps", *memcpy_gbps},
         {"decode_gbps", speed->decode_gbps},
         {"decode_over_memcpy", speed->decode_gbps / *memcpy_gbps},
         {"encode_gbps", speed->encode_gbps},
         {"encode_over_memcpy", speed->encode_gbps / *memcpy_gbps}});
  }
  return absl::OkStatus();
}

absl::Status MeasureSpeeds(const CodecOptions& options, Json& json) {
  if (absl::Status s = MeasureOwnSpeeds(options, json); !s.ok()) return s;
  for (const Isa isa : kIsas) {
    if (isa >= BestIsa() || !Supports(isa)) continue;
    const auto other = SpeedsWith(options.program, options.base_bits, isa);
    if (!other.ok()) return other.status();
    for (const Json& speed : other->at("speeds")) {
      json["speeds"].push_back(speed);
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureCodecs(const CodecOptions& options, Json& json) {
  const absl::StatusOr<SharedCoder> lmcache = StartLmcache(options);
  if (!lmcache.ok()) return lmcache.status();
  absl::Status status = MeasureQuality(options, *lmcache, json);
  const bool all = options.families.empty();
  if (status.ok() && all) status = MeasureSynthetic(options, *lmcache, json);
  if (status.ok() && all) status = MeasureSpeeds(options, json);
  return status;
}

}  // namespace

absl::Status RunCodecBench(const CodecOptions& options) {
  Json json = {{"benchmark", "codec"}};
  absl::Status status;
  if (options.speeds_only) {
    status = MeasureOwnSpeeds(options, json);
  } else {
    json["model"] = NameOfDirectory(options.model);
    status = MeasureCodecs(options, json);
  }
  return status.ok() ? PrintReport(json, options.json) : status;
}

}  // namespace kdn::bench
