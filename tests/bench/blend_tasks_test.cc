#include "bench/blend_tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

namespace kdn::bench {
namespace {

BlendCases Cases(uint64_t seed) {
  return BlendCases::Create([](const std::string&) { return true; }, seed)
      .value();
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(BlendTasksTest, EqualSeedsDrawEqualCases) {
  for (const BlendTask task : kBlendTasks) {
    BlendCases first = Cases(3);
    BlendCases second = Cases(3);
    BlendCases other = Cases(4);
    std::set<std::string> texts;
    for (int i = 0; i < 20; ++i) {
      const BlendCase drawn = first.Draw(task, 3);
      EXPECT_EQ(drawn.chunks, second.Draw(task, 3).chunks);
      EXPECT_NE(drawn.chunks, other.Draw(task, 3).chunks);
      texts.insert(drawn.chunks.front());
    }
    EXPECT_GT(texts.size(), 15u);
  }
}

TEST(BlendTasksTest, EveryDocumentHasAQuestionWithOneRightAnswer) {
  for (const BlendTask task : kBlendTasks) {
    BlendCases cases = Cases(5);
    for (int documents = 1; documents <= BlendCases::kDocumentsMax;
         ++documents) {
      const BlendCase drawn = cases.Draw(task, documents);
      ASSERT_EQ(drawn.questions.size(), static_cast<size_t>(documents));
      std::set<std::string> answers;
      for (const BlendQuestion& question : drawn.questions) {
        answers.insert(question.answer);
        EXPECT_EQ(std::count(question.candidates.begin(),
                             question.candidates.end(), question.answer),
                  1);
        EXPECT_EQ(question.candidates.size(), static_cast<size_t>(documents));
      }
      EXPECT_EQ(answers.size(), static_cast<size_t>(documents));
    }
  }
}

// Whether the chunk that has the answer has the subject of the question, too.
TEST(BlendTasksTest, OnlyLocalTasksHaveTheFactInOneChunk) {
  for (const BlendTask task : kBlendTasks) {
    const bool local = task == BlendTask::kLocal || task == BlendTask::kSurname;
    BlendCases cases = Cases(6);
    for (int i = 0; i < 20; ++i) {
      const BlendCase drawn = cases.Draw(task, 4);
      for (const BlendQuestion& question : drawn.questions) {
        const auto chunk = std::find_if(
            drawn.chunks.begin(), drawn.chunks.end(),
            [&](const std::string& c) { return Has(c, question.answer); });
        ASSERT_NE(chunk, drawn.chunks.end());
        const std::string subject =
            task == BlendTask::kSurname
                ? question.begins.substr(question.begins.rfind(' ') + 1)
                : question.begins.substr(0, question.begins.find(" was"));
        EXPECT_EQ(Has(*chunk, subject), local) << NameOf(task) << *chunk;
      }
    }
  }
}

TEST(BlendTasksTest, TooFewTokensAreAnError) {
  const auto cases = BlendCases::Create(
      [](const std::string& word) { return word < " C"; }, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(cases.status())) << cases.status();
}

}  // namespace
}  // namespace kdn::bench
