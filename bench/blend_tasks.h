#ifndef KDN_BENCH_BLEND_TASKS_H_
#define KDN_BENCH_BLEND_TASKS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kdn::bench {

// What a task needs of the texts before a text.
enum class BlendTask {
  kLocal,    // nothing: the fact stands in one chunk, beside others of its form
  kSurname,  // nothing: the first name stands right before it. The control.
  kPronoun,  // "He was born in ...": the name stands in the chunk before
  kAlias,    // "Agent Fox was born in ...": declared in the chunk before
};
inline constexpr BlendTask kBlendTasks[] = {
    BlendTask::kLocal, BlendTask::kSurname, BlendTask::kPronoun,
    BlendTask::kAlias};
std::string_view NameOf(BlendTask task);

// The assistant's turn begins with `begins`, and should go on with `answer`,
// which is one of `candidates`. All candidates are one token each.
struct BlendQuestion {
  std::string begins;
  std::string answer;
  std::vector<std::string> candidates;
};

// Texts to be composed, and questions about them.
struct BlendCase {
  std::vector<std::string> chunks;
  std::vector<BlendQuestion> questions;
};

// Draws cases in plain English. Equal seeds give equal cases, for tokenizers
// that have the same words as tokens.
class BlendCases {
 public:
  // `is_token` says whether a text is one token: answers are compared by one
  // token. FAILED_PRECONDITION when too few words are.
  static absl::StatusOr<BlendCases> Create(
      absl::FunctionRef<bool(const std::string&)> is_token, uint64_t seed);
  // A case with this many documents. REQUIRES: 1 to kDocumentsMax.
  BlendCase Draw(BlendTask task, int documents);
  static constexpr int kDocumentsMax = 6;

 private:
  using Words = std::vector<std::string>;

  explicit BlendCases(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // `count` different words.
  Words Sample(Words words, int count);
  std::string Filler(int sentences);

  uint64_t state_;
  Words first_names_;
  Words male_names_;
  Words surnames_;
  Words cities_;
  Words code_names_;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_BLEND_TASKS_H_
