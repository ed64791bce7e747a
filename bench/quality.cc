#include "bench/quality.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "cli/text_files.h"
#include "model/divergence.h"

namespace kdn::bench {
namespace {

constexpr int kContextTokens = 1500;  // a long context: CacheGen's chunk size
constexpr int kContinuationTokens = 32;
constexpr int kTextCasesMax = 8;

std::vector<int32_t> Positions(int begin, size_t count) {
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

}  // namespace

absl::StatusOr<QualityBed> QualityBed::Create(const std::string& directory,
                                              const std::string& text_file,
                                              const Limits& limits) {
  auto llama = model::Llama::Load(directory, {});
  if (!llama.ok()) return llama.status();
  auto tokenizer = model::Tokenizer::Load(directory);
  if (!tokenizer.ok()) return tokenizer.status();
  QualityBed bed(*std::move(llama), *std::move(tokenizer));
  const absl::Status status =
      text_file.empty() ? bed.AddRecallCases(directory + "/eval.jsonl", limits)
                        : bed.AddTextCases(text_file);
  if (!status.ok()) return status;
  return bed;
}

absl::Status QualityBed::AddRecallCases(const std::string& file,
                                        const Limits& limits) {
  const absl::StatusOr<std::string> lines = cli::ReadText(file);
  if (!lines.ok()) {
    return absl::NotFoundError(
        absl::StrCat(lines.status().message(),
                     ": name a text to compare on with --text FILE"));
  }
  std::istringstream in(*lines);
  std::vector<int32_t> joined;
  std::vector<std::vector<int32_t>> questions;
  int instances = 0;
  for (std::string line;
       instances++ < limits.instances && std::getline(in, line);) {
    const auto instance = nlohmann::json::parse(line, nullptr, false);
    if (!instance.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": a line is not a JSON object"));
    }
    std::string text;
    for (const auto& document : instance["documents"]) {
      text += document.get<std::string>();
    }
    Case one;
    auto tokens = tokenizer_.EncodeBeginning(text);
    if (!tokens.ok()) return tokens.status();
    one.tokens = *std::move(tokens);
    for (const auto& asked : instance["asked"]) {
      if (static_cast<int>(one.answers.size()) == limits.questions) break;
      auto question =
          tokenizer_.Encode("<q> " + asked["question"].get<std::string>());
      if (!question.ok()) return question.status();
      one.continuations.push_back(*std::move(question));
      one.answers.push_back(" " + asked["answer"].get<std::string>());
    }
    joined.insert(joined.end(), one.tokens.begin(), one.tokens.end());
    questions.insert(questions.end(), one.continuations.begin(),
                     one.continuations.end());
    if (absl::Status status = Add(std::move(one)); !status.ok()) return status;
    if (joined.size() < kContextTokens) continue;
    if (absl::Status status = AddLongCase(joined, questions); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status QualityBed::AddLongCase(
    std::vector<int32_t>& tokens,
    std::vector<std::vector<int32_t>>& questions) {
  Case one;
  one.tokens.assign(tokens.begin(), tokens.begin() + kContextTokens);
  one.continuations = std::move(questions);
  tokens.clear();
  questions.clear();
  return Add(std::move(one));
}

absl::Status QualityBed::AddTextCases(const std::string& file) {
  const absl::StatusOr<std::string> text = cli::ReadText(file);
  if (!text.ok()) return text.status();
  const auto tokens = tokenizer_.Encode(*text);
  if (!tokens.ok()) return tokens.status();
  constexpr size_t kCase = kContextTokens + kContinuationTokens;
  if (tokens->size() < kCase) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, " has ", tokens->size(), " tokens, expected at least ", kCase));
  }
  const size_t count = std::min<size_t>(kTextCasesMax, tokens->size() / kCase);
  for (size_t i = 0; i < count; ++i) {
    const auto begin = tokens->begin() + static_cast<ptrdiff_t>(i * kCase);
    Case one;
    one.tokens.assign(begin, begin + kContextTokens);
    one.continuations.emplace_back(begin + kContextTokens, begin + kCase);
    if (absl::Status status = Add(std::move(one)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> QualityBed::LogitsBehind(
    model::KvCache& cache, const std::vector<int32_t>& continuation) const {
  return llama_->Prefill(cache, continuation,
                         Positions(cache.size(), continuation.size()),
                         model::LogitRows::kAll);
}

absl::Status QualityBed::Add(Case one) {
  const int tokens = static_cast<int>(one.tokens.size());
  model::KvCache cache(spec(), tokens + kContinuationTokens);
  if (const auto status =
          llama_->PrefillInChunks(cache, one.tokens, 0).status();
      !status.ok()) {
    return status;
  }
  one.kv = std::make_unique<KvTensor>(KvTensor::Of(cache.Tokens(0, tokens)));
  for (const std::vector<int32_t>& continuation : one.continuations) {
    absl::StatusOr<std::vector<float>> logits =
        LogitsBehind(cache, continuation);
    if (!logits.ok()) return logits.status();
    one.logits.push_back(*std::move(logits));
    cache.Truncate(tokens);
  }
  cases_.push_back(std::move(one));
  return absl::OkStatus();
}

absl::StatusOr<KvTensor> QualityBed::Code(const Case& one,
                                          const CodecUnderTest& codec,
                                          int chunk_tokens,
                                          size_t& bytes) const {
  const int tokens = static_cast<int>(one.tokens.size());
  KvTensor decoded(one.kv->shape());
  for (int begin = 0; begin < tokens; begin += chunk_tokens) {
    const int count = std::min(chunk_tokens, tokens - begin);
    absl::StatusOr<Coded> coded =
        codec.code(one.kv->Tokens(begin, count), Positions(begin, count));
    if (!coded.ok()) return coded.status();
    bytes += coded->bytes;
    decoded.Place(begin, coded->kv);
  }
  return decoded;
}

absl::StatusOr<Quality> QualityBed::Measure(const CodecUnderTest& codec,
                                            int chunk_tokens) const {
  std::vector<double> divergences;
  size_t bytes = 0;
  size_t values = 0;
  size_t same = 0;
  size_t right = 0;
  size_t asked = 0;
  for (const Case& one : cases_) {
    const bool is_long = one.answers.empty();
    size_t case_bytes = 0;
    const absl::StatusOr<KvTensor> decoded =
        Code(one, codec, chunk_tokens, case_bytes);
    if (!decoded.ok()) return decoded.status();
    if (is_long) {
      bytes += case_bytes;
      values += decoded->size();
    }
    const int tokens = static_cast<int>(one.tokens.size());
    model::KvCache cache(spec(), tokens + kContinuationTokens);
    decoded->Store(cache.Tokens(0, tokens));
    cache.Append(Positions(0, tokens));
    for (size_t i = 0; i < one.continuations.size(); ++i) {
      const absl::StatusOr<std::vector<float>> logits =
          LogitsBehind(cache, one.continuations[i]);
      if (!logits.ok()) return logits.status();
      cache.Truncate(tokens);
      const size_t vocab = logits->size() / one.continuations[i].size();
      if (!is_long) {
        const auto last = absl::MakeConstSpan(*logits).last(vocab);
        ++asked;
        const auto answer = tokenizer_.Decode({model::Argmax(last)});
        if (!answer.ok()) return answer.status();
        right += *answer == one.answers[i] ? 1 : 0;
        continue;
      }
      for (size_t at = 0; at < logits->size(); at += vocab) {
        const auto row = absl::MakeConstSpan(*logits).subspan(at, vocab);
        const auto exact =
            absl::MakeConstSpan(one.logits[i]).subspan(at, vocab);
        divergences.push_back(model::Divergence(exact, row));
        same += model::Argmax(exact) == model::Argmax(row) ? 1 : 0;
      }
    }
  }
  if (divergences.empty()) return absl::InternalError("no long context");
  std::sort(divergences.begin(), divergences.end());
  const double count = static_cast<double>(divergences.size());
  return Quality{
      .bits_per_value = 8.0 * static_cast<double>(bytes) / values,
      .kl_mean =
          std::accumulate(divergences.begin(), divergences.end(), 0.0) / count,
      .kl_p99 = divergences[static_cast<size_t>(0.99 * (count - 1))],
      .top1 = static_cast<double>(same) / count,
      .accuracy = asked == 0 ? -1.0 : static_cast<double>(right) / asked};
}

}  // namespace kdn::bench
