#include "model/file_digest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kv/check.h"
#include "kv/clock.h"
#include "kv/digest.h"
#include "kv/log.h"

namespace kdn::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Sha256 = std::array<uint8_t, 32>;

constexpr absl::Duration kSettled = absl::Seconds(2);
constexpr absl::Duration kWaitMax = absl::Minutes(15);
constexpr absl::Duration kSaidAfter = absl::Seconds(1);
constexpr absl::Duration kSaidEvery = absl::Seconds(10);
constexpr size_t kBlockBytes = size_t{16} << 20;

absl::Span<const uint8_t> BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::optional<Sha256> FromHex(const std::string& hex) {
  const bool lower = std::all_of(hex.begin(), hex.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (hex.size() != 64 || !lower) return std::nullopt;
  const std::string bytes = absl::HexStringToBytes(hex);
  Sha256 digest;
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

// Says after a second, and then every ten seconds, that work goes on.
class Progress {
 public:
  template <typename Line>
  void Say(const Line& line) {
    if (SteadyNow() < next_) return;
    LogInfo("model.digest", line());
    next_ = SteadyNow() + kSaidEvery;
  }

 private:
  absl::Time next_ = SteadyNow() + kSaidAfter;
};

Sha256 Hash(const OpenFile& file) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(
      EVP_MD_CTX_new(), EVP_MD_CTX_free);
  KDN_CHECK(EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1,
            "OpenSSL has no SHA-256");
  Progress progress;
  for (size_t begin = 0; begin < file.bytes.size(); begin += kBlockBytes) {
    const absl::Span<const uint8_t> block =
        file.bytes.subspan(begin, kBlockBytes);
    KDN_CHECK(EVP_DigestUpdate(context.get(), block.data(), block.size()) == 1,
              "SHA-256");
    progress.Say([&] {
      const size_t size = file.bytes.size();
      return absl::StrCat("hashing ", file.path, ": ",
                          100 * (begin + block.size()) / size, " % of ",
                          size / 1000000, " MB");
    });
  }
  Sha256 digest;
  KDN_CHECK(EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1,
            "SHA-256");
  return digest;
}

int64_t Nanoseconds(const timespec& time) {
  return absl::ToUnixNanos(absl::TimeFromTimespec(time));
}

Json StateOf(const std::string& path, const struct stat& state) {
  return {{"path", path},
          {"device", static_cast<uint64_t>(state.st_dev)},
          {"inode", static_cast<uint64_t>(state.st_ino)},
          {"size", static_cast<uint64_t>(state.st_size)},
          {"mtime_ns", Nanoseconds(state.st_mtim)},
          {"ctime_ns", Nanoseconds(state.st_ctim)}};
}

// The digest in a cache file; nullopt if there is none of this state.
std::optional<Sha256> ReadEntry(const fs::path& entry, const Json& state) {
  std::ifstream stream(entry, std::ios::binary);
  if (!stream) return std::nullopt;
  Json kept = Json::parse(stream, nullptr, false);
  const bool whole =
      kept.is_object() && kept.contains("sha256") && kept["sha256"].is_string();
  const std::optional<Sha256> digest =
      whole ? FromHex(kept["sha256"].get<std::string>()) : std::nullopt;
  if (!digest) {
    LogWarning(
        "model.digest",
        absl::StrCat(entry.string(), " is damaged, so that ",
                     state["path"].get<std::string>(), " is hashed again"));
    return std::nullopt;
  }
  kept.erase("sha256");
  return kept == state ? digest : std::nullopt;
}

// A rename is atomic: a reader finds the whole old file or the whole new one.
void WriteEntry(const fs::path& entry, const Json& content) {
  std::string temporary = absl::StrCat(entry.string(), ".XXXXXX");
  const int fd = mkstemp(temporary.data());
  // A path may have bytes that are no UTF-8.
  const std::string text = absl::StrCat(
      content.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
  bool done = fd >= 0 && write(fd, text.data(), text.size()) ==
                             static_cast<ssize_t>(text.size());
  if (fd >= 0) close(fd);
  done = done && rename(temporary.c_str(), entry.c_str()) == 0;
  if (done) return;
  LogWarning("model.digest",
             absl::StrCat("cannot write ", entry.string(),
                          ": the next start hashes the file again"));
  if (fd >= 0) unlink(temporary.c_str());
}

// The lock of one file's digest. Not held when the cache cannot be written, or
// when another process has held the lock for kWaitMax.
class Lock {
 public:
  Lock(const std::string& lock, const std::string& path)
      : fd_(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    Progress progress;
    const absl::Time end = SteadyNow() + kWaitMax;
    while (fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) != 0 &&
           errno == EWOULDBLOCK && SteadyNow() < end) {
      progress.Say([&] {
        return absl::StrCat("waiting for another process that hashes ", path);
      });
      absl::SleepFor(absl::Milliseconds(100));
    }
  }
  ~Lock() {
    if (fd_ >= 0) close(fd_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  const int fd_;
};

bool Unchanged(const std::string& path, const Json& state) {
  struct stat later {};
  return stat(path.c_str(), &later) == 0 && StateOf(path, later) == state;
}

}  // namespace

std::string DigestCacheDirectory() {
  const char* root = std::getenv("XDG_CACHE_HOME");
  if (root != nullptr && fs::path(root).is_absolute()) {
    return (fs::path(root) / "kdn/sha256").string();
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || !fs::path(home).is_absolute()) return "";
  return (fs::path(home) / ".cache/kdn/sha256").string();
}

Sha256 FileDigest(const OpenFile& file, const std::string& cache_directory,
                  absl::Time now) {
  std::error_code error;
  const fs::path real = fs::canonical(file.path, error);
  if (!error && real.parent_path().filename() == "blobs") {
    if (const auto named = FromHex(real.filename().string())) return *named;
  }
  if (error || cache_directory.empty() || file.bytes.size() < kCachedBytesMin) {
    return Hash(file);
  }
  const Json state = StateOf(real.string(), file.state);
  const fs::path entry =
      fs::path(cache_directory) / HexOf(Sha256Of(BytesOf(real.string())));
  const std::string json = absl::StrCat(entry.string(), ".json");
  if (const auto kept = ReadEntry(json, state)) return *kept;
  fs::create_directories(cache_directory, error);
  const Lock lock(absl::StrCat(entry.string(), ".lock"), real.string());
  if (const auto kept = ReadEntry(json, state)) return *kept;
  const Sha256 digest = Hash(file);
  const int64_t changed = std::max(Nanoseconds(file.state.st_mtim),
                                   Nanoseconds(file.state.st_ctim));
  if (changed < absl::ToUnixNanos(now - kSettled) &&
      Unchanged(real.string(), state)) {
    Json content = state;
    content["sha256"] = HexOf(digest);
    WriteEntry(json, content);
  }
  return digest;
}

}  // namespace kdn::model
