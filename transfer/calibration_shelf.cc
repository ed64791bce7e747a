#include "transfer/calibration_shelf.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "codec/calibration/calibration_format.h"
#include "kv/digest.h"
#include "kv/log.h"
#include "storage/new_file.h"

namespace kdn::transfer {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".kdncal";
// Of a file that was being written when the node died.
constexpr char kUnfinished[] = ".new";

absl::StatusOr<std::vector<std::byte>> ReadWhole(const std::string& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(path, ": ", error.message()));
  }
  std::vector<std::byte> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!file) {
    return absl::UnavailableError(absl::StrCat(path, " cannot be read"));
  }
  return bytes;
}

codec::CalibrationId IdOf(absl::Span<const std::byte> bytes) {
  return codec::CalibrationId(
      Sha256Of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
}

absl::StatusOr<std::vector<std::string>> FilesIn(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> paths;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == kUnfinished) {
      fs::remove(entry->path(), error);
    } else if (entry->path().extension() == kSuffix) {
      paths.push_back(entry->path().string());
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat(directory, ": ", error.message()));
  }
  return paths;
}

}  // namespace

std::string CalibrationShelf::PathOf(const codec::CalibrationId& id) const {
  return absl::StrCat(options_.directory, "/", Hex(id), kSuffix);
}

absl::Status CalibrationShelf::Open() {
  if (options_.directory.empty()) return absl::OkStatus();
  std::error_code error;
  fs::create_directories(options_.directory, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "cannot make ", options_.directory, ": ", error.message()));
  }
  const auto paths = FilesIn(options_.directory);
  if (!paths.ok()) return paths.status();
  for (const std::string& path : *paths) {
    absl::StatusOr<std::vector<std::byte>> bytes = ReadWhole(path);
    absl::Status status = bytes.status();
    if (bytes.ok() && PathOf(IdOf(*bytes)) != path) {
      status = absl::FailedPreconditionError(
          "its name is not the id of its contents; `kdn codec store` takes "
          "files of any name");
    } else if (bytes.ok()) {
      status =
          Add(*std::move(bytes), /*limited=*/false, /*on_disk=*/true).status();
    }
    if (status.ok()) continue;
    LogError("calibration.open",
             absl::StrCat(path, " is left out: ", status.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<CalibrationShelf::Entry> CalibrationShelf::Keep(
    std::vector<std::byte> bytes, absl::Time now) {
  // New objects use the calibration that was made last. One from the future
  // would be that for ever.
  constexpr absl::Duration kClocksApart = absl::Hours(24);
  const auto stored = codec::ReadCalibration(bytes);
  if (!stored.ok()) return stored.status();
  if (stored->info.created > now + kClocksApart) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the calibration says that it was made at ",
        absl::FormatTime(stored->info.created, absl::UTCTimeZone()),
        ", which is in the future: set the clock of its host, and make the "
        "calibration again"));
  }
  return Add(std::move(bytes), /*limited=*/true, /*on_disk=*/false);
}

absl::StatusOr<CalibrationShelf::Entry> CalibrationShelf::KeepAs(
    const codec::CalibrationId& id, std::vector<std::byte> bytes) {
  const codec::CalibrationId found = IdOf(bytes);
  if (found != id) {
    return absl::DataLossError(absl::StrCat(
        "asked for calibration ", ShortHex(id), ", got ", ShortHex(found)));
  }
  return Add(std::move(bytes), /*limited=*/true, /*on_disk=*/false);
}

absl::StatusOr<CalibrationShelf::Entry> CalibrationShelf::KeepConfigured(
    std::vector<std::byte> bytes) {
  return Add(std::move(bytes), /*limited=*/false, /*on_disk=*/false);
}

absl::Status CalibrationShelf::CheckRoom(uint64_t bytes) const {
  if (kept_.size() >= options_.count_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "this node has ", kept_.size(), " calibrations, and keeps no more"));
  }
  if (bytes > options_.bytes_max || bytes_ > options_.bytes_max - bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a calibration of ", bytes, " bytes: this node has ",
                     bytes_, " of ", options_.bytes_max,
                     " bytes of calibrations: give the node more "
                     "memory"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CalibrationShelf::Entry> CalibrationShelf::Add(
    std::vector<std::byte> bytes, bool limited, bool on_disk) {
  auto calibration = codec::ParseCalibration(bytes);
  if (!calibration.ok()) return calibration.status();
  const Entry entry{(*calibration)->id(), (*calibration)->model(),
                    (*calibration)->created(), bytes.size()};
  absl::MutexLock lock(&mutex_);
  if (kept_.count(entry.id) > 0) return entry;
  if (absl::Status room = CheckRoom(bytes.size()); limited && !room.ok()) {
    return room;
  }
  Kept kept{entry, nullptr};
  if (options_.directory.empty()) {
    kept.bytes =
        std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  } else if (!on_disk) {
    absl::StatusOr<storage::NewFile> file = storage::NewFile::Write(
        PathOf(entry.id),
        absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                          bytes.size()));
    if (!file.ok()) return file.status();
    if (absl::Status s = file->Commit(); !s.ok()) return s;
  }
  bytes_ += entry.bytes;
  kept_.emplace(entry.id, std::move(kept));
  set_->Add(*std::move(calibration));
  LogInfo("calibration.keep",
          absl::StrCat("calibration ", ShortHex(entry.id), " of model ",
                       ShortHex(entry.model), ", ", entry.bytes, " bytes"));
  return entry;
}

absl::StatusOr<CalibrationBytes> CalibrationShelf::BytesOf(
    const codec::CalibrationId& id) const {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = kept_.find(id);
    if (found == kept_.end()) {
      return absl::NotFoundError(
          absl::StrCat("this node has no calibration ", ShortHex(id)));
    }
    if (found->second.bytes != nullptr) return found->second.bytes;
  }
  absl::StatusOr<std::vector<std::byte>> bytes = ReadWhole(PathOf(id));
  if (!bytes.ok()) return bytes.status();
  return std::make_shared<const std::vector<std::byte>>(*std::move(bytes));
}

std::vector<CalibrationShelf::Entry> CalibrationShelf::entries() const {
  std::vector<Entry> entries;
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, kept] : kept_) entries.push_back(kept.entry);
  return entries;
}

}  // namespace kdn::transfer
