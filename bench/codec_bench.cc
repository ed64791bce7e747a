#include "bench/codec_bench.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/baselines.h"
#include "bench/gaussian_source.h"
#include "bench/own_levels.h"
#include "bench/quality.h"
#include "bench/raw_limits.h"
#include "bench/report.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr int kChunkTokens[] = {256, 1500};  // ours, CacheGen's

std::vector<Level> OwnLevels() {
  std::vector<Level> levels;
  for (int i = 0; i < kLevelCount; ++i) {
    levels.push_back(static_cast<Level>(i));
  }
  return levels;
}

std::vector<CodecUnderTest> Codecs(const RopeSpec& rope) {
  std::vector<CodecUnderTest> codecs;
  for (const Level level : OwnLevels()) {
    codecs.push_back({std::string(Name(level)), "kdn",
                      [level, rope](const KvTensor& kv,
                                    absl::Span<const int32_t> positions) {
                        return OwnLevel(level, rope, kv, positions);
                      }});
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

absl::Status MeasureQuality(const CodecOptions& options, Json& json) {
  const absl::StatusOr<QualityBed> bed =
      QualityBed::Create(options.model, options.text, {});
  if (!bed.ok()) return bed.status();
  for (const CodecUnderTest& codec : Codecs(bed->spec().rope)) {
    for (const int chunk_tokens : kChunkTokens) {
      std::fprintf(stderr, "measuring %s in chunks of %d ...\n",
                   codec.name.c_str(), chunk_tokens);
      const absl::StatusOr<Quality> quality = bed->Measure(codec, chunk_tokens);
      if (!quality.ok()) return quality.status();
      Json point = {
          {"codec", codec.name},
          {"family", codec.family},
          {"chunk_tokens", chunk_tokens},
          {"bits_per_value", quality->bits_per_value},
          {"ratio", 8.0 * SizeOf(bed->spec().dtype) / quality->bits_per_value},
          {"kl_mean", quality->kl_mean},
          {"kl_p99", quality->kl_p99},
          {"top1", quality->top1}};
      if (quality->accuracy >= 0) point["accuracy"] = quality->accuracy;
      json["points"].push_back(std::move(point));
    }
  }
  return absl::OkStatus();
}

// Bits above the least that any code needs for the same error.
absl::Status MeasureSynthetic(Json& json) {
  std::fprintf(stderr, "measuring Gaussian sources ...\n");
  for (const double tau : {8.0, 16.0, 32.0}) {
    GaussianSource source(/*head_dim=*/128, tau, /*seed=*/1);
    const KvTensor kv = source.Draw(1024);
    const RopeSpec no_rotation;
    std::vector<int32_t> positions(kv.shape().tokens);
    for (const CodecUnderTest& codec : Codecs(no_rotation)) {
      const absl::StatusOr<Coded> coded = codec.code(kv, positions);
      if (!coded.ok()) return coded.status();
      const double nmse = NormalizedError(kv, coded->kv);
      if (nmse <= 0 || nmse >= 1) continue;  // exact: the bound says nothing
      const double bits = 8.0 * static_cast<double>(coded->bytes) / kv.size();
      json["synthetic"].push_back(
          {{"codec", codec.name},
           {"tau", tau},
           {"bits_per_value", bits},
           {"nmse", nmse},
           {"bits_above_bound", bits - source.RateOf(nmse)}});
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureSpeeds(Json& json) {
  std::fprintf(stderr, "measuring speeds ...\n");
  for (const Level level : OwnLevels()) {
    const absl::StatusOr<double> memcpy_gbps =
        MemcpyGbps(4 * kSpeedChunkBytes, 1u << 20, /*threads=*/1);
    if (!memcpy_gbps.ok()) return memcpy_gbps.status();
    const absl::StatusOr<CodecSpeed> speed = MeasureSpeed(level);
    if (!speed.ok()) return speed.status();
    json["speeds"].push_back(
        {{"codec", Name(level)},
         {"memcpy_gbps", *memcpy_gbps},
         {"encode_gbps", speed->encode_gbps},
         {"decode_gbps", speed->decode_gbps},
         {"encode_over_memcpy", speed->encode_gbps / *memcpy_gbps},
         {"decode_over_memcpy", speed->decode_gbps / *memcpy_gbps}});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunCodecBench(const CodecOptions& options) {
  Json json = {{"benchmark", "codec"}, {"model", options.model}};
  absl::Status status = MeasureQuality(options, json);
  if (status.ok()) status = MeasureSynthetic(json);
  if (status.ok()) status = MeasureSpeeds(json);
  return status.ok() ? PrintReport(json, options.json) : status;
}

}  // namespace kdn::bench
