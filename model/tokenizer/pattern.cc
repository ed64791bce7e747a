#include "model/tokenizer/pattern.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

// Adds a match and the text between it and the last part.
void AddMatch(size_t begin, size_t end, std::vector<Span>& spans) {
  const size_t last = spans.empty() ? 0 : spans.back().end;
  if (last < begin) spans.push_back({last, begin, false});
  spans.push_back({begin, end, true});
}

void FindText(std::string_view wanted, std::string_view text,
              std::vector<Span>& spans) {
  size_t at = text.find(wanted);
  while (at != std::string_view::npos) {
    AddMatch(at, at + wanted.size(), spans);
    at = text.find(wanted, at + wanted.size());
  }
}

void FindClass(Pattern::Class has, std::string_view text,
               std::vector<Span>& spans) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (has(NextCodePoint(text, at))) AddMatch(begin, at, spans);
  }
}

// Merges each match into the part before it, unless that is a match too.
void MergeWithPrevious(std::vector<Span>& spans) {
  std::vector<Span> pieces;
  bool previous_match = false;
  for (const Span& span : spans) {
    if (span.match && !previous_match && !pieces.empty()) {
      pieces.back().end = span.end;
    } else {
      pieces.push_back(span);
    }
    previous_match = span.match;
  }
  spans = std::move(pieces);
}

void MergeWithNext(std::vector<Span>& spans) {
  std::vector<Span> pieces;  // from right to left
  bool next_match = false;
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    if (span->match && !next_match && !pieces.empty()) {
      pieces.back().begin = span->begin;
    } else {
      pieces.push_back(*span);
    }
    next_match = span->match;
  }
  std::reverse(pieces.begin(), pieces.end());
  spans = std::move(pieces);
}

void MergeNeighbours(std::vector<Span>& spans) {
  std::vector<Span> pieces;
  for (const Span& span : spans) {
    if (!pieces.empty() && pieces.back().match == span.match) {
      pieces.back().end = span.end;
    } else {
      pieces.push_back(span);
    }
  }
  spans = std::move(pieces);
}

}  // namespace

absl::StatusOr<Pattern> Pattern::Parse(Fields& fields) {
  Fields pattern(fields.Object("pattern"), fields.PathOf("pattern"));
  if (!fields.status().ok()) return fields.status();
  if (pattern.Has("String")) {
    std::string text = pattern.Text("String");
    if (!pattern.status().ok()) return pattern.status();
    if (text.empty()) return Unsupported(pattern.path(), "an empty String");
    return Pattern(std::move(text));
  }
  const std::string expression = pattern.Text("Regex");
  if (!pattern.status().ok()) return pattern.status();
  absl::StatusOr<Regex> regex = Regex::Compile(expression);
  if (absl::IsInvalidArgument(regex.status())) {
    return Malformed(pattern.path(), std::string(regex.status().message()));
  }
  if (!regex.ok()) return regex.status();
  return Pattern(*std::move(regex));
}

absl::Status Pattern::Find(std::string_view text,
                           std::vector<Span>& spans) const {
  spans.clear();
  if (const auto* wanted = std::get_if<std::string>(&what_)) {
    FindText(*wanted, text, spans);
  } else if (const auto* regex = std::get_if<Regex>(&what_)) {
    if (absl::Status status = regex->ForEachMatch(
            text,
            [&](size_t begin, size_t end) { AddMatch(begin, end, spans); });
        !status.ok()) {
      return status;
    }
  } else {
    FindClass(std::get<Class>(what_), text, spans);
  }
  const size_t last = spans.empty() ? 0 : spans.back().end;
  if (last < text.size()) spans.push_back({last, text.size(), false});
  return absl::OkStatus();
}

absl::StatusOr<SplitBehavior> ParseSplitBehavior(Fields& fields) {
  const std::string name = fields.Text("behavior");
  if (!fields.status().ok()) return fields.status();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Malformed(fields.PathOf("behavior"),
                   absl::StrCat("'", name, "' is not known"));
}

void Cut(SplitBehavior behavior, bool invert, std::vector<Span>& spans) {
  if (invert) {
    for (Span& span : spans) span.match = !span.match;
  }
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& span) { return span.match; });
      return;
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kMergedWithPrevious:
      return MergeWithPrevious(spans);
    case SplitBehavior::kMergedWithNext:
      return MergeWithNext(spans);
    case SplitBehavior::kContiguous:
      return MergeNeighbours(spans);
  }
}

}  // namespace kdn::model
