#ifndef KDN_MODEL_TOKENIZER_ADDED_TOKENS_H_
#define KDN_MODEL_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/token_trie.h"
#include "model/tokenizer/vocabulary.h"

namespace kdn::model {

// The `added_tokens` of a tokenizer.json: tokens that are found in a text
// before the text is split. Immutable after Parse; thread-safe.
class AddedTokens {
 public:
  // The two sets of tokens. Those of the first are searched for in the text as
  // it came in. The texts between them are normalized, and those of the second
  // are searched for in the result.
  enum class Stage { kRaw, kNormalized };

  // Null gives no tokens. A token that `vocabulary` has keeps the id it has
  // there. Another token gets the next free id, whatever id the file gives: so
  // does the tokenizers library. INVALID_ARGUMENT names the malformed part.
  static absl::StatusOr<AddedTokens> Parse(const Json& json,
                                           const Vocabulary& vocabulary,
                                           const Normalizer& normalizer);

  // Cuts `text` at the tokens of one stage. Calls `on_text` with the texts
  // between the tokens, and `on_token` with the ids of the tokens, in order.
  // The first error of `on_text` ends the call.
  absl::Status Cut(
      Stage stage, std::string_view text,
      absl::FunctionRef<absl::Status(std::string_view text, bool at_front)>
          on_text,
      absl::FunctionRef<void(int32_t id)> on_token) const;

  // The text of an added token; nullptr if no added token has this id.
  const std::string* TextOf(int32_t id) const;
  // One more than the largest id.
  int32_t id_end() const { return id_end_; }

 private:
  struct Token {
    std::string content;
    bool single_word = false;
    bool strip_left = false;
    bool strip_right = false;
    bool normalized = false;
    bool special = false;

    bool operator==(const Token&) const = default;
  };
  struct Range {
    size_t begin;
    size_t end;
  };

  static absl::StatusOr<Token> ParseToken(const Json& json,
                                          const std::string& path);
  void Add(const Token& token, const Vocabulary& vocabulary);
  absl::Status Index(const std::vector<Token>& tokens,
                     const Normalizer& normalizer);
  // The bytes that a match takes; nothing if it must be a whole word and is
  // none. Text before `done` belongs to an earlier token.
  std::optional<Range> RangeOf(const TokenTrie::Match& match,
                               std::string_view text, size_t done) const;

  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<int32_t, Token> tokens_;
  TokenTrie raw_;
  TokenTrie normalized_;
  int32_t id_end_ = 0;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_ADDED_TOKENS_H_
