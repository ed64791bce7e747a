#include "cli/inject_plan.h"

#include <utility>

namespace kdn::cli {

void InjectPlan::Add(int text, std::vector<int> chunk_tokens) {
  if (chunk_tokens.empty()) return;
  texts_.push_back(Text{text, std::move(chunk_tokens), 0});
}

std::vector<PassPart> InjectPlan::NextPass() {
  std::vector<PassPart> pass;
  int tokens = 0;
  while (!texts_.empty()) {
    Text& text = texts_.front();
    PassPart part{text.number, text.next, text.next};
    while (
        part.end < text.chunk_tokens.size() &&
        (tokens == 0 || tokens + text.chunk_tokens[part.end] <= tokens_max_)) {
      tokens += text.chunk_tokens[part.end++];
    }
    if (part.end > part.begin) pass.push_back(part);
    text.next = part.end;
    if (text.next < text.chunk_tokens.size()) break;  // the pass is full
    texts_.pop_front();
  }
  return pass;
}

}  // namespace kdn::cli
