#ifndef KDN_CLI_INJECT_PLAN_H_
#define KDN_CLI_INJECT_PLAN_H_

#include <cstddef>
#include <deque>
#include <vector>

namespace kdn::cli {

// Chunks of one text that are prefilled in one pass.
struct PassPart {
  int text = 0;
  size_t begin = 0;  // chunks of the text
  size_t end = 0;
  bool operator==(const PassPart&) const = default;
};

// Which chunks of which texts are prefilled next. The texts come in their
// order, so that each is done as early as possible; the rest of a pass goes to
// the texts behind, so that short texts share passes. Decides and waits for
// nothing.
class InjectPlan {
 public:
  // Passes of at most this many tokens, unless one chunk has more.
  explicit InjectPlan(int tokens_max) : tokens_max_(tokens_max) {}

  // Adds the chunks of a text behind the texts before: the tokens of each.
  void Add(int text, std::vector<int> chunk_tokens);
  bool empty() const { return texts_.empty(); }
  // The next pass; a text comes in it once. Empty when no chunk is left.
  std::vector<PassPart> NextPass();

 private:
  struct Text {
    int number = 0;
    std::vector<int> chunk_tokens;
    size_t next = 0;
  };

  const int tokens_max_;
  std::deque<Text> texts_;  // those with chunks that are in no pass yet
};

}  // namespace kdn::cli

#endif  // KDN_CLI_INJECT_PLAN_H_
