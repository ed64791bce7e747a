#include "kv/metric_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"

namespace kdn {
namespace {

TEST(MetricTableTest, NamesAreUniqueAndEverythingIsExplained) {
  std::set<std::string> names;
  for (const MetricInfo& info : kMetricTable) {
    EXPECT_TRUE(names.insert(std::string(info.name)).second) << info.name;
    EXPECT_FALSE(info.unit.empty()) << info.name;
    EXPECT_FALSE(info.help.empty()) << info.name;
  }
}

// A name must be usable as a JSON key, as a Python key and, with underscores
// for dots, as the name of a Prometheus metric.
TEST(MetricTableTest, NamesAreLowerCaseWords) {
  std::set<std::string> underscored;
  for (const MetricInfo& info : kMetricTable) {
    EXPECT_TRUE(std::all_of(info.name.begin(), info.name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '.';
    })) << info.name;
    std::string name(info.name);
    std::replace(name.begin(), name.end(), '.', '_');
    EXPECT_TRUE(underscored.insert(name).second) << info.name;
  }
}

// The part before a dot names a group: no name may be both a value and a group.
TEST(MetricTableTest, NoGroupIsAlsoAMetric) {
  for (const MetricInfo& info : kMetricTable) {
    const size_t dot = info.name.find('.');
    if (dot == std::string_view::npos) continue;
    EXPECT_FALSE(Metric::Find(info.name.substr(0, dot))) << info.name;
  }
}

TEST(MetricTableTest, HistogramsAreOfMicroseconds) {
  for (const MetricInfo& info : kMetricTable) {
    if (info.type != MetricType::kHistogram) continue;
    EXPECT_EQ(info.unit, "microseconds") << info.name;
    EXPECT_TRUE(info.name.ends_with("_us")) << info.name;
  }
}

TEST(MetricTableTest, TheOperatorsManualHasEveryLine) {
  std::ifstream file(KDN_SOURCE_DIR "/docs/operations.md");
  const std::string manual{std::istreambuf_iterator<char>(file), {}};
  std::string table =
      "| name | type | unit | what it is |\n|---|---|---|---|\n";
  for (const MetricInfo& info : kMetricTable) {
    absl::StrAppend(&table, "| `", std::string(info.name), "` | ",
                    std::string(Name(info.type)), " | ", std::string(info.unit),
                    " | ", std::string(info.help), " |\n");
  }
  EXPECT_NE(manual.find(table), std::string::npos)
      << "docs/operations.md, Metrics, must have this table:\n"
      << table;
}

TEST(MetricTableTest, FindsByName) {
  for (size_t i = 0; i < kMetricCount; ++i) {
    EXPECT_EQ(Metric::Find(kMetricTable[i].name), Metric::At(i));
  }
  EXPECT_FALSE(Metric::Find("no_such_metric"));
  EXPECT_EQ(Metric("lookups").info().name, "lookups");
}

}  // namespace
}  // namespace kdn
