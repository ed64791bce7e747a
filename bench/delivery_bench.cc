#include "bench/delivery_bench.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bench/bed.h"
#include "bench/parts.h"
#include "bench/report.h"

namespace kdn::bench {

absl::Status RunDeliveryBench(const DeliveryOptions& options) {
  using Part = absl::Status (*)(const DeliveryOptions&, nlohmann::json&);
  constexpr Part kParts[] = {MeasureMemory, MeasureRemote, MeasureLink,
                             MeasureLookup, MeasureDisk,   MeasureStore};
  static_assert(std::size(kParts) == std::size(kDeliveryParts));
  nlohmann::json json = {{"benchmark", "delivery"},
                         {"chunk_tokens", kChunkTokens},
                         {"chunk_mb", static_cast<double>(ChunkBytes()) / 1e6}};
  for (size_t i = 0; i < std::size(kParts); ++i) {
    const std::string name = kDeliveryParts[i];
    if (!options.parts.empty() &&
        std::find(options.parts.begin(), options.parts.end(), name) ==
            options.parts.end()) {
      continue;
    }
    std::fprintf(stderr, "measuring %s ...\n", name.c_str());
    if (absl::Status status = kParts[i](options, json); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(name, ": ", status.message()));
    }
  }
  return PrintReport(json, options.json);
}

}  // namespace kdn::bench
