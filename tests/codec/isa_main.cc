// main() of the tests that run once for each instruction set. KDN_ISA names the
// set to run with; if it is unset, the best set of this CPU is used. If the CPU
// lacks the named set, the test prints so and is skipped. It never runs with a
// weaker set instead.

#include <gmock/gmock.h>

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "kv/check.h"
#include "kv/isa.h"

int main(int argc, char** argv) {
  using namespace kdn;
  constexpr int kSkipped = 77;
  if (const char* name = std::getenv("KDN_ISA"); name != nullptr) {
    const std::optional<Isa> isa = ParseIsa(name);
    KDN_CHECK(isa.has_value(), "KDN_ISA names no instruction set");
    if (!Supports(*isa)) {
      std::printf("skipped: this CPU has no %s\n", name);
      return kSkipped;
    }
    KDN_CHECK(BestIsa() == *isa, "the forced instruction set is used");
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
