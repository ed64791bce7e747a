#include "bench/isa_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kdn::bench {
namespace {

constexpr char kVariable[] = "KDN_ISA=";

// This process's environment, with another KDN_ISA.
std::vector<std::string> EnvironmentWith(Isa isa) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!absl::StartsWith(*entry, kVariable)) environment.emplace_back(*entry);
  }
  environment.push_back(absl::StrCat(kVariable, std::string(Name(isa))));
  return environment;
}

std::vector<char*> PointersTo(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Runs a command without its standard output. Whether it exited with 0.
bool Run(std::vector<std::string> command,
         std::vector<std::string> environment) {
  posix_spawn_file_actions_t quiet;
  posix_spawn_file_actions_init(&quiet);
  posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  int status =
      posix_spawn(&child, command[0].c_str(), &quiet, nullptr,
                  PointersTo(command).data(), PointersTo(environment).data());
  posix_spawn_file_actions_destroy(&quiet);
  if (status == 0 && waitpid(child, &status, 0) != child) status = -1;
  return status == 0;
}

}  // namespace

absl::StatusOr<nlohmann::json> SpeedsWith(const std::string& program,
                                          double base_bits, Isa isa) {
  std::string file =
      std::filesystem::temp_directory_path() / "kdn-speeds-XXXXXX";
  const int descriptor = mkstemp(file.data());
  if (descriptor < 0) {
    return absl::InternalError(absl::StrCat("cannot write ", file));
  }
  close(descriptor);
  const bool ran = Run({program, "bench", "codec", "--speeds", "--base-bits",
                        absl::StrCat(base_bits), "--json", file},
                       EnvironmentWith(isa));
  std::ifstream in(file);
  nlohmann::json json = nlohmann::json::parse(in, nullptr, false);
  std::remove(file.c_str());
  if (ran && !json.is_discarded()) return json;
  return absl::InternalError(absl::StrCat(
      program,
      " bench codec --speeds failed with KDN_ISA=", std::string(Name(isa))));
}

}  // namespace kdn::bench
