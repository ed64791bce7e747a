#include "model/tokenizer/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"

namespace kdn::model {
namespace {

// The tokenizers library has tables of several versions of Unicode: 9.0 for
// normal forms and combining marks, 8.0 for punctuation. Characters that came
// later have neither for it, and some characters had another category then.
constexpr uint8_t kMarksVersion = 9;
constexpr uint8_t kPunctuationVersion = 8;
// Punctuation in Unicode 8.0, but not today.
constexpr char32_t kCanadianChiSign = 0x166d;
// Marks in Unicode 9.0, but not today.
constexpr char32_t kVedicArdhavisarga = 0x1cf2;
constexpr char32_t kVedicRotatedArdhavisarga = 0x1cf3;
// A mark today, but punctuation in Unicode 8.0 and 9.0.
constexpr char32_t kSharadaSandhiMark = 0x111c9;

bool IsIn(uint8_t version, char32_t c) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= version;
}

struct Range {
  char32_t first;
  char32_t last;
};

// The word characters that Unicode 15.1 and 16.0 have added. The library knows
// them; ICU 72, of Unicode 15.0, does not.
constexpr Range kNewWordCharacters[] = {
    {0x0897, 0x0897},   {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},
    {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d40, 0x10d65},
    {0x10d69, 0x10d6d}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4},
    {0x10efc, 0x10efc}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113c0},
    {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113ca},
    {0x113cc, 0x113d3}, {0x113e1, 0x113e2}, {0x116d0, 0x116e3},
    {0x11bc0, 0x11be0}, {0x11bf0, 0x11bf9}, {0x11f5a, 0x11f5a},
    {0x13460, 0x143fa}, {0x16100, 0x16139}, {0x16d40, 0x16d6c},
    {0x16d70, 0x16d79}, {0x18cff, 0x18cff}, {0x1ccf0, 0x1ccf9},
    {0x1e5d0, 0x1e5fa}, {0x2ebf0, 0x2ee5d}};

bool IsNewWordCharacter(char32_t c) {
  return std::any_of(
      std::begin(kNewWordCharacters), std::end(kNewWordCharacters),
      [c](const Range& range) { return range.first <= c && c <= range.last; });
}

bool HasCategory(char32_t c, uint32_t mask) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & mask) != 0;
}

const icu::Normalizer2* NewestNormalizer(NormalForm form, UErrorCode& error) {
  switch (form) {
    case NormalForm::kNfc:
      return icu::Normalizer2::getNFCInstance(error);
    case NormalForm::kNfd:
      return icu::Normalizer2::getNFDInstance(error);
    case NormalForm::kNfkc:
      return icu::Normalizer2::getNFKCInstance(error);
    case NormalForm::kNfkd:
      return icu::Normalizer2::getNFKDInstance(error);
  }
  return nullptr;
}

// A normalizer that leaves newer characters as they are; nullptr on an error.
template <NormalForm form>
const icu::Normalizer2* NormalizerOf(UErrorCode& error) {
  static UErrorCode made = U_ZERO_ERROR;
  static const icu::Normalizer2* const normalizer = [] {
    auto* known = new icu::UnicodeSet(u"[:age=9.0:]", made);
    known->freeze();
    const icu::Normalizer2* newest = NewestNormalizer(form, made);
    return U_FAILURE(made) ? nullptr
                           : new icu::FilteredNormalizer2(*newest, *known);
  }();
  error = made;
  return normalizer;
}

const icu::Normalizer2* NormalizerOf(NormalForm form, UErrorCode& error) {
  switch (form) {
    case NormalForm::kNfc:
      return NormalizerOf<NormalForm::kNfc>(error);
    case NormalForm::kNfd:
      return NormalizerOf<NormalForm::kNfd>(error);
    case NormalForm::kNfkc:
      return NormalizerOf<NormalForm::kNfkc>(error);
    case NormalForm::kNfkd:
      return NormalizerOf<NormalForm::kNfkd>(error);
  }
  return nullptr;
}

}  // namespace

std::optional<size_t> InvalidUtf8At(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t at = 0; at < size;) {
    const int64_t begin = at;
    UChar32 c = 0;
    U8_NEXT(bytes, at, size, c);
    if (c < 0) return static_cast<size_t>(begin);
  }
  return std::nullopt;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size();) {
    AppendUtf8(NextCodePoint(bytes, at), text);
  }
  return text;
}

char32_t NextCodePoint(std::string_view text, size_t& at) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  UChar32 c = 0;
  U8_NEXT_OR_FFFD(bytes, at, text.size(), c);
  return static_cast<char32_t>(c);
}

char32_t PreviousCodePoint(std::string_view text, size_t& at) {
  do {
    --at;
  } while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80);
  size_t begin = at;
  return NextCodePoint(text, begin);
}

void AppendUtf8(char32_t code_point, std::string& text) {
  uint8_t bytes[U8_MAX_LENGTH];
  int32_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, static_cast<UChar32>(code_point));
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool IsWhitespace(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0;
}

bool IsNumeric(char32_t c) { return HasCategory(c, U_GC_N_MASK); }

bool IsPunctuation(char32_t c) {
  if (c < 0x80) return HasCategory(c, U_GC_P_MASK | U_GC_S_MASK);
  return (HasCategory(c, U_GC_P_MASK) && IsIn(kPunctuationVersion, c)) ||
         c == kCanadianChiSign || c == kSharadaSandhiMark;
}

bool IsCombiningMark(char32_t c) {
  if (c == kSharadaSandhiMark) return false;
  return (HasCategory(c, U_GC_M_MASK) && IsIn(kMarksVersion, c)) ||
         c == kVedicArdhavisarga || c == kVedicRotatedArdhavisarga;
}

bool IsWordCharacter(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  return HasCategory(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(code, UCHAR_ALPHABETIC) != 0 ||
         u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL) != 0 ||
         IsNewWordCharacter(c);
}

std::string ToLowercase(std::string_view text) {
  // The one code point whose full lower case has two code points.
  constexpr char32_t kCapitalIWithDot = 0x130;
  std::string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, at);
    if (c == kCapitalIWithDot) {
      lower += "i\xcc\x87";
    } else {
      AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))),
                 lower);
    }
  }
  return lower;
}

absl::StatusOr<std::string> Normalize(NormalForm form, std::string_view text) {
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes, more than 2^31"));
  }
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<uint8_t>(c) < 0x80; })) {
    return std::string(text);
  }
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = NormalizerOf(form, error);
  std::string normal;
  if (U_SUCCESS(error)) {
    icu::StringByteSink<std::string> sink(&normal,
                                          static_cast<int32_t>(text.size()));
    normalizer->normalizeUTF8(
        0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
        sink, nullptr, error);
  }
  if (U_FAILURE(error)) {
    return absl::InternalError(
        absl::StrCat("ICU cannot normalize: ", u_errorName(error)));
  }
  return normal;
}

}  // namespace kdn::model
