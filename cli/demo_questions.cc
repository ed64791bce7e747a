#include "cli/demo_questions.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace kdn::cli {
namespace {

// The string of a field; empty when the field is missing or no string.
std::string StringOf(const nlohmann::json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_string() ? found->get<std::string>()
                                                     : std::string();
}

std::vector<std::string> ValuesOf(const nlohmann::json& object) {
  const auto found = object.find("answer");
  if (found == object.end()) return {};
  if (found->is_string()) return {found->get<std::string>()};
  std::vector<std::string> values;
  for (const nlohmann::json& each : *found) {
    values.push_back(each.is_string() ? each.get<std::string>() : "");
  }
  return values;
}

bool IsEmpty(const std::string& text) { return text.empty(); }

std::optional<DemoQuestion> ParseLine(absl::string_view line) {
  const nlohmann::json json =
      nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  DemoQuestion parsed{StringOf(json, "file"), StringOf(json, "section"),
                      StringOf(json, "question"), ValuesOf(json)};
  const bool whole =
      !parsed.file.empty() && !parsed.question.empty() &&
      !parsed.values.empty() &&
      std::none_of(parsed.values.begin(), parsed.values.end(), IsEmpty);
  if (!whole) return std::nullopt;
  return parsed;
}

// Whether a word or a number goes on across the border between the characters
// at `left` and `left` + 1. A point, a comma or a colon between two digits is a
// part of a number.
bool GoesOnAcross(absl::string_view text, size_t left) {
  const auto digit = [&](size_t at) {
    return at < text.size() && absl::ascii_isdigit(text[at]);
  };
  const auto inside = [&](size_t at) {
    return absl::StrContains(".,:", text.substr(at, 1)) && at > 0 &&
           digit(at - 1) && digit(at + 1);
  };
  if (left + 1 >= text.size()) return false;
  const bool words =
      absl::ascii_isalnum(text[left]) && absl::ascii_isalnum(text[left + 1]);
  return words || inside(left) || inside(left + 1);
}

bool HasWhole(absl::string_view text, absl::string_view value) {
  for (size_t at = text.find(value); at != absl::string_view::npos;
       at = text.find(value, at + 1)) {
    const bool begins = at == 0 || !GoesOnAcross(text, at - 1);
    if (begins && !GoesOnAcross(text, at + value.size() - 1)) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<DemoQuestion>> ParseDemoQuestions(
    const std::string& lines, const std::string& name) {
  std::vector<DemoQuestion> questions;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
    ++number;
    if (line.empty()) continue;
    std::optional<DemoQuestion> question = ParseLine(line);
    if (!question) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, ":", number,
          ": expected a JSON object with the strings file and question, and "
          "answer, a string or a list of strings"));
    }
    if (HasAnswer(question->question, question->values)) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, ":", number, ": the question has its answer in it"));
    }
    questions.push_back(*std::move(question));
  }
  if (questions.empty()) {
    return absl::NotFoundError(absl::StrCat(name, " has no questions"));
  }
  return questions;
}

absl::StatusOr<std::string> SectionOf(const std::string& text,
                                      const std::string& heading) {
  std::string section;
  bool inside = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (inside && absl::StartsWith(line, "## ")) break;
    inside = inside || line == heading;
    if (inside) absl::StrAppend(&section, line, "\n");
  }
  if (!inside) {
    return absl::NotFoundError(absl::StrCat("no line is '", heading, "'"));
  }
  absl::StripTrailingAsciiWhitespace(&section);
  return section + "\n";
}

bool HasAnswer(const std::string& said,
               const std::vector<std::string>& values) {
  const std::string text = absl::AsciiStrToLower(said);
  return std::any_of(values.begin(), values.end(),
                     [&](const std::string& value) {
                       return HasWhole(text, absl::AsciiStrToLower(value));
                     });
}

}  // namespace kdn::cli
