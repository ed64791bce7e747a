#include "kv/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn {
namespace {

absl::StatusOr<std::byte*> MapShared(int fd, size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "mapping ", bytes, " bytes of shared memory: ", strerror(errno)));
  }
  // The kernel follows this advice if shmem_enabled is "advise" and the mapping
  // is long enough.
  madvise(data, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Create(const char* name,
                                                  size_t bytes) {
  KDN_CHECK(bytes > 0, "an empty mapping is no memory");
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    const int error = errno;
    const bool is_full = error == EMFILE || error == ENFILE || error == ENOMEM;
    const std::string why = absl::StrCat("memfd_create: ", strerror(error));
    return is_full ? absl::ResourceExhaustedError(why)
                   : absl::FailedPreconditionError(why);
  }
  SharedMemory memory(nullptr, 0, fd);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("sizing a memfd to ", bytes, " bytes: ", strerror(errno)));
  }
  absl::StatusOr<std::byte*> data = MapShared(fd, bytes);
  if (!data.ok()) return data.status();
  memory.data_ = *data;
  memory.size_ = bytes;
  return memory;
}

absl::StatusOr<SharedMemory> SharedMemory::Map(int fd, size_t bytes) {
  SharedMemory memory(nullptr, 0, fd);
  struct stat info {};
  if (bytes == 0 || fstat(fd, &info) != 0 ||
      static_cast<uint64_t>(info.st_size) < bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "descriptor ", fd, " is not a file of at least ", bytes, " bytes"));
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "descriptor ", fd, " is not a memfd sealed against ", "shrinking"));
  }
  absl::StatusOr<std::byte*> data = MapShared(fd, bytes);
  if (!data.ok()) return data.status();
  memory.data_ = *data;
  memory.size_ = bytes;
  return memory;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, size_);
  if (fd_ >= 0) close(fd_);
}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  return *this;
}

absl::StatusOr<PrivateMemory> PrivateMemory::Create(size_t bytes) {
  KDN_CHECK(bytes > 0, "an empty mapping is no memory");
  // MAP_NORESERVE: a budget of the caller limits this memory, and most of it
  // may never be used, so the kernel need not reserve it.
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("mapping ", bytes, " bytes of memory: ", strerror(errno)));
  }
  // Without huge pages in the kernel this fails, and the pages are small.
  madvise(data, bytes, MADV_HUGEPAGE);
  return PrivateMemory(static_cast<std::byte*>(data), bytes);
}

PrivateMemory::~PrivateMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

PrivateMemory& PrivateMemory::operator=(PrivateMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace kdn
