#include "cli/level_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace kdn::cli {
namespace {

using testing::HasSubstr;

TEST(LevelListTest, ReadsEveryNameAloneAndTogether) {
  for (const Level level : kLevelsByQuality) {
    EXPECT_EQ(*ParseLevelList(std::string(Name(level))), LevelSet::Of(level));
  }
  EXPECT_EQ(*ParseLevelList("base+2,lossless"),
            LevelSet::Of(Level::kLossless).With(Level::kBase2));
  EXPECT_EQ(*ParseLevelList("archive,lossless,int8,base,base+1,base+2"),
            LevelSet::All());
}

TEST(LevelListTest, AWordThatIsNotALevelIsNamed) {
  for (const char* text : {"", "both", "base1", "int8,", "int8, base"}) {
    const auto levels = ParseLevelList(text);
    ASSERT_TRUE(absl::IsInvalidArgument(levels.status())) << text;
    EXPECT_THAT(std::string(levels.status().message()),
                HasSubstr("lossless, int8, base+2, base+1, base"));
  }
  EXPECT_THAT(std::string(ParseLevelList("int8,best").status().message()),
              HasSubstr("'best' is not a level"));
}

}  // namespace
}  // namespace kdn::cli
