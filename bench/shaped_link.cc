#include "bench/shaped_link.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace kdn::bench {
namespace {

// A packet on loopback has up to 64 KiB and must fit into the token bucket.
constexpr double kBurstBytesMin = 128 << 10;

// This function and the ones below return 0 or the errno of the failure.
int WriteTo(const char* file, const std::string& text) {
  const int fd = open(file, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const bool written =
      write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  close(fd);
  return written ? 0 : error;
}

int RaiseLoopback() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  ifreq lo{};
  std::strcpy(lo.ifr_name, "lo");
  lo.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
  const bool up = ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
  const int error = errno;
  close(fd);
  return up ? 0 : error;
}

// Enters a user namespace as its root, and a network namespace in it, which its
// root may shape.
int EnterAsItsRoot() {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return errno;
  int error = WriteTo("/proc/self/setgroups", "deny");
  if (error == 0) {
    error = WriteTo("/proc/self/uid_map", absl::StrCat("0 ", user, " 1"));
  }
  if (error == 0) {
    error = WriteTo("/proc/self/gid_map", absl::StrCat("0 ", group, " 1"));
  }
  return error;
}

int Enter() {
  int error = unshare(CLONE_NEWNET) == 0 ? 0 : errno;
  if (error == EPERM) error = EnterAsItsRoot();
  return error == 0 ? RaiseLoopback() : error;
}

// Tries Enter in a child process: some systems let a process enter namespaces
// and then allow nothing in them, and a process cannot leave them again.
int TryToEnter() {
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) _exit(Enter());
  int status = 0;
  if (waitpid(child, &status, 0) != child) return errno;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

}  // namespace

absl::Status EnterOwnNetwork() {
  int error = TryToEnter();
  if (error == 0) error = Enter();
  if (error == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("a network namespace: ", strerror(error)));
}

absl::Status ShapeLoopback(double bytes_per_second) {
  // The PATH of a user who is not root may lack the directory of tc.
  std::string command = "PATH=$PATH:/usr/sbin:/sbin tc qdisc ";
  if (bytes_per_second > 0) {
    const double burst = std::max(bytes_per_second / 100, kBurstBytesMin);
    absl::StrAppend(&command, "replace dev lo root tbf rate ",
                    std::llround(8 * bytes_per_second), "bit burst ",
                    std::llround(burst), " latency 50ms");
  } else {
    absl::StrAppend(&command, "del dev lo root 2>/dev/null; true");
  }
  if (std::system(command.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("`", command, "` failed; tc is in the package iproute2"));
}

}  // namespace kdn::bench
