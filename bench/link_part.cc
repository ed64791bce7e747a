// Delivery over links slower than loopback.
#include <thread>

#include "absl/strings/str_cat.h"
#include "bench/parts.h"
#include "bench/raw_limits.h"
#include "bench/shaped_link.h"
#include "bench/speed_bed.h"
#include "bench/two_nodes.h"
#include "cli/calibration_files.h"
#include "codec/calibration/calibration_format.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr double kBaseBits = 1.5;
constexpr double kGigabit = 125e6;       // bytes per second
constexpr int kGigabits[] = {1, 10, 0};  // 0: loopback without a limit

absl::Status CalibrateInto(const std::string& directory) {
  auto calibration = CalibrateOnSpectra(BenchModel(), kBaseBits);
  if (!calibration.ok()) return calibration.status();
  return cli::SaveCalibration(
      codec::WriteCalibration(*calibration),
      absl::StrCat(directory, "/bench", cli::kCalibrationSuffix));
}

absl::Status MeasureLinks(const DeliveryOptions& options, Json& json) {
  if (absl::Status s = EnterOwnNetwork(); !s.ok()) return s;
  absl::StatusOr<cli::TempDirectory> directory =
      cli::TempDirectory::Create(options.directory, "kdn-bench-");
  if (!directory.ok()) return directory.status();
  if (absl::Status s = CalibrateInto(directory->path()); !s.ok()) return s;
  TwoNodesOptions of_chunks;
  of_chunks.levels = LevelSet::All();
  of_chunks.calibrations = directory->path();
  of_chunks.computed_at_zero = true;  // K is drawn before RoPE
  of_chunks.fill = FillWithSpectra;
  absl::StatusOr<TwoNodes> nodes = StartTwoNodes(options, of_chunks);
  if (!nodes.ok()) return nodes.status();
  for (const int gigabits : kGigabits) {
    if (absl::Status s = ShapeLoopback(gigabits * kGigabit); !s.ok()) return s;
    Json link = {{"link", gigabits == 0 ? std::string("loopback")
                                        : absl::StrCat(gigabits, " Gb/s")}};
    for (const Level level : kLevelsByQuality) {
      double wire_gbps = 0;
      const auto deliver = [&]() -> absl::StatusOr<double> {
        const auto delivered =
            DeliverForASecond(*nodes->bed, nodes->there, LevelSet::Of(level));
        if (!delivered.ok()) return delivered.status();
        wire_gbps = delivered->wire_gbps;
        return delivered->gbps;
      };
      const absl::StatusOr<Rates> rates =
          InTurns(deliver, [] { return TcpGbps(kTcpBlockBytes); });
      if (!rates.ok()) return rates.status();
      link["levels"].push_back({{"level", Name(level)},
                                {"delivered_gbps", rates->ours},
                                {"tcp_gbps", rates->raw},
                                {"delivered_over_tcp", rates->ratio},
                                {"wire_gbps", wire_gbps}});
    }
    json["links"].push_back(std::move(link));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureLink(const DeliveryOptions& options, Json& json) {
  absl::Status status;
  std::thread apart([&] { status = MeasureLinks(options, json); });
  apart.join();
  if (!absl::IsPermissionDenied(status)) return status;
  json["links"] = absl::StrCat("not measured: ", status.message(),
                               "; run as root, or run `unshare -rn kdn bench "
                               "delivery link`");
  return absl::OkStatus();
}

}  // namespace kdn::bench
