#include "model/bpe.h"

#include <gtest/gtest.h>

namespace kdn::model {
namespace {

TEST(BpeTest, StandInsAreReversibleForEveryByte) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  EXPECT_EQ(Bpe::FromStandIns(Bpe::ToStandIns(bytes)), bytes);
  EXPECT_EQ(Bpe::ToStandIns(" a"),
            "\xc4\xa0"
            "a")
      << "GPT-2's space";
}

TEST(BpeTest, LowerRanksMergeFirstAndLeftmostOfEquals) {
  Bpe bpe;
  const absl::flat_hash_map<std::string, int32_t> vocab = {
      {"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"ab", 4}, {"aa", 5}};
  ASSERT_TRUE(
      bpe.Build(vocab, {{"b", "c"}, {"a", "b"}, {"a", "a"}}, false).ok());
  std::vector<int32_t> ids;
  bpe.Encode("abc", ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 3})) << "bc before ab";
  ids.clear();
  bpe.Encode("aaa", ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{5, 0}));
}

TEST(BpeTest, AMergeOutsideTheVocabularyIsRefused) {
  Bpe bpe;
  EXPECT_TRUE(absl::IsInvalidArgument(
      bpe.Build({{"a", 0}, {"b", 1}}, {{"a", "b"}}, false)));
}

}  // namespace
}  // namespace kdn::model
