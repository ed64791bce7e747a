#include "model/tokenizer/token_trie.h"

namespace kdn::model {

void TokenTrie::Add(std::string_view text, int32_t value) {
  first_bytes_.set(static_cast<uint8_t>(text.front()));
  uint32_t node = 0;
  for (char byte : text) {
    const auto [child, added] = children_.try_emplace(Edge(node, byte), nodes_);
    if (added) ++nodes_;
    node = child->second;
  }
  values_.try_emplace(node, value);
}

std::optional<TokenTrie::Match> TokenTrie::LongestAt(std::string_view text,
                                                     size_t begin) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto child = children_.find(Edge(node, text[at]));
    if (child == children_.end()) break;
    node = child->second;
    const auto value = values_.find(node);
    if (value != values_.end()) longest = Match{begin, at + 1, value->second};
  }
  return longest;
}

std::optional<TokenTrie::Match> TokenTrie::Find(std::string_view text,
                                                size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!first_bytes_.test(static_cast<uint8_t>(text[at]))) continue;
    if (const auto match = LongestAt(text, at)) return match;
  }
  return std::nullopt;
}

}  // namespace kdn::model
