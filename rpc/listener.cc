#include "rpc/listener.h"

#include <fcntl.h>
#include <grp.h>
#include <kj/debug.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/host_port.h"
#include "kv/log.h"

namespace kdn::rpc {
namespace {

constexpr int kBacklog = 128;

absl::Status ListenError(const std::string& address, int error) {
  const std::string text =
      absl::StrCat("cannot listen on ", address, ": ", strerror(error));
  if (error == EADDRINUSE) return absl::AlreadyExistsError(text);
  if (error == EADDRNOTAVAIL || error == EACCES || error == ENOENT) {
    return absl::InvalidArgumentError(text);
  }
  return absl::ResourceExhaustedError(text);
}

absl::StatusOr<int> Listen(kj::AutoCloseFd fd, const std::string& address) {
  if (listen(fd.get(), kBacklog) != 0) return ListenError(address, errno);
  return fd.release();
}

// Nobody can connect before the socket listens, so the access is set before.
absl::Status SetAccess(const std::string& path, const SocketAccess& access) {
  if (!access.group.empty()) {
    const group* const found = getgrnam(access.group.c_str());
    if (found == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen on ", path, ": no group ", access.group));
    }
    if (chown(path.c_str(), static_cast<uid_t>(-1), found->gr_gid) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot give ", path, " to the group ", access.group, ": ",
          strerror(errno), ": the user of the node must be a member of it"));
    }
  }
  if (chmod(path.c_str(), access.mode) == 0) return absl::OkStatus();
  return ListenError(path, errno);
}

// Removes a socket file on which no process listens. OK when there is no file.
absl::Status RemoveStaleSocket(const std::string& path, const sockaddr_un& at) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " exists and is not a socket"));
  }
  kj::AutoCloseFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&at),
              sizeof(at)) == 0 ||
      errno != ECONNREFUSED) {
    return ListenError(path, EADDRINUSE);
  }
  unlink(path.c_str());
  return absl::OkStatus();
}

using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

// The addresses of a host and a port for a TCP socket.
absl::StatusOr<AddressList> Resolve(const std::string& host,
                                    const std::string& service) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                service.c_str(), &hints, &found);
  if (error == 0) return AddressList(found, freeaddrinfo);
  return absl::InvalidArgumentError(gai_strerror(error));
}

}  // namespace

absl::StatusOr<std::string> NumericAddress(const std::string& host) {
  absl::StatusOr<AddressList> found = Resolve(host, "0");
  if (!found.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "host ", host, " has no address: ", found.status().message()));
  }
  const addrinfo* chosen = found->get();
  for (const addrinfo* at = chosen; at != nullptr; at = at->ai_next) {
    if (at->ai_family != AF_INET) continue;
    chosen = at;
    break;
  }
  char text[NI_MAXHOST];
  const int error = getnameinfo(chosen->ai_addr, chosen->ai_addrlen, text,
                                sizeof(text), nullptr, 0, NI_NUMERICHOST);
  if (error == 0) return std::string(text);
  return absl::InvalidArgumentError(
      absl::StrCat("host ", host, ": ", gai_strerror(error)));
}

bool IsLoopback(const std::string& numeric) {
  return numeric == "::1" || numeric.rfind("127.", 0) == 0;
}

absl::StatusOr<int> ListenTcp(const std::string& host, uint16_t port) {
  const std::string address = HostPort(host, port);
  const absl::StatusOr<AddressList> list = Resolve(host, absl::StrCat(port));
  if (!list.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on ", address, ": ", list.status().message()));
  }
  const addrinfo* const found = list->get();
  kj::AutoCloseFd fd(
      socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return ListenError(address, errno);
  const int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) {
    return ListenError(address, errno);
  }
  return Listen(kj::mv(fd), address);
}

absl::StatusOr<int> ListenUnix(const std::string& path,
                               const SocketAccess& access) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  if (path.size() >= sizeof(at.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path ", path, " has ", path.size(),
                     " bytes, expected fewer than ", sizeof(at.sun_path)));
  }
  std::memcpy(at.sun_path, path.data(), path.size());
  if (absl::Status status = RemoveStaleSocket(path, at); !status.ok()) {
    return status;
  }
  kj::AutoCloseFd fd(
      socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return ListenError(path, errno);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)) != 0) {
    return ListenError(path, errno);
  }
  if (absl::Status s = SetAccess(path, access); !s.ok()) return s;
  return Listen(kj::mv(fd), path);
}

uint16_t PortOf(int fd) {
  sockaddr_storage at{};
  socklen_t length = sizeof(at);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length) != 0) return 0;
  if (at.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<sockaddr_in6*>(&at)->sin6_port);
  }
  return ntohs(reinterpret_cast<sockaddr_in*>(&at)->sin_port);
}

namespace {

using OnStream = std::function<void(kj::Own<kj::AsyncIoStream>)>;

// Between two waits for the event port, so that a flood of connections does not
// keep the loop from its other work.
constexpr int kAcceptsPerTurn = 16;
constexpr auto kFullPause = 100 * kj::MILLISECONDS;

enum class AcceptResult {
  kAccepted,
  kNone,    // no client waits
  kGone,    // the client that waited has gone
  kFull,    // no file descriptor or memory is left
  kBroken,  // the listening socket is broken
};

AcceptResult ResultOf(int error) {
  switch (error) {
    case EAGAIN:
      return AcceptResult::kNone;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return AcceptResult::kFull;
    case EBADF:
    case EFAULT:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
      return AcceptResult::kBroken;
    default:
      // ECONNABORTED, EINTR, and network errors of the new connection, which
      // Linux reports here: see accept(2).
      return AcceptResult::kGone;
  }
}

kj::AutoCloseFd OpenSpare() {
  return kj::AutoCloseFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

// Accepts the connections of one listening socket. Keeps one spare descriptor:
// when the process has no other left, it gives up the spare to accept a client
// and to hang up on it, so that the client does not wait in vain.
class Acceptor {
 public:
  Acceptor(EventLoop& loop, int fd, OnStream on_stream)
      : loop_(loop),
        listening_(fd),
        spare_(OpenSpare()),
        observer_(loop.event_port(), fd,
                  kj::UnixEventPort::FdObserver::OBSERVE_READ),
        on_stream_(std::move(on_stream)) {}

  kj::Promise<void> Run();

 private:
  AcceptResult AcceptOne();
  void Serve(int fd);
  void HangUpOnOne();
  kj::Promise<void> RunAt(kj::TimePoint time) {
    return loop_.At(time).then([this] { return Run(); });
  }

  EventLoop& loop_;
  kj::AutoCloseFd listening_;
  kj::AutoCloseFd spare_;
  kj::UnixEventPort::FdObserver observer_;
  OnStream on_stream_;
};

kj::Promise<void> Acceptor::Run() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    const AcceptResult result = AcceptOne();
    KDN_CHECK(result != AcceptResult::kBroken, "a listening socket is broken");
    if (result == AcceptResult::kNone) {
      return observer_.whenBecomesReadable().then([this] { return Run(); });
    }
    if (result == AcceptResult::kFull) {
      LogError("listener.accept",
               absl::StrCat("cannot accept a connection: ", strerror(errno),
                            ". Raise the limit of open files (ulimit -n, "
                            "LimitNOFILE of systemd)"));
      HangUpOnOne();
      return RunAt(EventLoop::Now() + kFullPause);
    }
  }
  return RunAt(EventLoop::Now());
}

AcceptResult Acceptor::AcceptOne() {
  const int fd =
      accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return ResultOf(errno);
  Serve(fd);
  return AcceptResult::kAccepted;
}

void Acceptor::Serve(int fd) {
  using Provider = kj::LowLevelAsyncIoProvider;
  auto broken = kj::runCatchingExceptions([&] {
    on_stream_(loop_.low_level_io().wrapSocketFd(
        fd, Provider::TAKE_OWNERSHIP | Provider::ALREADY_CLOEXEC |
                Provider::ALREADY_NONBLOCK));
  });
  KJ_IF_MAYBE (exception, broken) {
    LogError("listener.accept", exception->getDescription().cStr());
  }
}

void Acceptor::HangUpOnOne() {
  if (spare_.get() >= 0) {
    spare_ = nullptr;
    const kj::AutoCloseFd refused(accept4(listening_.get(), nullptr, nullptr,
                                          SOCK_NONBLOCK | SOCK_CLOEXEC));
  }
  spare_ = OpenSpare();
}

}  // namespace

kj::Promise<void> AcceptAll(EventLoop& loop, int listening_fd,
                            OnStream on_stream) {
  auto acceptor = kj::heap<Acceptor>(loop, listening_fd, std::move(on_stream));
  auto running = acceptor->Run();
  return running.attach(kj::mv(acceptor));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> DialAddress(
    kj::Network& network, const std::string& address) {
  return network.parseAddress(address.c_str())
      .then([](kj::Own<kj::NetworkAddress> parsed) {
        auto connecting = parsed->connect();
        return connecting.attach(kj::mv(parsed));
      });
}

std::string PeerOf(kj::AsyncIoStream& stream) {
  sockaddr_storage at{};
  kj::uint length = sizeof(at);
  stream.getpeername(reinterpret_cast<sockaddr*>(&at), &length);
  if (at.ss_family != AF_INET6) {
    const in_addr& four = reinterpret_cast<const sockaddr_in*>(&at)->sin_addr;
    return std::string(reinterpret_cast<const char*>(&four), sizeof(four));
  }
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(&at)->sin6_addr;
  const char* bytes = reinterpret_cast<const char*>(&six);
  if (IN6_IS_ADDR_V4MAPPED(&six)) return std::string(bytes + 12, 4);
  return std::string(bytes, 8);
}

void TuneTcp(kj::AsyncIoStream& stream) {
  const auto set = [&](int level, int option, int value) {
    stream.setsockopt(level, option, &value, sizeof(value));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  // A host that has lost its power closes no connection. Keepalive asks a
  // silent host after 10 s, then every 5 s, and gives up after three times.
  // Sent bytes may stay unacknowledged for 30 s.
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30'000);
  // The kernel doubles this value. Bytes on their way then still lie in the
  // CPU's cache: a fetch between two nodes of one host ran at 4.1 GB/s with
  // this value, at 3.3 GB/s with the default, which grows to 4 MB, and at 2.5
  // GB/s with a quarter of this value. TCP_NOTSENT_LOWAT did not help (`kdn
  // bench delivery remote`).
  constexpr int kSendBufferBytes = 512 << 10;
  set(SOL_SOCKET, SO_SNDBUF, kSendBufferBytes);
}

}  // namespace kdn::rpc
