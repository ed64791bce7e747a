#include "cli/connect.h"

#include "absl/strings/str_cat.h"

namespace kdn::cli {

absl::StatusOr<std::unique_ptr<rpc::Client>> ConnectTo(
    const std::string& address) {
  absl::StatusOr<std::unique_ptr<rpc::Client>> client =
      rpc::Client::Connect(address);
  if (client.ok() || !absl::IsUnavailable(client.status())) return client;
  return absl::Status(
      client.status().code(),
      absl::StrCat(client.status().message(),
                   "; is the cluster up (kdn up -c configs/local-3.yaml)? "
                   "--connect names another gateway, as `kdn up` printed it"));
}

}  // namespace kdn::cli
