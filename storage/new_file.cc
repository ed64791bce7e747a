#include "storage/new_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace kdn::storage {
namespace {

// The error of the call that has just failed.
absl::Status CannotWrite(const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
}

// Makes the names in the directory of `path` last, on the file systems that can
// sync a directory.
void SyncDirectoryOf(const std::string& path) {
  const std::string directory =
      std::filesystem::path(path).parent_path().string();
  const int file = open(directory.empty() ? "." : directory.c_str(),
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;
  fsync(file);
  close(file);
}

}  // namespace

// The new file lies beside the old one, so that both are on one file system and
// a rename replaces the old one.
NewFile::NewFile(const std::string& path)
    : path_(path), fresh_(absl::StrCat(path, ".", getpid(), ".new")) {}

NewFile::~NewFile() {
  if (!fresh_.empty()) unlink(fresh_.c_str());
}

absl::StatusOr<NewFile> NewFile::Write(const std::string& path,
                                       absl::string_view bytes, mode_t mode) {
  NewFile file(path);
  if (absl::Status s = file.Fill(bytes, mode); !s.ok()) return s;
  return file;
}

absl::Status NewFile::Fill(absl::string_view bytes, mode_t mode) {
  // A program that died may have left a file of this name, with another mode.
  unlink(fresh_.c_str());
  const int file =
      open(fresh_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) return CannotWrite(path_);
  const absl::Cleanup closes = [file] { close(file); };
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) return CannotWrite(path_);
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
  return fsync(file) == 0 ? absl::OkStatus() : CannotWrite(path_);
}

absl::Status NewFile::Commit() {
  if (rename(fresh_.c_str(), path_.c_str()) != 0) return CannotWrite(path_);
  fresh_.clear();
  SyncDirectoryOf(path_);
  return absl::OkStatus();
}

}  // namespace kdn::storage
