#include "rpc/tls/pem_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kdn::rpc {
namespace {

constexpr size_t kBytesMax = 1u << 20;

absl::Status ErrnoStatus(const std::string& path) {
  const std::string text = absl::StrCat(path, ": ", std::strerror(errno));
  if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(text);
  return absl::PermissionDeniedError(text);
}

absl::Status CheckFile(const std::string& path, int file, FileAccess allowed) {
  struct stat status {};
  if (fstat(file, &status) != 0) return ErrnoStatus(path);
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a regular file"));
  }
  if (allowed == FileAccess::kOwnerAndGroup &&
      (status.st_mode & S_IRWXO) != 0) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "%s: its mode %04o gives every user of this machine access to a "
        "private key: run `chmod 600 %s`",
        path, status.st_mode & 07777, path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadPemFile(const std::string& path,
                                        FileAccess allowed) {
  // Without O_NONBLOCK, a FIFO of this name would block.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return ErrnoStatus(path);
  const absl::Cleanup closes = [file] { close(file); };
  if (absl::Status s = CheckFile(path, file, allowed); !s.ok()) return s;
  std::string text(kBytesMax + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(file, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(path);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": the file has more than ", kBytesMax, " bytes; is it PEM?"));
  }
  text.resize(size);
  return text;
}

}  // namespace kdn::rpc
