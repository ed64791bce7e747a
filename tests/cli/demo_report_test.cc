#include "cli/demo_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace kdn::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

DemoAnswer Said(const std::string& text, bool right, int milliseconds,
                int32_t token) {
  DemoAnswer said;
  said.said = text;
  said.right = right;
  said.answer.tokens = {token, 7};
  said.answer.time_to_first_token = absl::Milliseconds(milliseconds);
  return said;
}

DemoAnswer Delivered(DemoAnswer said, ChunkSources sources) {
  said.answer.kv_bytes = 2'000'000;
  said.answer.wire_bytes = 500'000;
  said.answer.chunk_sources = sources;
  return said;
}

// Two questions; the model answers the second one rightly in every round that
// has a text.
DemoResult GoodResult() {
  const DemoAnswer first = Said("It is 3.", false, 30, 1);
  const DemoAnswer second = Said("It is\n4711.", true, 10, 2);
  const auto from_kdn = [&](const char* name, ChunkSources sources) {
    return DemoRound{
        name, {Delivered(first, sources), Delivered(second, sources)}, 3000000};
  };
  DemoResult result;
  result.model = "m";
  result.nodes = 3;
  result.texts = 1;
  result.injected.tokens = 500;
  result.injected.chunks = 2;
  result.injected.bytes = 4000000;
  result.killed = "n2";
  result.questions = {{"a.md", "", "How many?", {"5"}},
                      {"a.md", "", "Which code?", {"4711"}}};
  result.nothing = {
      "none", {Said("Many.", false, 5, 8), Said("None.", false, 5, 9)}, 0};
  result.prefilled = {"prefilled", {first, second}, 0};
  result.lossless = from_kdn("KDN, lossless", {2, 0, 1});
  result.small = from_kdn("KDN, base+2", {1, 1, 1});
  result.after_kill = from_kdn("KDN, n2 dead", {3, 0, 0});
  return result;
}

std::vector<std::string> WordsOfLine(const std::string& text, size_t line) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  return absl::StrSplit(lines.at(line), ' ', absl::SkipEmpty());
}

TEST(DemoReportTest, TheTableHasALineForEachRound) {
  const std::string table = DemoTable(GoodResult());
  EXPECT_THAT(WordsOfLine(table, 0),
              ElementsAre("knowledge", "right", "TTFT", "ms", "stored",
                          "delivered", "sent", "memory", "disk", "peers",
                          "missed", "same", "tokens"));
  EXPECT_THAT(WordsOfLine(table, 1),
              ElementsAre("none", "0", "of", "2", "5.0"));
  EXPECT_THAT(WordsOfLine(table, 2),
              ElementsAre("prefilled", "1", "of", "2", "30.0"));
  EXPECT_THAT(WordsOfLine(table, 3),
              ElementsAre("KDN,", "lossless", "1", "of", "2", "30.0", "3.00",
                          "4.00", "1.00", "4", "0", "2", "0", "2", "of", "2"));
  EXPECT_THAT(WordsOfLine(table, 4),
              ElementsAre("KDN,", "base+2", "1", "of", "2", "30.0", "3.00",
                          "4.00", "1.00", "2", "2", "2", "0", "2", "of", "2"));
  EXPECT_THAT(WordsOfLine(table, 5), testing::Contains("dead"));
  EXPECT_THAT(table, HasSubstr("stored: MB of one encoded copy"));
}

TEST(DemoReportTest, AnswersAreShownWholeAndInOneLine) {
  const std::string answers = DemoAnswers(GoodResult());
  EXPECT_THAT(answers, AllOf(HasSubstr("How many?\n"),
                             HasSubstr("none             wrong  Many.\n"),
                             HasSubstr("Which code?\n"),
                             HasSubstr("prefilled        right  It is 4711.")));
}

TEST(DemoReportTest, OnlySomeOfManyQuestionsAreShown) {
  DemoResult result = GoodResult();
  for (int i = 0; i < 20; ++i) {
    result.questions.push_back(result.questions[1]);
    for (DemoRound* round :
         {&result.nothing, &result.prefilled, &result.lossless, &result.small,
          &result.after_kill}) {
      round->answers.push_back(round->answers[1]);
    }
  }
  const std::vector<std::string> lines =
      absl::StrSplit(DemoAnswers(result), "?\n");
  EXPECT_EQ(lines.size(), 5u) << "four questions";
}

TEST(DemoReportTest, TheJsonHasTheNumbers) {
  const nlohmann::json json = DemoJson(GoodResult());
  EXPECT_EQ(json["model"], "m");
  EXPECT_EQ(json["nodes"], 3);
  EXPECT_EQ(json["texts"], 1);
  EXPECT_EQ(json["tokens_injected"], 500);
  EXPECT_EQ(json["chunks"], 2);
  EXPECT_EQ(json["kv_bytes_injected"], 4000000);
  EXPECT_EQ(json["questions"], 2);
  EXPECT_EQ(json["right_without"], 0);
  EXPECT_EQ(json["right_prefill"], 1);
  EXPECT_EQ(json["right_kdn"], 1);
  EXPECT_EQ(json["right_after_kill"], 1);
  EXPECT_EQ(json["same_tokens"], true);
  EXPECT_EQ(json["same_tokens_after_kill"], true);
  EXPECT_EQ(json["ttft_ms_prefill"], 30);
  EXPECT_EQ(json["ttft_ms_kdn"], 30);
  EXPECT_EQ(json["ttft_ms_after_kill"], 30);
  EXPECT_EQ(json["kv_bytes_delivered"], 4000000);
  EXPECT_EQ(json["misses"], 0);
  EXPECT_EQ(json["misses_after_kill"], 0);
  EXPECT_EQ(json["killed"], "n2");
  ASSERT_EQ(json["rounds"].size(), 5u);
  const nlohmann::json& small = json["rounds"][3];
  EXPECT_EQ(small["knowledge"], "KDN, base+2");
  EXPECT_EQ(small["bytes_stored"], 3000000);
  EXPECT_EQ(small["wire_bytes"], 1000000);
  EXPECT_EQ(small["chunks_from_disk"], 2);
  EXPECT_EQ(small["same_tokens_as_prefill"], 2);
  EXPECT_EQ(small["answers"][1]["question"], "Which code?");
  EXPECT_EQ(small["answers"][1]["right"], true);
}

TEST(DemoReportTest, AGoodResultHasNoFailures) {
  EXPECT_THAT(DemoFailures(GoodResult()), IsEmpty());
}

TEST(DemoReportTest, AnotherTokenIsAFailureAtLosslessOnly) {
  DemoResult result = GoodResult();
  result.small.answers[0].answer.tokens = {5};
  EXPECT_EQ(SameTokens(result.small, result.prefilled), 1);
  EXPECT_THAT(DemoFailures(result), IsEmpty());
  result.lossless.answers[0].answer.tokens.pop_back();
  EXPECT_THAT(DemoFailures(result),
              ElementsAre(AllOf(HasSubstr("KDN, lossless"),
                                HasSubstr("only 1 of 2 answers"))));
  EXPECT_EQ(DemoJson(result)["same_tokens"], false);
  result = GoodResult();
  result.after_kill.answers[1].answer.tokens[0] = 3;
  EXPECT_THAT(DemoFailures(result), ElementsAre(HasSubstr("KDN, n2 dead")));
  EXPECT_EQ(DemoJson(result)["same_tokens_after_kill"], false);
}

TEST(DemoReportTest, AMissedChunkIsAFailureInEveryRound) {
  DemoResult result = GoodResult();
  result.small.answers[0].answer.chunks_missed = 2;
  result.after_kill.answers[1].answer.chunks_missed = 1;
  EXPECT_THAT(DemoFailures(result),
              ElementsAre(HasSubstr("KDN, base+2: 2 injected chunks"),
                          HasSubstr("KDN, n2 dead: 1 injected chunks")));
  EXPECT_EQ(DemoJson(result)["misses_after_kill"], 1);
}

TEST(DemoReportTest, WrongAnswersOfTheModelAreNoFailureOfTheKdn) {
  DemoResult result = GoodResult();
  result.small.answers[1].right = false;
  EXPECT_THAT(DemoFailures(result), IsEmpty());
}

TEST(DemoReportTest, ATextThatChangesNoAnswerShowsNothing) {
  DemoResult result = GoodResult();
  result.nothing.answers[0].right = true;
  EXPECT_THAT(DemoFailures(result),
              ElementsAre(HasSubstr("did not make more answers right")));
}

TEST(OneLineTest, CutsBetweenCharacters) {
  EXPECT_EQ(OneLine(" a\n b\tc ", 10), "a b c");
  EXPECT_EQ(OneLine("0123456789", 10), "0123456789");
  EXPECT_EQ(OneLine("0123456789x", 10), "0123456...");
  EXPECT_EQ(OneLine("012345\u00e9\u00e9\u00e9", 10), "012345...");
}

}  // namespace
}  // namespace kdn::cli
