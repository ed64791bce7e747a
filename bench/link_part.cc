// Delivery over links slower than loopback: a network namespace of its own,
// whose loopback device tc shapes.
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "bench/parts.h"
#include "bench/raw_limits.h"
#include "bench/speed_bed.h"
#include "bench/two_nodes.h"
#include "cli/calibration_files.h"
#include "codec/calibration_format.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr double kBaseBits = 1.5;
constexpr int kGigabits[] = {1, 10, 0};  // 0: loopback as it is

// The calling thread, and what it starts from now on, get a network of their
// own: loopback and nothing else.
absl::Status EnterNamespace() {
  if (unshare(CLONE_NEWNET) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "a network namespace: ", strerror(errno),
        "; run it as root, or `unshare -rn kdn bench delivery link`"));
  }
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq lo{};
  std::strcpy(lo.ifr_name, "lo");
  lo.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
  const bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (up) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("lo: ", strerror(error)));
}

absl::Status Shape(int gigabits) {
  const std::string tc =
      gigabits == 0
          ? std::string("tc qdisc del dev lo root 2>/dev/null; true")
          : absl::StrCat("tc qdisc replace dev lo root tbf rate ", gigabits,
                         "gbit burst ", gigabits * 1250000, " latency 50ms");
  if (std::system(tc.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("`", tc, "` failed; tc is in the package iproute2"));
}

absl::Status CalibrateInto(const std::string& directory) {
  auto calibration = CalibrateOnSpectra(BenchModel(), kBaseBits);
  if (!calibration.ok()) return calibration.status();
  return cli::SaveCalibration(
      codec::WriteCalibration(*calibration),
      absl::StrCat(directory, "/bench", cli::kCalibrationSuffix));
}

absl::Status MeasureLinks(const DeliveryOptions& options, Json& json) {
  if (absl::Status s = EnterNamespace(); !s.ok()) return s;
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
    if (absl::Status s = Shape(gigabits); !s.ok()) return s;
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
  json["links"] = absl::StrCat("not measured: ", status.message());
  return absl::OkStatus();
}

}  // namespace kdn::bench
