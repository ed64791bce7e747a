#include "cli/node_credentials.h"

#include <optional>

#include "absl/strings/str_cat.h"

namespace kdn::cli {
namespace {

constexpr absl::Duration kDay = absl::Hours(24);
constexpr absl::Duration kWarnBefore = absl::Hours(30 * 24);

}  // namespace

absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> LoadCredentials(
    const ClusterConfig& config, const NodeConfig& self, absl::Time now) {
  const std::optional<rpc::TlsFiles> files = TlsFilesOf(config, self);
  if (!files.has_value()) return nullptr;
  absl::StatusOr<std::shared_ptr<const rpc::TlsCredentials>> credentials =
      rpc::TlsCredentials::Load(*files, now);
  if (credentials.ok() && (*credentials)->name() != self.id.name()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "certificate ", files->certificate, ": it is the certificate of ",
        (*credentials)->name(), ", expected the one of ", self.id.name()));
  }
  return credentials;
}

std::string ExpiryWarning(const std::string& path, absl::Time end,
                          absl::Time now) {
  if (end - now > kWarnBefore) return "";
  return absl::StrCat(
      "certificate ", path, " or the certificate of its authority ends in ",
      (end - now) / kDay, " days, at ",
      absl::FormatTime("%Y-%m-%d %H:%M UTC", end, absl::UTCTimeZone()),
      ": renew it (`kdn certs --renew`) and restart the node before that");
}

}  // namespace kdn::cli
