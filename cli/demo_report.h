#ifndef KDN_CLI_DEMO_REPORT_H_
#define KDN_CLI_DEMO_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/demo_questions.h"
#include "cli/knowledge_engine.h"
#include "kv/level.h"

// What `kdn demo` shows of its results. Pure.
namespace kdn::cli {

struct DemoAnswer {
  Answer answer;
  std::string said;  // the part of the answer's text that counts
  bool right = false;
};

// All questions, asked while the knowledge came in one way.
struct DemoRound {
  std::string knowledge;            // the way, in words
  std::vector<DemoAnswer> answers;  // one for each question
  uint64_t bytes_stored = 0;  // of one encoded copy of the texts; 0: no copies
};

struct DemoResult {
  std::string model;
  int nodes = 0;
  int texts = 0;
  Injected injected;  // at lossless, all texts together
  std::string killed;
  std::vector<DemoQuestion> questions;
  DemoRound nothing;
  DemoRound prefilled;
  DemoRound lossless;
  DemoRound small;  // at a level with fewer bytes
  DemoRound after_kill;

  // In the order of the demo.
  std::vector<const DemoRound*> rounds() const {
    return {&nothing, &prefilled, &lossless, &small, &after_kill};
  }
};

// The answers of `round` that have the tokens of the answers of `other`.
int SameTokens(const DemoRound& round, const DemoRound& other);

// One line for each round, and a line that explains the columns.
std::string DemoTable(const DemoResult& result);
// The whole answers of all rounds to some of the questions.
std::string DemoAnswers(const DemoResult& result);
nlohmann::json DemoJson(const DemoResult& result);
// What the KDN did wrong, in words. Empty: everything is as it should be.
std::vector<std::string> DemoFailures(const DemoResult& result);

// The text in one line of at most `bytes_max` bytes. A text that is cut ends
// with "...".
std::string OneLine(const std::string& text, size_t bytes_max);

}  // namespace kdn::cli

#endif  // KDN_CLI_DEMO_REPORT_H_
