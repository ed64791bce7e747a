#include "bench/prefill_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "bench/gemm_limit.h"
#include "bench/median.h"
#include "bench/report.h"
#include "kv/clock.h"
#include "kv/isa.h"
#include "model/llama.h"

namespace kdn::bench {
namespace {

// The rows of oneDNN's products: those of a chunk, and those of the whole text.
// The better rate is the limit.
constexpr int kGemmRows[] = {256, 2048};

// Tokens that repeat late. Their values do not change the time.
std::vector<int32_t> TokensOf(int count, int vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    tokens[i] = static_cast<int32_t>((int64_t{i} * 7919 + 13) % vocab);
  }
  return tokens;
}

// The sum of all words, so that the compiler keeps every read.
inline __attribute__((always_inline)) uint64_t SumWords(
    absl::Span<const std::byte> memory) {
  constexpr size_t kLanes = 32;
  uint64_t lanes[kLanes] = {};
  const size_t words = memory.size() / sizeof(uint64_t) / kLanes * kLanes;
  for (size_t i = 0; i < words; i += kLanes) {
    uint64_t values[kLanes];
    std::memcpy(values, memory.data() + i * sizeof(uint64_t), sizeof(values));
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += values[j];
  }
  return std::accumulate(lanes, lanes + kLanes, uint64_t{0});
}

uint64_t SumPlainly(absl::Span<const std::byte> memory) {
  return SumWords(memory);
}

#if defined(__x86_64__)
// Wide loads keep more cache lines in flight.
__attribute__((target("avx512f"))) uint64_t SumWidely(
    absl::Span<const std::byte> memory) {
  return SumWords(memory);
}
#endif

uint64_t SumOf(absl::Span<const std::byte> memory) {
#if defined(__x86_64__)
  if (BestIsa() >= Isa::kAvx512) return SumWidely(memory);
#endif
  return SumPlainly(memory);
}

std::vector<absl::Span<const std::byte>> MatricesOf(
    const model::Weights& weights) {
  std::vector<absl::Span<const std::byte>> matrices;
  for (const model::LayerWeights& layer : weights.layers) {
    for (const model::Linear* each :
         {&layer.qkv, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      matrices.push_back(each->memory());
    }
  }
  matrices.push_back(weights.output->memory());
  return matrices;
}

// Seconds in which `threads` threads read all weights, each an equal share.
double ReadSeconds(const model::Weights& weights, int threads) {
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  const auto read = [&](int thread) {
    uint64_t sum = 0;
    for (const auto& matrix : MatricesOf(weights)) {
      const size_t part = matrix.size() / static_cast<size_t>(threads);
      sum += SumOf(matrix.subspan(static_cast<size_t>(thread) * part, part));
    }
    sums[static_cast<size_t>(thread)] = sum;
  };
  const absl::Time begin = SteadyNow();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(read, i);
  read(0);
  for (std::thread& other : others) other.join();
  const double seconds = absl::ToDoubleSeconds(SteadyNow() - begin);
  // Every sum is looked at, so none of them is left out.
  if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == 0) {
    std::fprintf(stderr, "all weights are zero\n");
  }
  return seconds;
}

// Bytes per second: the best of a few times, because it is a limit.
double ReadRate(const model::Weights& weights, int threads) {
  constexpr int kTimes = 5;
  double seconds = ReadSeconds(weights, threads);
  for (int i = 1; i < kTimes; ++i) {
    seconds = std::min(seconds, ReadSeconds(weights, threads));
  }
  return static_cast<double>(weights.matrix_bytes()) / seconds;
}

int ThreadsOf() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

struct Rates {
  std::vector<double> prefill;  // tokens per second
  std::vector<double> decode;
  std::vector<double> decode_first;  // behind a few tokens
  std::vector<double> gemm;          // operations per second
  std::vector<double> read;          // bytes per second
};

// Decodes greedily behind the cache and returns tokens per second.
absl::StatusOr<double> DecodeRate(const model::Llama& llama,
                                  model::KvCache& cache, int count) {
  const int context = cache.size();
  int32_t token = 1;
  const absl::Time begin = SteadyNow();
  for (int i = 0; i < count; ++i) {
    const auto logits = llama.Prefill(cache, {token}, {cache.size()});
    if (!logits.ok()) return logits.status();
    token = model::Argmax(*logits);
  }
  const double seconds = absl::ToDoubleSeconds(SteadyNow() - begin);
  cache.Truncate(context);
  return count / seconds;
}

absl::Status MeasureRound(const model::Llama& llama, model::KvCache& cache,
                          const PrefillOptions& options, Rates& rates) {
  const std::vector<int32_t> tokens =
      TokensOf(options.tokens, llama.config().vocab_size);
  constexpr int kFewTokens = 16;
  cache.Truncate(0);
  const auto few = absl::MakeConstSpan(tokens).first(kFewTokens);
  auto logits = llama.PrefillInChunks(cache, few, 0);
  if (!logits.ok()) return logits.status();
  absl::StatusOr<double> decode = DecodeRate(llama, cache, options.decoded);
  if (!decode.ok()) return decode.status();
  rates.decode_first.push_back(*decode);
  cache.Truncate(0);
  const absl::Time begin = SteadyNow();
  logits = llama.PrefillInChunks(cache, tokens, 0);
  if (!logits.ok()) return logits.status();
  rates.prefill.push_back(options.tokens /
                          absl::ToDoubleSeconds(SteadyNow() - begin));
  decode = DecodeRate(llama, cache, options.decoded);
  if (!decode.ok()) return decode.status();
  rates.decode.push_back(*decode);
  return absl::OkStatus();
}

nlohmann::json Summary(const PrefillOptions& options, const model::Llama& llama,
                       const Rates& rates, const std::string& onednn_dtype) {
  const model::Weights& weights = llama.weights();
  const double prefill = MedianOf(rates.prefill);
  const double gemm = MedianOf(rates.gemm);
  const auto weight_bytes = static_cast<double>(weights.matrix_bytes());
  const auto kv_bytes = static_cast<double>(
      model::KvCache::BytesFor(llama.spec(), options.tokens));
  const double bound = MedianOf(rates.read) / weight_bytes;
  const double bound_behind = MedianOf(rates.read) / (weight_bytes + kv_bytes);
  const double matrices = prefill * static_cast<double>(weights.layer_flops());
  return {
      {"benchmark", "prefill"},
      {"model", options.model},
      {"isa", std::string(Name(BestIsa()))},
      {"multiplies_bf16", model::MultipliesBf16()},
      {"threads", ThreadsOf()},
      {"rounds", options.rounds},
      {"tokens", options.tokens},
      {"prefill_tokens_per_s", prefill},
      {"prefill_matrix_gflops", matrices / 1e9},
      {"onednn_dtype", onednn_dtype},
      {"onednn_gflops", gemm / 1e9},
      {"prefill_over_onednn", matrices / gemm},
      {"weights_mb", weight_bytes / 1e6},
      {"read_gb_per_s", MedianOf(rates.read) / 1e9},
      {"decode_bound_tokens_per_s", bound},
      {"decode_tokens_per_s", MedianOf(rates.decode_first)},
      {"decode_over_bound", MedianOf(rates.decode_first) / bound},
      {"decode_behind_text_tokens_per_s", MedianOf(rates.decode)},
      {"kv_mb", kv_bytes / 1e6},
      {"decode_behind_text_bound_tokens_per_s", bound_behind},
      {"decode_behind_text_over_bound", MedianOf(rates.decode) / bound_behind}};
}

}  // namespace

absl::Status RunPrefillBench(const PrefillOptions& options) {
  const auto llama = model::Llama::Load(options.model, {});
  if (!llama.ok()) return llama.status();
  std::vector<GemmLimit> limits;
  for (const int rows : kGemmRows) {
    absl::StatusOr<GemmLimit> limit =
        GemmLimit::Create((*llama)->config(), rows);
    if (!limit.ok()) return limit.status();
    limits.push_back(*std::move(limit));
  }
  model::KvCache cache((*llama)->spec(), options.tokens + options.decoded);
  Rates rates;
  for (int round = 0; round < options.rounds; ++round) {
    std::fprintf(stderr, "measuring, round %d of %d ...\n", round + 1,
                 options.rounds);
    double gemm = 0;
    for (GemmLimit& limit : limits) gemm = std::max(gemm, limit.Measure());
    rates.gemm.push_back(gemm);
    rates.read.push_back(ReadRate((*llama)->weights(), ThreadsOf()));
    if (absl::Status s = MeasureRound(**llama, cache, options, rates);
        !s.ok()) {
      return s;
    }
  }
  return PrintReport(Summary(options, **llama, rates, limits.front().dtype()),
                     options.json);
}

}  // namespace kdn::bench
