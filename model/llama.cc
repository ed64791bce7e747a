#include "model/llama.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/chunk_key.h"
#include "kv/digest.h"
#include "model/safetensors.h"

namespace kdn::model {
namespace {

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot read ", path.string(),
                     ": is it a Hugging Face checkpoint directory?"));
  }
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// The most tokens of a call of PrefillInChunks: two chunks of the KDN. Calls of
// 512 tokens are 5 % faster than calls of 256, and those of 2,048 another 4 %.
constexpr size_t kCallTokens = 2 * size_t{kChunkTokens};

// The rows of a pass whose logits are wanted.
std::vector<int> RowsOf(const ForwardPass& pass, LogitRows logits) {
  std::vector<int> wanted;
  const auto& rows = pass.rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool last =
        i + 1 == rows.size() || rows[i + 1].sequence != rows[i].sequence;
    if (logits == LogitRows::kAll || (logits == LogitRows::kLast && last)) {
      wanted.push_back(static_cast<int>(i));
    }
  }
  return wanted;
}

}  // namespace

Llama::Llama(ModelConfig config, ModelSpec spec, Weights weights,
             const Options& options)
    : config_(std::move(config)),
      spec_(std::move(spec)),
      rope_(spec_.rope),
      weights_(std::move(weights)),
      operand_(OperandOf(options.compute)),
      attention_operand_(options.kv_dtype == Dtype::kBf16 ? operand_
                                                          : Operand::kFp32) {}

absl::StatusOr<std::unique_ptr<Llama>> Llama::Load(const std::string& directory,
                                                   const Options& options) {
  const std::filesystem::path root(directory);
  absl::StatusOr<std::string> text = ReadFile(root / "config.json");
  if (!text.ok()) return text.status();
  absl::StatusOr<ModelConfig> config = ParseConfig(*text);
  if (!config.ok()) return config.status();
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  DigestBuilder tokenizer("kdn-tokenizer-1");
  if (absl::StatusOr<std::string> json = ReadFile(root / "tokenizer.json");
      json.ok()) {
    tokenizer.Add(std::string_view(*json));
  }
  ModelSpec spec =
      ToModelSpec(*config, root.filename().string(), options.kv_dtype,
                  checkpoint->digest(), HexOf(tokenizer.Finish()));
  if (absl::Status status = Validate(spec); !status.ok()) return status;
  absl::StatusOr<Weights> weights =
      LoadWeights(*checkpoint, *config, options.compute);
  if (!weights.ok()) return weights.status();
  return std::unique_ptr<Llama>(new Llama(*std::move(config), std::move(spec),
                                          *std::move(weights), options));
}

absl::StatusOr<std::vector<float>> Llama::Prefill(
    KvCache& cache, absl::Span<const int32_t> tokens,
    absl::Span<const int32_t> positions, LogitRows logits) const {
  return PrefillBatch(
      {{.cache = &cache, .tokens = tokens, .positions = positions}}, logits);
}

absl::StatusOr<std::vector<float>> Llama::PrefillBatch(
    absl::Span<const Sequence> sequences, LogitRows logits,
    PassObserver* observer) const {
  if (sequences.empty()) {
    return absl::InvalidArgumentError("a batch without sequences");
  }
  ForwardPass pass(*this, sequences.front().cache->workspace());
  if (absl::Status s = pass.Begin(sequences); !s.ok()) return s;
  for (int i = 0; i < config_.num_layers; ++i) {
    pass.RunLayer(i, observer);
  }
  const std::vector<int> rows = RowsOf(pass, logits);
  std::vector<float> result(rows.size() * config_.vocab_size);
  pass.Logits(rows, absl::MakeSpan(result));
  return result;
}

absl::StatusOr<std::vector<float>> Llama::PrefillInChunks(
    KvCache& cache, absl::Span<const int32_t> tokens, int32_t first_position,
    PassObserver* observer) const {
  absl::StatusOr<std::vector<float>> logits =
      absl::InvalidArgumentError("no tokens to prefill");
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), first_position);
  const absl::Span<const int32_t> all(positions);
  for (size_t at = 0; at < tokens.size();) {
    const size_t count =
        kCallTokens - static_cast<size_t>(cache.size()) % kCallTokens;
    const bool last = at + count >= tokens.size();
    logits = PrefillBatch({{.cache = &cache,
                            .tokens = tokens.subspan(at, count),
                            .positions = all.subspan(at, count)}},
                          last ? LogitRows::kLast : LogitRows::kNone, observer);
    if (!logits.ok()) return logits;
    at += count;
  }
  return logits;
}

absl::StatusOr<std::vector<int32_t>> Llama::Decode(KvCache& cache,
                                                   std::vector<float> logits,
                                                   int count) const {
  std::vector<int32_t> tokens;
  while (static_cast<int>(tokens.size()) < count) {
    const int32_t token = Argmax(logits);
    const auto& eos = config_.eos_token_ids;
    if (std::find(eos.begin(), eos.end(), token) != eos.end()) break;
    tokens.push_back(token);
    if (static_cast<int>(tokens.size()) == count) break;
    const int32_t position =
        cache.size() == 0 ? 0
                          : 1 + *std::max_element(cache.positions().begin(),
                                                  cache.positions().end());
    absl::StatusOr<std::vector<float>> next =
        Prefill(cache, {token}, {position});
    if (!next.ok()) return next.status();
    logits = *std::move(next);
  }
  return tokens;
}

int32_t Argmax(absl::Span<const float> logits) {
  KDN_CHECK(!logits.empty(), "a vocabulary is not empty");
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

}  // namespace kdn::model
