#ifndef KDN_MODEL_TOKENIZER_TOKEN_TRIE_H_
#define KDN_MODEL_TOKENIZER_TOKEN_TRIE_H_

#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace kdn::model {

// A set of texts that finds the leftmost of them in another text, and of those
// that begin there, the longest. Thread-compatible.
class TokenTrie {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t value = 0;
  };

  // The first value of a text stays. REQUIRES: `text` is not empty.
  void Add(std::string_view text, int32_t value);

  // The first match at or behind byte `from`. Takes a time that is proportional
  // to the bytes passed over, times the longest text of the set at worst.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  static uint64_t Edge(uint32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }
  std::optional<Match> LongestAt(std::string_view text, size_t begin) const;

  std::bitset<256> first_bytes_;
  uint32_t nodes_ = 1;  // node 0 is the root
  absl::flat_hash_map<uint64_t, uint32_t> children_;
  absl::flat_hash_map<uint32_t, int32_t> values_;  // of nodes that end a text
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_TOKEN_TRIE_H_
