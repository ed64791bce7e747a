#include "bench/report.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace kdn::bench {

absl::Status PrintReport(const nlohmann::json& json, const std::string& file) {
  const std::string text = json.dump(1) + "\n";
  std::fputs(text.c_str(), stdout);
  if (file.empty()) return absl::OkStatus();
  std::ofstream out(file);
  out << text;
  out.close();
  if (out.fail()) {
    return absl::UnavailableError(absl::StrCat("cannot write ", file));
  }
  return absl::OkStatus();
}

std::string NameOfDirectory(const std::string& directory) {
  const std::filesystem::path path = std::filesystem::path(directory) / "";
  return path.parent_path().filename().string();
}

}  // namespace kdn::bench
