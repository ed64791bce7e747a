#include "cli/inject_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace kdn::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(InjectPlan, ALongTextHasPassesOfItsOwn) {
  InjectPlan plan(512);
  plan.Add(0, {256, 256, 256, 256, 100});
  EXPECT_THAT(plan.NextPass(), ElementsAre(PassPart{0, 0, 2}));
  EXPECT_THAT(plan.NextPass(), ElementsAre(PassPart{0, 2, 4}));
  EXPECT_THAT(plan.NextPass(), ElementsAre(PassPart{0, 4, 5}));
  EXPECT_TRUE(plan.empty());
  EXPECT_THAT(plan.NextPass(), IsEmpty());
}

TEST(InjectPlan, ShortTextsShareAPass) {
  InjectPlan plan(512);
  plan.Add(3, {256, 44});
  plan.Add(4, {200});
  plan.Add(5, {13});
  EXPECT_THAT(plan.NextPass(),
              ElementsAre(PassPart{3, 0, 2}, PassPart{4, 0, 1}));
  plan.Add(6, {});
  plan.Add(7, {256, 256});
  EXPECT_THAT(plan.NextPass(),
              ElementsAre(PassPart{5, 0, 1}, PassPart{7, 0, 1}));
  EXPECT_THAT(plan.NextPass(), ElementsAre(PassPart{7, 1, 2}));
  EXPECT_TRUE(plan.empty());
}

TEST(InjectPlan, AChunkThatIsLargerThanAPassComesAlone) {
  InjectPlan plan(100);
  plan.Add(0, {256, 1});
  plan.Add(1, {60});
  EXPECT_THAT(plan.NextPass(), ElementsAre(PassPart{0, 0, 1}));
  EXPECT_THAT(plan.NextPass(),
              ElementsAre(PassPart{0, 1, 2}, PassPart{1, 0, 1}));
}

TEST(InjectPlan, EveryChunkComesOnceAndInOrder) {
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    InjectPlan plan(512);
    std::vector<std::vector<int>> texts;
    for (uint32_t i = random() % 20; i > 0; --i) {
      std::vector<int> chunks(random() % 4, 256);
      chunks.push_back(1 + static_cast<int>(random() % 256));
      plan.Add(static_cast<int>(texts.size()), chunks);
      texts.push_back(chunks);
    }
    std::vector<size_t> next(texts.size());
    while (!plan.empty()) {
      int tokens = 0;
      int before = -1;
      for (const PassPart& part : plan.NextPass()) {
        EXPECT_GT(part.text, before) << "a text comes once, in order";
        before = part.text;
        EXPECT_EQ(part.begin, next[part.text]);
        ASSERT_GT(part.end, part.begin);
        ASSERT_LE(part.end, texts[part.text].size());
        next[part.text] = part.end;
        for (size_t i = part.begin; i < part.end; ++i) {
          tokens += texts[part.text][i];
        }
      }
      EXPECT_GT(tokens, 0);
      EXPECT_LE(tokens, 512);
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(next[i], texts[i].size());
    }
  }
}

}  // namespace
}  // namespace kdn::cli
