#include "kv/isa.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "kv/log.h"

namespace kdn {
namespace {

TEST(Isa, HasAName) {
  for (const Isa isa : kIsas) EXPECT_EQ(ParseIsa(Name(isa)), isa);
  EXPECT_EQ(ParseIsa("avx"), std::nullopt);
  EXPECT_EQ(ParseIsa(""), std::nullopt);
}

TEST(Isa, IncludesTheSetsBeforeIt) {
  EXPECT_TRUE(Supports(Isa::kScalar));
  for (size_t i = 1; i < kIsas.size(); ++i) {
    if (Supports(kIsas[i])) {
      EXPECT_TRUE(Supports(kIsas[i - 1]));
    }
  }
}

// A process chooses once, so each choice runs in a child of its own.
void ExpectResolved(const char* wanted, Isa expected) {
  EXPECT_EXIT(
      {
        setenv("KDN_ISA", wanted, 1);
        std::exit(BestIsa() == expected ? 0 : 1);
      },
      testing::ExitedWithCode(0), "")
      << wanted;
}

TEST(Isa, IsTheStrongestUpToTheForcedSet) {
  Isa best = Isa::kScalar;
  for (const Isa isa : kIsas) {
    if (Supports(isa)) best = isa;
    // Not stronger than the named set, and not one that the CPU lacks.
    ExpectResolved(std::string(Name(isa)).c_str(), best);
  }
  ExpectResolved("", best);
}

TEST(Isa, AnUnknownLimitIsRefused) {
  for (const Isa isa : kIsas) {
    const absl::StatusOr<Isa> strongest = StrongestIsa(Name(isa));
    ASSERT_TRUE(strongest.ok()) << strongest.status();
    EXPECT_LE(*strongest, isa);
    EXPECT_TRUE(Supports(*strongest));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(StrongestIsa("avx51").status()));
}

TEST(Isa, AMisspeltVariableEndsTheProcess) {
  for (const char* misspelt : {"avx51", "AVX2", "avx512 ", "none"}) {
    EXPECT_EXIT(
        {
          setenv("KDN_ISA", misspelt, 1);
          BestIsa();
          std::exit(0);
        },
        testing::ExitedWithCode(2),
        "KDN_ISA is '.*', expected one of scalar, avx2, avx512, vnni, amx")
        << misspelt;
  }
}

TEST(Isa, AProgramCanCheckTheVariable) {
  const char* const before = std::getenv("KDN_ISA");
  setenv("KDN_ISA", "avx51", 1);
  EXPECT_TRUE(absl::IsInvalidArgument(CheckIsaVariable()));
  setenv("KDN_ISA", "avx2", 1);
  EXPECT_TRUE(CheckIsaVariable().ok());
  if (before == nullptr) {
    unsetenv("KDN_ISA");
  } else {
    setenv("KDN_ISA", before, 1);
  }
}

// Without the warning a benchmark would run with weaker instructions than it
// asked for, and nobody would notice.
TEST(Isa, WarnsOfASetThatTheCpuLacks) {
  for (const Isa isa : kIsas) {
    EXPECT_EXIT(
        {
          setenv("KDN_ISA", std::string(Name(isa)).c_str(), 1);
          int warnings = 0;
          SetLogSink([&](LogSeverity, absl::string_view, absl::string_view) {
            ++warnings;
          });
          const Isa best = BestIsa();
          SetLogSink(nullptr);
          std::exit(warnings == (best == isa ? 0 : 1) ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << Name(isa);
  }
}

}  // namespace
}  // namespace kdn
