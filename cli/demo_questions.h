#ifndef KDN_CLI_DEMO_QUESTIONS_H_
#define KDN_CLI_DEMO_QUESTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

// The questions of `kdn demo`, and the check of the answers. Pure.
namespace kdn::cli {

struct DemoQuestion {
  std::string file;     // with the text that the question is about
  std::string section;  // a heading of that text; empty: the whole text
  std::string question;
  std::vector<std::string> values;  // a right answer has one of them
};

// Parses one JSON object per line: `file`, `question` and `answer` (a string or
// a list of strings), and perhaps `section`. INVALID_ARGUMENT, naming `name`
// and the line, for anything else, and for a question that has its own answer
// in it. NOT_FOUND when there are no lines.
absl::StatusOr<std::vector<DemoQuestion>> ParseDemoQuestions(
    const std::string& lines, const std::string& name);

// The part of a Markdown text from the line `heading` up to the next line that
// begins with "## ". NOT_FOUND when no line is equal to `heading`.
absl::StatusOr<std::string> SectionOf(const std::string& text,
                                      const std::string& heading);

// Whether `said` has one of the values in it as a whole word or number, in
// upper or lower case: "It is 15 pounds." has "15", "150" and "15.5" have not.
bool HasAnswer(const std::string& said, const std::vector<std::string>& values);

}  // namespace kdn::cli

#endif  // KDN_CLI_DEMO_QUESTIONS_H_
