#include "model/tokenizer/pre_tokenizer.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/metaspace.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

// The pattern of GPT-2, which ByteLevel uses.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status SplitAt(const Pattern& pattern, SplitBehavior behavior,
                     bool invert, Piece piece, PreTokenizer::Visit visit) {
  std::vector<Span> spans;
  if (absl::Status status = pattern.Find(piece.text, spans); !status.ok()) {
    return status;
  }
  Cut(behavior, invert, spans);
  for (const Span& span : spans) {
    const Piece part{piece.text.substr(span.begin, span.end - span.begin),
                     piece.at_front && span.begin == 0};
    if (absl::Status status = visit(part); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Pieces of the Whitespace pre-tokenizer: runs of word characters, and runs of
// other characters that are not white space.
absl::Status SplitAtWords(Piece piece, PreTokenizer::Visit visit) {
  const std::string_view text = piece.text;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t first = NextCodePoint(text, at);
    const bool space = IsWhitespace(first);
    const bool word = IsWordCharacter(first);
    for (size_t next = at; next < text.size(); at = next) {
      const char32_t c = NextCodePoint(text, next);
      if (IsWhitespace(c) != space || IsWordCharacter(c) != word) break;
    }
    if (space) continue;
    const Piece part{text.substr(begin, at - begin),
                     piece.at_front && begin == 0};
    if (absl::Status status = visit(part); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const Json& json) {
  PreTokenizer pre_tokenizer;
  if (json.is_null()) return pre_tokenizer;
  if (absl::Status status = pre_tokenizer.Add(json, "pre_tokenizer", 0);
      !status.ok()) {
    return status;
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::Split(Piece piece, Visit visit) const {
  return RunFrom(0, piece, visit);
}

absl::Status PreTokenizer::RunFrom(size_t step, Piece piece,
                                   Visit visit) const {
  if (piece.text.empty()) return absl::OkStatus();
  if (step == steps_.size()) return visit(piece);
  return steps_[step](
      piece, [&](Piece part) { return RunFrom(step + 1, part, visit); });
}

absl::Status PreTokenizer::Add(const Json& json, const std::string& path,
                               int depth) {
  Fields fields(json, path);
  if (!fields.status().ok()) return fields.status();
  const std::string type = fields.Type();
  if (type == "Sequence") return AddSequence(fields, depth);
  if (type == "ByteLevel") return AddByteLevel(fields);
  if (type == "Split") return AddSplit(fields);
  if (type == "Metaspace") return AddMetaspace(fields);
  if (type == "Punctuation") return AddPunctuation(fields);
  if (type == "Digits") {
    AddPattern(Pattern(IsNumeric), fields.Bool("individual_digits")
                                       ? SplitBehavior::kIsolated
                                       : SplitBehavior::kContiguous);
  } else if (type == "Whitespace") {
    steps_.push_back(SplitAtWords);
  } else if (type == "WhitespaceSplit") {
    AddPattern(Pattern(IsWhitespace), SplitBehavior::kRemoved);
  } else if (type == "CharDelimiterSplit") {
    std::string delimiter = fields.Character("delimiter");
    if (!fields.status().ok()) return fields.status();
    AddPattern(Pattern(std::move(delimiter)), SplitBehavior::kRemoved);
  } else {
    return Unsupported(path, absl::StrCat("type '", type, "'"));
  }
  return fields.status();
}

void PreTokenizer::AddPattern(Pattern pattern, SplitBehavior behavior,
                              bool invert) {
  steps_.push_back([pattern = std::move(pattern), behavior, invert](
                       Piece piece, Visit visit) {
    return SplitAt(pattern, behavior, invert, piece, visit);
  });
}

absl::Status PreTokenizer::AddSequence(Fields& fields, int depth) {
  return ForEachPart(
      fields, "pretokenizers", depth,
      [this](const Json& part, const std::string& path, int part_depth) {
        return Add(part, path, part_depth);
      });
}

absl::Status PreTokenizer::AddByteLevel(Fields& fields) {
  if (fields.Bool("add_prefix_space", false)) {
    steps_.push_back([](Piece piece, Visit visit) {
      if (piece.text.front() == ' ') return visit(piece);
      const std::string text = absl::StrCat(" ", std::string(piece.text));
      return visit({text, piece.at_front});
    });
  }
  if (fields.Bool("use_regex", true)) {
    absl::StatusOr<Regex> regex = Regex::Compile(kGpt2Pattern);
    if (!regex.ok()) return regex.status();
    AddPattern(Pattern(*std::move(regex)), SplitBehavior::kIsolated);
  }
  steps_.push_back([](Piece piece, Visit visit) {
    const std::string text = ToStandIns(piece.text);
    return visit({text, piece.at_front});
  });
  return fields.status();
}

absl::Status PreTokenizer::AddSplit(Fields& fields) {
  absl::StatusOr<Pattern> pattern = Pattern::Parse(fields);
  if (!pattern.ok()) return pattern.status();
  const bool invert = fields.Bool("invert", false);
  const absl::StatusOr<SplitBehavior> behavior = ParseSplitBehavior(fields);
  if (!behavior.ok()) return behavior.status();
  AddPattern(*std::move(pattern), *behavior, invert);
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddPunctuation(Fields& fields) {
  SplitBehavior behavior = SplitBehavior::kIsolated;
  if (fields.Has("behavior")) {
    const absl::StatusOr<SplitBehavior> named = ParseSplitBehavior(fields);
    if (!named.ok()) return named.status();
    behavior = *named;
  }
  AddPattern(Pattern(IsPunctuation), behavior);
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddMetaspace(Fields& fields) {
  absl::StatusOr<Metaspace> metaspace = Metaspace::Parse(fields);
  if (!metaspace.ok()) return metaspace.status();
  steps_.push_back([metaspace = *metaspace](Piece piece, Visit visit) {
    std::string text = absl::StrReplaceAll(std::string(piece.text),
                                           {{" ", metaspace.replacement}});
    const bool prepend =
        metaspace.prepend == Metaspace::Prepend::kAlways ||
        (metaspace.prepend == Metaspace::Prepend::kFirst && piece.at_front);
    if (prepend && !absl::StartsWith(text, metaspace.replacement)) {
      text.insert(0, metaspace.replacement);
    }
    return visit({text, piece.at_front});
  });
  if (metaspace->split) {
    AddPattern(Pattern(metaspace->replacement), SplitBehavior::kMergedWithNext);
  }
  return absl::OkStatus();
}

}  // namespace kdn::model
