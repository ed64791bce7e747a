#include "cli/calibration_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "codec/calibration/calibration_format.h"
#include "storage/new_file.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

// The calibration of a model with 128 layers and 128 KV heads takes a third of
// this.
constexpr uintmax_t kFileBytesMax = 2ull << 30;

absl::StatusOr<std::vector<std::string>> FilesIn(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> paths;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == kCalibrationSuffix) {
      paths.push_back(entry->path().string());
    }
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibrations ", directory, ": ", error.message()));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<std::vector<std::byte>> ReadAll(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) return absl::InvalidArgumentError(error.message());
  if (bytes > kFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the file has ", bytes, " bytes, expected at most ", kFileBytesMax));
  }
  std::vector<std::byte> content(bytes);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(content.data()),
            static_cast<std::streamsize>(content.size()));
  if (!file) return absl::InvalidArgumentError("the file cannot be read");
  return content;
}

}  // namespace

absl::StatusOr<CalibrationFile> LoadCalibration(const std::string& path) {
  const auto with_path = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  };
  absl::StatusOr<std::vector<std::byte>> content = ReadAll(path);
  if (!content.ok()) return with_path(content.status());
  auto calibration = codec::ParseCalibration(*content);
  if (!calibration.ok()) return with_path(calibration.status());
  return CalibrationFile{path, *std::move(content), *std::move(calibration)};
}

absl::StatusOr<std::vector<CalibrationFile>> LoadCalibrations(
    const std::string& directory) {
  const absl::StatusOr<std::vector<std::string>> paths = FilesIn(directory);
  if (!paths.ok()) return paths.status();
  std::vector<CalibrationFile> files;
  for (const std::string& path : *paths) {
    absl::StatusOr<CalibrationFile> file = LoadCalibration(path);
    if (!file.ok()) return file.status();
    files.push_back(*std::move(file));
  }
  return files;
}

absl::Status SaveCalibration(absl::Span<const std::byte> bytes,
                             const std::string& path) {
  // A node that starts meanwhile does not read the new file, because its suffix
  // differs.
  absl::StatusOr<storage::NewFile> file = storage::NewFile::Write(
      path, absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                              bytes.size()));
  if (!file.ok()) return file.status();
  return file->Commit();
}

}  // namespace kdn::cli
