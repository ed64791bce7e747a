#include "cli/temp_directory.h"

#include <pthread.h>
#include <stdlib.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

// Tries several times: a process that still runs may add a file meanwhile.
void Remove(const std::string& path) {
  constexpr int kTries = 20;
  std::error_code error;
  for (int i = 0; i < kTries; ++i) {
    fs::remove_all(path, error);
    if (!error) return;
  }
}

// The existing directories, and the thread that removes them on a signal.
class Registry {
 public:
  static Registry& Get() {
    static auto* registry = new Registry;
    return *registry;
  }
  void Add(const std::string& path) {
    absl::MutexLock lock(&mutex_);
    paths_.insert(path);
  }
  void Erase(const std::string& path) {
    absl::MutexLock lock(&mutex_);
    paths_.erase(path);
  }

 private:
  Registry() {
    sigset_t ending;
    sigemptyset(&ending);
    for (int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ending, number);
    pthread_sigmask(SIG_BLOCK, &ending, nullptr);
    std::thread([this, ending] { Watch(ending); }).detach();
  }
  void Watch(const sigset_t& ending) {
    int received = 0;
    if (sigwait(&ending, &received) != 0) return;
    {
      absl::MutexLock lock(&mutex_);
      for (const std::string& path : paths_) Remove(path);
    }
    // The program ends by the signal, so that its parent sees the signal.
    std::signal(received, SIG_DFL);
    sigset_t this_one;
    sigemptyset(&this_one);
    sigaddset(&this_one, received);
    pthread_sigmask(SIG_UNBLOCK, &this_one, nullptr);
    raise(received);
  }

  absl::Mutex mutex_;
  std::set<std::string> paths_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<TempDirectory> TempDirectory::Create(const std::string& parent,
                                                    const std::string& prefix) {
  Registry& registry = Registry::Get();
  std::string path = absl::StrCat(parent, "/", prefix, "XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot make a directory in ",
                                               parent, ": ", strerror(errno)));
  }
  registry.Add(path);
  return TempDirectory(std::move(path));
}

TempDirectory::~TempDirectory() {
  if (path_.empty()) return;
  Registry::Get().Erase(path_);
  Remove(path_);
}

void TempDirectory::Keep() {
  if (!path_.empty()) Registry::Get().Erase(path_);
  path_.clear();
}

}  // namespace kdn::cli
