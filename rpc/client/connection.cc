#include "rpc/client/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kv/log.h"
#include "rpc/client/wire.h"
#include "rpc/listener.h"
#include "rpc/tls/context.h"
#include "rpc/tls/stream.h"

namespace kdn::rpc {
namespace {

constexpr unsigned kFdsPerMessageMax = 1;
constexpr char kTlsScheme[] = "tls://";

// Answers of up to 1 GB are read.
capnp::ReaderOptions ReaderLimits() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = (1ull << 30) / sizeof(capnp::word);
  return options;
}

// A gateway's address, parsed.
struct Address {
  std::string text;
  std::string to_dial;  // as KJ reads it
  bool local = false;   // a Unix socket
  // Whose certificate the gateway must show; empty: no TLS.
  std::string tls_host;
};

// The host of HOST:PORT or [IPv6]:PORT; empty if the text is neither.
std::string HostOf(absl::string_view text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port == 0 ||
      port > 65535) {
    return "";
  }
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    return absl::ConsumeSuffix(&host, "]") ? std::string(host) : "";
  }
  return absl::StrContains(host, ":") ? "" : std::string(host);
}

absl::StatusOr<Address> Parse(std::string_view text) {
  Address address{
      .text = std::string(text), .to_dial = std::string(text), .tls_host = ""};
  absl::string_view rest = address.text;
  address.local = absl::StartsWith(rest, "unix:/");
  if (absl::ConsumePrefix(&rest, kTlsScheme)) {
    address.to_dial = std::string(rest);
    address.tls_host = HostOf(rest);
    if (!address.tls_host.empty()) return address;
  } else if (address.local || absl::StrContains(rest, ":")) {
    return address;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("address '", address.text,
                   "': expected unix:/path, host:port, [IPv6]:port, or "
                   "tls:// before one of the last two"));
}

// The file of authorities: `ca`, or the variable KDN_CA of the environment.
std::string CaFile(const ConnectOptions& options) {
  if (!options.ca.empty()) return options.ca;
  const char* const from_environment = std::getenv("KDN_CA");
  return from_environment == nullptr ? "" : from_environment;
}

absl::StatusOr<SslContext> ContextFor(const Address& address,
                                      const std::string& ca) {
  if (address.tls_host.empty()) return SslContext(nullptr, SSL_CTX_free);
  if (!ca.empty()) return EngineContext(ca);
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot connect to ", address.text,
      ": TLS needs the certificate of the cluster's authority (ca.pem of `kdn "
      "certs`): give its path as `ca`, as --ca or in KDN_CA"));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> Dial(kj::Network& network,
                                             const Address& address,
                                             SSL_CTX* tls) {
  auto dialled = DialAddress(network, address.to_dial);
  if (tls == nullptr) return dialled;
  return dialled.then([tls, host = address.tls_host](
                          kj::Own<kj::AsyncIoStream> stream) {
    return TlsIoStream::Connect(kj::mv(stream), *tls, host)
        .then([](kj::Own<TlsIoStream> secure) -> kj::Own<kj::AsyncIoStream> {
          return kj::mv(secure);
        });
  });
}

// PERMISSION_DENIED when the socket is there but this user may not open it,
// else UNAVAILABLE.
absl::Status ConnectError(const Address& address, const absl::Status& why) {
  const std::string text =
      absl::StrCat("cannot connect to ", address.text, ": ", why.message());
  if (!address.local) return absl::UnavailableError(text);
  const std::string path = address.text.substr(5);
  if (faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) != 0 &&
      errno == EACCES) {
    return absl::PermissionDeniedError(absl::StrCat(
        "cannot connect to ", address.text,
        ": permission denied: run as the user of the node, or as a member of "
        "the gateway_socket_group of its configuration"));
  }
  return absl::UnavailableError(text);
}

// The error of a gateway that was dialled with TLS. FAILED_PRECONDITION when
// the handshake failed: to connect again does not help.
absl::Status TlsError(const Address& address, const std::string& ca,
                      const absl::Status& why) {
  const std::string text =
      absl::StrCat("cannot connect to ", address.text, ": ", why.message());
  if (absl::StrContains(why.message(), "certificate")) {
    return absl::FailedPreconditionError(
        absl::StrCat(text, " (trusted authorities: ", ca, ")"));
  }
  const std::string hint = absl::StrCat(
      text, ". If this gateway does not use TLS, dial ", address.to_dial);
  return absl::IsInternal(why) ? absl::FailedPreconditionError(hint)
                               : absl::UnavailableError(hint);
}

// The error of a hello without an answer, over plaintext TCP.
absl::Status NoAnswer(const Address& address, const absl::Status& why) {
  if (!absl::IsUnavailable(why) && !absl::IsInternal(why)) return why;
  return absl::UnavailableError(absl::StrCat(
      address.text,
      " closed the connection before it answered hello: ", why.message(),
      ". If this gateway accepts only TLS, dial ", kTlsScheme, address.text));
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> Connection::Open(
    std::string_view address, const ConnectOptions& options) {
  const absl::StatusOr<Address> parsed = Parse(address);
  if (!parsed.ok()) return parsed.status();
  const std::string ca = CaFile(options);
  const absl::StatusOr<SslContext> tls = ContextFor(*parsed, ca);
  if (!tls.ok()) return tls.status();
  std::shared_ptr<Connection> connection(new Connection());
  connection->loop_ = ClientLoop::OfThisThread();
  auto stream = connection->loop_->Wait(
      Dial(connection->loop_->io().getNetwork(), *parsed, tls->get()),
      options.timeout);
  if (!stream.ok()) {
    return *tls == nullptr ? ConnectError(*parsed, stream.status())
                           : TlsError(*parsed, ca, stream.status());
  }
  connection->stream_ = kj::mv(*stream);
  const auto side = capnp::rpc::twoparty::Side::CLIENT;
  if (parsed->local) {
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
    return parsed->local || *tls != nullptr ? status
                                            : NoAnswer(*parsed, status);
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
