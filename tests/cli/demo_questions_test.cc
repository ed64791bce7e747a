#include "cli/demo_questions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"

namespace kdn::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string FileText(const std::string& path) {
  std::ifstream file(KDN_SOURCE_DIR "/" + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(HasAnswerTest, FindsTheValueAnywhereInTheAnswer) {
  EXPECT_TRUE(HasAnswer("Dinner is served at 18:45.", {"18:45"}));
  EXPECT_TRUE(HasAnswer("18:45", {"18:45"}));
  EXPECT_TRUE(
      HasAnswer("The password is \"heron-lamp-62\"", {"heron-lamp-62"}));
  EXPECT_TRUE(HasAnswer("called\nPUFFIN, the server", {"Puffin"}));
  EXPECT_TRUE(HasAnswer("It costs 15, or so: 15", {"15"}));
  EXPECT_TRUE(HasAnswer("at 6:45 pm", {"18:45", "6:45 pm"}));
  EXPECT_TRUE(HasAnswer("1,500 of 150 or 15", {"15"}));
}

TEST(HasAnswerTest, APartOfAWordOrANumberIsNotTheValue) {
  EXPECT_FALSE(HasAnswer("It costs 1500 dollars.", {"15"}));
  EXPECT_FALSE(HasAnswer("It costs 115 dollars.", {"15"}));
  EXPECT_FALSE(HasAnswer("15.5 or 4.15 or 15:30 or 1,15", {"15"}));
  EXPECT_FALSE(HasAnswer("The released keys", {"lease"}));
  EXPECT_FALSE(HasAnswer("at 18:45:10 or 118:45", {"18:45"}));
  EXPECT_FALSE(HasAnswer("", {"15"}));
  EXPECT_FALSE(HasAnswer("anything", {}));
}

TEST(SectionOfTest, EndsBeforeTheNextHeading) {
  const std::string text =
      "# Title\nintro\n\n## One\nfirst\n### Deeper\nmore\n\n\n## Two\nlast\n";
  EXPECT_EQ(*SectionOf(text, "# Title"), "# Title\nintro\n");
  EXPECT_EQ(*SectionOf(text, "## One"), "## One\nfirst\n### Deeper\nmore\n");
  EXPECT_EQ(*SectionOf(text, "## Two"), "## Two\nlast\n");
  const auto missing = SectionOf(text, "## Three");
  EXPECT_TRUE(absl::IsNotFound(missing.status()));
  EXPECT_THAT(missing.status().message(), HasSubstr("'## Three'"));
}

TEST(ParseDemoQuestionsTest, ReadsOneQuestionPerLine) {
  const auto questions = ParseDemoQuestions(
      R"({"file": "a.md", "question": "When?", "answer": "10:30"}

{"file": "b.md", "section": "## B", "question": "How?", "answer": ["so", "as"]}
)",
      "q.jsonl");
  ASSERT_TRUE(questions.ok()) << questions.status();
  ASSERT_EQ(questions->size(), 2u);
  EXPECT_EQ((*questions)[0].file, "a.md");
  EXPECT_EQ((*questions)[0].section, "");
  EXPECT_THAT((*questions)[0].values, ElementsAre("10:30"));
  EXPECT_EQ((*questions)[1].section, "## B");
  EXPECT_EQ((*questions)[1].question, "How?");
  EXPECT_THAT((*questions)[1].values, ElementsAre("so", "as"));
}

TEST(ParseDemoQuestionsTest, NamesTheLineThatIsWrong) {
  const std::string good =
      R"({"file": "a.md", "question": "When?", "answer": "10:30"})";
  for (const char* bad :
       {"[]", "{", "{}", R"({"file": "a.md", "question": "When?"})",
        R"({"file": "a.md", "question": "When?", "answer": 10})",
        R"({"file": "a.md", "question": "When?", "answer": []})",
        R"({"file": "a.md", "question": "When?", "answer": [1]})",
        R"({"file": 7, "question": "When?", "answer": "x"})",
        R"({"file": "a.md", "question": "", "answer": "x"})"}) {
    const auto refused =
        ParseDemoQuestions(absl::StrCat(good, "\n", bad), "q.jsonl");
    EXPECT_TRUE(absl::IsInvalidArgument(refused.status())) << bad;
    EXPECT_THAT(refused.status().message(),
                AllOf(HasSubstr("q.jsonl:2"), HasSubstr("file and question")))
        << bad;
  }
  EXPECT_TRUE(absl::IsNotFound(ParseDemoQuestions("\n", "q").status()));
}

TEST(ParseDemoQuestionsTest, AQuestionThatGivesItsAnswerAwayIsRefused) {
  const auto refused = ParseDemoQuestions(
      R"({"file": "a", "question": "Is it 10:30?", "answer": "10:30"})", "q");
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_THAT(refused.status().message(), HasSubstr("its answer in it"));
}

// The texts of the demo change with the documents of the project.
TEST(ParseDemoQuestionsTest, TheShippedQuestionsHaveTheirAnswersInTheirTexts) {
  for (const std::string folder : {"examples", "model/recall"}) {
    const auto questions =
        ParseDemoQuestions(FileText(folder + "/questions.jsonl"), folder);
    ASSERT_TRUE(questions.ok()) << questions.status();
    for (const DemoQuestion& each : *questions) {
      std::string text = FileText(absl::StrCat(folder, "/", each.file));
      if (!each.section.empty()) {
        const auto section = SectionOf(text, each.section);
        ASSERT_TRUE(section.ok()) << each.file << ": " << section.status();
        text = *section;
      }
      EXPECT_TRUE(HasAnswer(text, each.values)) << each.question;
    }
  }
}

}  // namespace
}  // namespace kdn::cli
