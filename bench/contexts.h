#ifndef KDN_BENCH_CONTEXTS_H_
#define KDN_BENCH_CONTEXTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/tokenizer.h"

namespace kdn::bench {

// What a model reads behind a context.
struct Continuation {
  std::vector<int32_t> tokens;
  // The number of tokens at the end that are the answer to a question. 0: the
  // continuation asks nothing, and the logits of all its tokens are compared.
  int answer = 0;
};

// A text whose KV is coded, and what the model reads behind it.
struct Context {
  std::vector<int32_t> tokens;
  std::vector<Continuation> continuations;

  // Whether the logits behind this context are compared. The coded size is
  // measured on these contexts.
  bool compares() const;
};

// How much of a text to use.
struct ContextLimits {
  int instances = 1 << 30;  // of eval.jsonl
  int questions = 1 << 30;  // of an instance
  int windows = 8;          // of texts
};

// The tasks of a recall model's eval.jsonl: the documents of an instance and
// its questions. Some instances together make a long context, whose logits are
// compared. NOT_FOUND when there is no file; INVALID_ARGUMENT when it is
// damaged.
absl::StatusOr<std::vector<Context>> RecallContexts(
    const model::Tokenizer& tokenizer, const std::string& file,
    const ContextLimits& limits);

// Windows of texts, spread evenly: each file has windows in proportion to its
// length, and at least one. Three sentences that say where a password belongs
// are hidden in each window (needles, always the same ones), and the model is
// asked for them behind the window. INVALID_ARGUMENT when a file is too short
// for its windows.
absl::StatusOr<std::vector<Context>> TextContexts(
    const model::Tokenizer& tokenizer, absl::Span<const std::string> files,
    const ContextLimits& limits);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CONTEXTS_H_
