#include "bench/blend_bench.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/blend_bed.h"
#include "bench/blend_statistics.h"
#include "bench/blend_tasks.h"
#include "bench/report.h"
#include "cli/progress_bar.h"
#include "cli/prompt_form.h"
#include "cli/text_files.h"
#include "model/tokenizer.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;
using Scores = std::vector<BlendScore>;

constexpr double kRatios[] = {0.05, 0.10, 0.15, 0.30};
constexpr size_t kQueryTokens = 32;  // of a text, behind the chunks
constexpr size_t kAfterTokens = 64;  // compared behind the query
// Contexts on which a ratio of 1 is compared with a full prefill.
constexpr size_t kExactContexts = 3;
constexpr const char* kInstruction =
    "You are a helpful AI assistant. Answer the question with the facts from "
    "the documents.\n";

// A share of a smaller gap between reuse and full prefill means nothing.
constexpr double kGapMin = 0.1;
constexpr const char* kNotMeasured = "not measured";

Json ToJson(const Estimate& estimate) {
  Json json = {{"mean", estimate.mean}};
  if (estimate.half.has_value()) json["half_of_95"] = *estimate.half;
  return json;
}

// All ways of composing, of one task.
struct TaskSamples {
  std::string name;
  bool asks = false;  // questions; otherwise text
  int items = 0;
  std::vector<double> tokens;
  BlendSample full;
  BlendSample reuse;
  BlendSample alone;
  BlendSample exact;  // a ratio of 1
  std::map<std::pair<std::string, double>, BlendSample> blends;
};

std::unique_ptr<blend::Selection> DefaultSelection() {
  return blend::AttentionTimesDeviation(1);
}

// The selections that are measured beside the default.
std::vector<std::unique_ptr<blend::Selection>> Others(const BlendBed& bed,
                                                      uint64_t seed) {
  std::vector<std::unique_ptr<blend::Selection>> others;
  others.push_back(blend::RandomTokens(seed));
  others.push_back(blend::PartHeads());
  others.push_back(blend::PartEnds());
  others.push_back(blend::KvDeviation(1));
  others.push_back(blend::QueryAttention());
  others.push_back(blend::AttendedParts());
  others.push_back(bed.Oracle());
  return others;
}

// Every rule at 0.15, where papers compare them; at 0.3 only the rules that
// know the query, because each ratio takes as long as a prefill.
bool Measures(const blend::Selection& selection, double ratio) {
  return ratio == 0.15 || selection.WantsAttention();
}

absl::Status Measure(BlendBed& bed, uint64_t seed, TaskSamples& samples) {
  const auto full = bed.FullPrefill();
  if (!full.ok()) return full.status();
  samples.full.Add(*full, *full);
  for (const bool alone : {false, true}) {
    const auto reuse = bed.Reuse(alone);
    if (!reuse.ok()) return reuse.status();
    (alone ? samples.alone : samples.reuse).Add(*reuse, *full);
  }
  const auto blend = [&](const blend::Selection& selection, double ratio,
                         BlendSample& sample) -> absl::Status {
    const auto scores = bed.Blend(selection, ratio);
    if (!scores.ok()) return scores.status();
    sample.Add(*scores, *full);
    if (std::isfinite(sample.most_kl())) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(
        "the logits behind a blend by ", selection.name(), " are not numbers"));
  };
  const auto chosen = DefaultSelection();
  if (samples.tokens.size() < kExactContexts) {
    if (absl::Status s = blend(*chosen, 1.0, samples.exact); !s.ok()) return s;
  }
  for (const double ratio : kRatios) {
    if (absl::Status s =
            blend(*chosen, ratio, samples.blends[{chosen->name(), ratio}]);
        !s.ok()) {
      return s;
    }
  }
  for (const auto& other : Others(bed, seed)) {
    for (const double ratio : {0.15, 0.30}) {
      if (!Measures(*other, ratio)) continue;
      if (absl::Status s =
              blend(*other, ratio, samples.blends[{other->name(), ratio}]);
          !s.ok()) {
        return s;
      }
    }
  }
  samples.items += static_cast<int>(bed.items().size());
  samples.tokens.push_back(bed.tokens());
  return absl::OkStatus();
}

Json ToJson(const TaskSamples& samples) {
  const auto one = [&](const BlendSample& sample) {
    Json json;
    if (samples.asks) json["right"] = ToJson(sample.right());
    json["kl"] = ToJson(sample.kl());
    json["flops"] = sample.flops().mean;
    return json;
  };
  Json json = {{"task", samples.name},
               {"items", samples.items},
               {"contexts", samples.tokens.size()},
               {"tokens", MeanOf(samples.tokens).mean},
               {"full_prefill", one(samples.full)},
               {"pure_reuse", one(samples.reuse)},
               {"pure_reuse_without_prefix", one(samples.alone)},
               {"exact_kl", samples.exact.most_kl()},
               {"selections", Json::array()}};
  const double gap = samples.full.right().mean - samples.reuse.right().mean;
  for (const auto& [key, sample] : samples.blends) {
    Json blend = {{"selection", key.first}, {"ratio", key.second}};
    blend.update(one(sample));
    if (samples.asks && gap > kGapMin) {
      blend["recovered"] =
          ToJson(sample.RightRecovered(samples.reuse, samples.full));
    }
    blend["kl_recovered"] = ToJson(sample.KlRecovered(samples.reuse));
    json["selections"].push_back(std::move(blend));
  }
  return json;
}

// The share of the accuracy gap over all tasks that have one. Nothing when no
// task has one.
std::optional<double> RecoveredOverAll(const std::vector<TaskSamples>& tasks,
                                       double ratio) {
  double closed = 0;
  double gaps = 0;
  for (const TaskSamples& task : tasks) {
    const double gap = task.full.right().mean - task.reuse.right().mean;
    if (!task.asks || gap <= kGapMin) continue;
    const BlendSample& sample =
        task.blends.at({DefaultSelection()->name(), ratio});
    closed += sample.right().mean - task.reuse.right().mean;
    gaps += gap;
  }
  if (gaps == 0) return std::nullopt;
  return closed / gaps;
}

// A model's prompt around documents: the tokens in front of them, which all
// prompts share, and those behind them.
struct Frame {
  std::vector<int32_t> prefix;
  std::vector<int32_t> tail;
};

absl::StatusOr<Frame> FrameOf(const model::Tokenizer& tokenizer) {
  const auto form = cli::PromptForm::Chat(tokenizer);
  if (!form.ok()) return form.status();
  // The documents are the user's turn: they follow what all prompts share.
  constexpr const char* kDocuments = "DOCUMENTS";
  const auto prompt = form->Make(tokenizer, kInstruction, kDocuments);
  if (!prompt.ok()) return prompt.status();
  const auto text = tokenizer.Decode(prompt->tokens);
  if (!text.ok()) return text.status();
  const size_t at = text->find(kDocuments);
  if (at == std::string::npos) {
    return absl::FailedPreconditionError(
        "the tokenizer changes words: its prompt has no place for documents");
  }
  auto prefix = tokenizer.Encode(text->substr(0, at));
  auto tail = tokenizer.Encode(
      text->substr(at + std::char_traits<char>::length(kDocuments)));
  if (!prefix.ok()) return prefix.status();
  if (!tail.ok()) return tail.status();
  return Frame{*std::move(prefix), *std::move(tail)};
}

class Bench {
 public:
  Bench(const BlendOptions& options, const model::Llama& llama,
        const model::Tokenizer& tokenizer)
      : options_(options),
        tokenizer_(tokenizer),
        blender_(llama),
        bed_(llama, blender_) {}

  absl::StatusOr<TaskSamples> Ask(BlendTask task, const Frame& frame) {
    const auto is_token = [&](const std::string& text) {
      const auto tokens = tokenizer_.Encode(text);
      return tokens.ok() && tokens->size() == 1;
    };
    auto cases = BlendCases::Create(
        is_token, options_.seed * 1000 + static_cast<uint64_t>(task));
    if (!cases.ok()) return cases.status();
    TaskSamples samples;
    samples.name = std::string(NameOf(task));
    samples.asks = true;
    while (samples.items < options_.questions) {
      Show(samples, options_.questions);
      if (absl::Status s =
              Compose(cases->Draw(task, options_.documents), frame);
          !s.ok()) {
        return s;
      }
      if (absl::Status s = MeasureNext(samples); !s.ok()) return s;
    }
    return samples;
  }

  absl::StatusOr<TaskSamples> Read(const Frame& frame) {
    const auto windows = Windows();
    if (!windows.ok()) return windows.status();
    TaskSamples samples;
    samples.name =
        absl::StrCat("text ", options_.chunks, "x", options_.chunk_tokens);
    for (const auto& window : *windows) {
      Show(samples, options_.windows);
      if (absl::Status s = Compose(window, frame); !s.ok()) return s;
      if (absl::Status s = MeasureNext(samples); !s.ok()) return s;
    }
    return samples;
  }

 private:
  void Show(const TaskSamples& samples, int items) const {
    progress_.Show(samples.name, static_cast<double>(samples.items) / items,
                   static_cast<int>(std::accumulate(
                       samples.tokens.begin(), samples.tokens.end(), 0.0)));
  }
  absl::Status MeasureNext(TaskSamples& samples) {
    const absl::Status status =
        Measure(bed_, options_.seed + samples.tokens.size(), samples);
    if (status.ok()) return status;
    return absl::Status(status.code(),
                        absl::StrCat(samples.name, ": ", status.message()));
  }

  absl::Status Compose(const BlendCase& drawn, const Frame& frame) {
    std::vector<std::vector<int32_t>> chunks;
    for (const std::string& chunk : drawn.chunks) {
      auto tokens = tokenizer_.Encode(chunk);
      if (!tokens.ok()) return tokens.status();
      chunks.push_back(*std::move(tokens));
    }
    std::vector<BlendItem> items;
    for (const BlendQuestion& question : drawn.questions) {
      BlendItem item;
      item.query = frame.tail;
      const auto begins = tokenizer_.Encode(question.begins);
      if (!begins.ok()) return begins.status();
      item.query.insert(item.query.end(), begins->begin(), begins->end());
      for (const std::string& candidate : question.candidates) {
        const auto token = tokenizer_.Encode(absl::StrCat(" ", candidate));
        if (!token.ok()) return token.status();
        item.candidates.push_back(token->front());
        if (candidate == question.answer) item.answer = token->front();
      }
      items.push_back(std::move(item));
    }
    return bed_.Compose(frame.prefix, chunks, std::move(items));
  }

  size_t WindowTokens() const {
    return static_cast<size_t>(options_.chunks) * options_.chunk_tokens +
           kQueryTokens + kAfterTokens;
  }

  // Windows spread evenly over each text, in turn.
  absl::StatusOr<std::vector<std::vector<int32_t>>> Windows() const {
    std::vector<std::vector<int32_t>> windows;
    for (size_t i = 0; i < options_.texts.size(); ++i) {
      const auto text = cli::ReadText(options_.texts[i]);
      if (!text.ok()) return text.status();
      const auto tokens = tokenizer_.Encode(*text);
      if (!tokens.ok()) return tokens.status();
      const size_t count = (options_.windows + options_.texts.size() - 1 - i) /
                           options_.texts.size();
      if (tokens->size() < count * WindowTokens()) {
        return absl::InvalidArgumentError(absl::StrCat(
            options_.texts[i], " has ", tokens->size(), " tokens, and ", count,
            " windows take ", count * WindowTokens()));
      }
      for (size_t window = 0; window < count; ++window) {
        const size_t at = tokens->size() / count * window;
        windows.emplace_back(tokens->begin() + at,
                             tokens->begin() + at + WindowTokens());
      }
    }
    return windows;
  }

  absl::Status Compose(const std::vector<int32_t>& window, const Frame& frame) {
    std::vector<std::vector<int32_t>> chunks;
    auto next = window.begin();
    for (int i = 0; i < options_.chunks; ++i, next += options_.chunk_tokens) {
      chunks.emplace_back(next, next + options_.chunk_tokens);
    }
    BlendItem item;
    item.query = {next, next + kQueryTokens};
    item.after = {next + kQueryTokens, window.end()};
    return bed_.Compose(frame.prefix, chunks, {std::move(item)});
  }

  const BlendOptions& options_;
  const model::Tokenizer& tokenizer_;
  blend::Blender blender_;
  BlendBed bed_;
  cli::ProgressBar progress_;
};

// The figures over all tasks.
Json Summary(const BlendOptions& options,
             const std::vector<TaskSamples>& tasks) {
  Json json = {{"benchmark", "blend"},
               {"model", NameOfDirectory(options.model)},
               {"seed", options.seed},
               {"default_selection", DefaultSelection()->name()}};
  for (const double ratio : kRatios) {
    const auto recovered = RecoveredOverAll(tasks, ratio);
    const auto percent = static_cast<int>(std::lround(ratio * 100));
    Json& entry = json[absl::StrCat("recovered_at_", percent)];
    entry = kNotMeasured;
    if (recovered.has_value()) entry = *recovered;
  }
  json["ttft_ratio"] = kNotMeasured;
  json["requests_ratio"] = kNotMeasured;
  return json;
}

}  // namespace

absl::Status RunBlendBench(const BlendOptions& options) {
  if (options.questions == 0 && options.texts.empty()) {
    return absl::InvalidArgumentError(
        "there is nothing to measure: ask questions, or name texts");
  }
  auto llama = model::Llama::Load(options.model, {});
  if (!llama.ok()) return llama.status();
  auto tokenizer = model::Tokenizer::Load(options.model);
  if (!tokenizer.ok()) return tokenizer.status();
  const auto frame = FrameOf(*tokenizer);
  if (!frame.ok()) return frame.status();
  Bench bench(options, **llama, *tokenizer);
  std::vector<TaskSamples> tasks;
  if (options.questions > 0) {
    for (const BlendTask task : kBlendTasks) {
      auto samples = bench.Ask(task, *frame);
      if (!samples.ok()) return samples.status();
      tasks.push_back(*std::move(samples));
    }
  }
  if (!options.texts.empty()) {
    auto samples = bench.Read(*frame);
    if (!samples.ok()) return samples.status();
    tasks.push_back(*std::move(samples));
  }
  Json json = Summary(options, tasks);
  double exact_kl = 0;
  for (const TaskSamples& task : tasks) {
    exact_kl = std::max(exact_kl, task.exact.most_kl());
    json["tasks"].push_back(ToJson(task));
  }
  json["exact_kl"] = exact_kl;
  return PrintReport(json, options.json);
}

}  // namespace kdn::bench
