#include "model/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

bool EndsWithWord(std::string_view text) {
  size_t at = text.size();
  return at > 0 && IsWordCharacter(PreviousCodePoint(text, at));
}

bool StartsWithWord(std::string_view text) {
  size_t at = 0;
  return !text.empty() && IsWordCharacter(NextCodePoint(text, at));
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const Json& json,
                                               const Vocabulary& vocabulary,
                                               const Normalizer& normalizer) {
  AddedTokens added;
  if (json.is_null()) return added;
  if (!json.is_array()) return Malformed("added_tokens", "expected a list");
  std::vector<Token> tokens;
  for (size_t i = 0; i < json.size(); ++i) {
    absl::StatusOr<Token> token =
        ParseToken(json[i], absl::StrCat("added_tokens[", i, "]"));
    if (!token.ok()) return token.status();
    // The library leaves empty tokens out.
    if (!token->content.empty()) tokens.push_back(*std::move(token));
  }
  for (const Token& token : tokens) added.Add(token, vocabulary);
  if (absl::Status status = added.Index(tokens, normalizer); !status.ok()) {
    return status;
  }
  return added;
}

absl::StatusOr<AddedTokens::Token> AddedTokens::ParseToken(
    const Json& json, const std::string& path) {
  Fields fields(json, path);
  Token token;
  fields.Integer("id", 0, kTokenIdMax);
  token.content = fields.Text("content");
  token.single_word = fields.Bool("single_word", false);
  token.strip_left = fields.Bool("lstrip", false);
  token.strip_right = fields.Bool("rstrip", false);
  token.special = fields.Bool("special", false);
  token.normalized = fields.Bool("normalized", !token.special);
  if (!fields.status().ok()) return fields.status();
  return token;
}

void AddedTokens::Add(const Token& token, const Vocabulary& vocabulary) {
  const auto known = ids_.find(token.content);
  int32_t id = 0;
  if (known != ids_.end()) {
    id = known->second;
  } else if (const std::optional<int32_t> old =
                 vocabulary.Find(token.content)) {
    id = *old;
  } else {
    id = std::max(id_end_, static_cast<int32_t>(vocabulary.size()));
  }
  ids_[token.content] = id;
  tokens_[id] = token;
  id_end_ = std::max(id_end_, id + 1);
}

absl::Status AddedTokens::Index(const std::vector<Token>& tokens,
                                const Normalizer& normalizer) {
  const auto index = [&](const Token& token) -> absl::Status {
    const int32_t id = ids_.at(token.content);
    if (!token.normalized) {
      raw_.Add(token.content, id);
      return absl::OkStatus();
    }
    NormalText text{token.content, true};
    if (absl::Status s = normalizer.Apply(text); !s.ok()) return s;
    if (!text.text.empty()) normalized_.Add(text.text, id);
    return absl::OkStatus();
  };
  // Of two tokens that look the same, the special one counts, then the earlier.
  absl::flat_hash_set<std::string> special;
  for (const Token& token : tokens) {
    if (!token.special || !special.insert(token.content).second) continue;
    if (absl::Status status = index(token); !status.ok()) return status;
  }
  for (const Token& token : tokens) {
    if (special.contains(token.content)) continue;
    if (absl::Status status = index(token); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::optional<AddedTokens::Range> AddedTokens::RangeOf(
    const TokenTrie::Match& match, std::string_view text, size_t done) const {
  const Token& token = tokens_.at(match.value);
  if (token.single_word && (EndsWithWord(text.substr(0, match.begin)) ||
                            StartsWithWord(text.substr(match.end)))) {
    return std::nullopt;
  }
  Range range{match.begin, match.end};
  if (token.strip_left) {
    for (size_t at = range.begin; at > done; range.begin = at) {
      if (!IsWhitespace(PreviousCodePoint(text, at))) break;
    }
    range.begin = std::max(range.begin, done);
  }
  if (token.strip_right) {
    for (size_t at = range.end; at < text.size(); range.end = at) {
      if (!IsWhitespace(NextCodePoint(text, at))) break;
    }
  }
  return range;
}

absl::Status AddedTokens::Cut(
    Stage stage, std::string_view text,
    absl::FunctionRef<absl::Status(std::string_view, bool)> on_text,
    absl::FunctionRef<void(int32_t)> on_token) const {
  const TokenTrie& trie = stage == Stage::kRaw ? raw_ : normalized_;
  size_t done = 0;  // end of the last token
  auto match = trie.Find(text, 0);
  for (; match; match = trie.Find(text, match->end)) {
    const std::optional<Range> range = RangeOf(*match, text, done);
    if (!range) continue;
    if (done < range->begin) {
      if (absl::Status status =
              on_text(text.substr(done, range->begin - done), done == 0);
          !status.ok()) {
        return status;
      }
    }
    on_token(match->value);
    done = range->end;
  }
  if (done < text.size()) return on_text(text.substr(done), done == 0);
  return absl::OkStatus();
}

const std::string* AddedTokens::TextOf(int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second.content;
}

}  // namespace kdn::model
