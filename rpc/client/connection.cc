#include "rpc/client/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {
namespace {

constexpr unsigned kFdsPerMessageMax = 1;

// Answers of up to 1 GB are read.
capnp::ReaderOptions ReaderLimits() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = (1ull << 30) / sizeof(capnp::word);
  return options;
}

absl::Status CheckAddress(std::string_view address) {
  const absl::string_view text(address.data(), address.size());
  if (absl::StartsWith(text, "unix:/") || absl::StrContains(text, ":")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "address '", text, "': expected unix:/path, host:port or [IPv6]:port"));
}

// PERMISSION_DENIED when the socket is there but this user may not open it,
// else UNAVAILABLE.
absl::Status ConnectError(std::string_view address, const absl::Status& why) {
  const std::string text =
      absl::StrCat("cannot connect to ",
                   absl::string_view(address.data(), address.size()), ": ");
  const std::string path(address.substr(std::min<size_t>(5, address.size())));
  if (address.substr(0, 5) == "unix:" &&
      faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) != 0 &&
      errno == EACCES) {
    return absl::PermissionDeniedError(absl::StrCat(
        text,
        "permission denied: run as the user of the node, or as a member of the "
        "gateway_socket_group of its configuration"));
  }
  return absl::UnavailableError(absl::StrCat(text, why.message()));
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> Connection::Open(
    std::string_view address, const ConnectOptions& options) {
  if (absl::Status status = CheckAddress(address); !status.ok()) return status;
  const bool local = address.substr(0, 5) == "unix:";
  std::shared_ptr<Connection> connection(new Connection());
  connection->loop_ = ClientLoop::OfThisThread();
  auto stream = connection->loop_->Wait(
      connection->loop_->io()
          .getNetwork()
          .parseAddress(kj::StringPtr(std::string(address).c_str()))
          .then([](kj::Own<kj::NetworkAddress> parsed) {
            auto connecting = parsed->connect();
            return connecting.attach(kj::mv(parsed));
          }),
      options.timeout);
  if (!stream.ok()) return ConnectError(address, stream.status());
  connection->stream_ = kj::mv(*stream);
  const auto side = capnp::rpc::twoparty::Side::CLIENT;
  if (local) {
    connection->network_ = kj::heap<capnp::TwoPartyVatNetwork>(
        kj::downcast<kj::AsyncCapabilityStream>(*connection->stream_),
        kFdsPerMessageMax, side, ReaderLimits());
  } else {
    const int one = 1;
    connection->stream_->setsockopt(IPPROTO_TCP, TCP_NODELAY, &one,
                                    sizeof(one));
    connection->network_ = kj::heap<capnp::TwoPartyVatNetwork>(
        *connection->stream_, side, ReaderLimits());
  }
  connection->rpc_ = kj::heap<capnp::RpcSystem<capnp::rpc::twoparty::VatId>>(
      capnp::makeRpcClient(*connection->network_));
  connection->watching_ =
      connection->network_->onDisconnect()
          .then([flag = connection->connected_] { *flag = false; })
          .eagerlyEvaluate(nullptr);
  if (absl::Status status = connection->Hello(options); !status.ok()) {
    return status;
  }
  return connection;
}

absl::Status Connection::Hello(const ConnectOptions& options) {
  capnp::MallocMessageBuilder message;
  auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
  vat.setSide(capnp::rpc::twoparty::Side::SERVER);
  auto kdn = rpc_->bootstrap(vat).castAs<wire::Kdn>();
  const std::vector<GoldenVector> golden = GoldenVectors();
  auto request = kdn.helloRequest();
  request.setProtocolVersion(kProtocolVersion);
  request.setClientName(options.name);
  auto list = request.initGoldenVectors(static_cast<unsigned>(golden.size()));
  for (unsigned i = 0; i < golden.size(); ++i) {
    list[i].setLabel(golden[i].label);
    list[i].setKey(ToWire(golden[i].key));
  }
  auto answer = Call(kj::mv(request), options.timeout);
  if (!answer.ok()) return answer.status();
  if (answer->getProtocolVersion() != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the gateway speaks protocol version ", answer->getProtocolVersion(),
        ", this client ", kProtocolVersion));
  }
  session_ = answer->getSession();
  node_ = FromWire(answer->getNode());
  shares_memory_ = node_.memory_bytes_max > 0;
  auto info = Call(session_->infoRequest(), options.timeout);
  if (!info.ok()) return info.status();
  session_id_ = SessionId(info->getSession());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Region>> Connection::OpenMemory(
    size_t bytes, absl::Duration timeout) {
  if (bytes == 0) {
    return absl::InvalidArgumentError("a region needs at least 1 byte");
  }
  if (shares_memory_) {
    absl::StatusOr<std::unique_ptr<Region>> region = OpenShared(bytes, timeout);
    if (region.ok() || !MeansUnshared(region.status())) return region;
    shares_memory_ = false;
    LogWarning("client.memory",
               absl::StrCat(
                   "no memory can be shared with node ", node_.id.name(),
                   ", so KV passes the socket: ", region.status().ToString()));
  }
  absl::StatusOr<PrivateMemory> memory = PrivateMemory::Create(bytes);
  if (!memory.ok()) return memory.status();
  return std::make_unique<UnsharedRegion>(*std::move(memory));
}

bool Connection::MeansUnshared(const absl::Status& status) const {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return false;
    default:
      return connected();
  }
}

absl::StatusOr<std::unique_ptr<Region>> Connection::OpenShared(
    size_t bytes, absl::Duration timeout) {
  auto request = session_->openMemoryRequest();
  request.setBytes(bytes);
  auto answer = Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  wire::SharedMemory::Client capability = answer->getMemory();
  absl::StatusOr<kj::Maybe<int>> fd = loop_->Wait(capability.getFd(), timeout);
  if (!fd.ok()) return fd.status();
  KJ_IF_MAYBE (received, *fd) {
    // The capability owns the received descriptor; the mapping gets its own.
    absl::StatusOr<SharedMemory> memory =
        SharedMemory::Map(dup(*received), bytes);
    if (!memory.ok()) return memory.status();
    auto region = std::make_unique<RegionImpl>(
        shared_from_this(), kj::mv(capability), *std::move(memory));
    regions_.push_back(region.get());
    return region;
  }
  return absl::FailedPreconditionError(
      "the gateway sent a region without its file descriptor");
}

const RegionImpl* Connection::RegionAround(const std::byte* begin,
                                           uint64_t bytes) const {
  for (const RegionImpl* region : regions_) {
    if (region->Holds(begin, bytes)) return region;
  }
  return nullptr;
}

void Connection::Forget(const RegionImpl* region) {
  loop_->CheckThread();
  std::erase(regions_, region);
}

}  // namespace kdn::rpc
