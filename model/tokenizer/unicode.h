#ifndef KDN_MODEL_TOKENIZER_UNICODE_H_
#define KDN_MODEL_TOKENIZER_UNICODE_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

// Unicode for the tokenizer, by ICU. Functions of text require valid UTF-8.
namespace kdn::model {

// The first byte of `text` that is not part of valid UTF-8.
std::optional<size_t> InvalidUtf8At(std::string_view text);
// `bytes` with U+FFFD in place of each longest invalid sequence.
std::string ReplaceInvalidUtf8(std::string_view bytes);

// The code point that begins at byte `at`. Moves `at` behind it.
// REQUIRES: at < text.size().
char32_t NextCodePoint(std::string_view text, size_t& at);
// The code point that ends before byte `at`. Moves `at` to its begin.
// REQUIRES: at > 0.
char32_t PreviousCodePoint(std::string_view text, size_t& at);
void AppendUtf8(char32_t code_point, std::string& text);

bool IsWhitespace(char32_t c);     // the property White_Space
bool IsNumeric(char32_t c);        // the categories Nd, Nl, No
bool IsPunctuation(char32_t c);    // of ASCII, or P? of Unicode 8.0
bool IsCombiningMark(char32_t c);  // Mn, Mc, Me of Unicode 9.0
// The class \w of Unicode regular expressions (UTS #18, annex C).
bool IsWordCharacter(char32_t c);

// Each code point in lower case by itself, without regard to its neighbours.
std::string ToLowercase(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// By Unicode 9.0: characters that came later stay as they are.
absl::StatusOr<std::string> Normalize(NormalForm form, std::string_view text);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_UNICODE_H_
