#include "kv/log.h"

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kv/clock.h"
#include "kv/log_limit.h"

namespace kdn {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(10);

class Log {
 public:
  void SetSink(LogSink sink) {
    absl::MutexLock lock(&mutex_);
    sink_ = std::move(sink);
  }

  void Write(LogSeverity severity, absl::string_view site,
             absl::string_view message) {
    absl::MutexLock lock(&mutex_);
    if (sink_ == nullptr) return;
    if (severity == LogSeverity::kInfo) return sink_(severity, site, message);
    LogLimit& limit = severity == LogSeverity::kError ? errors_ : warnings_;
    const std::optional<uint64_t> left_out =
        limit.Admit({site.data(), site.size()}, SteadyNow());
    if (!left_out) return;
    if (*left_out == 0) return sink_(severity, site, message);
    sink_(severity, site,
          absl::StrCat(message, " (", *left_out, " lines like this left out)"));
  }

 private:
  absl::Mutex mutex_;
  LogSink sink_ ABSL_GUARDED_BY(mutex_);
  LogLimit warnings_ ABSL_GUARDED_BY(mutex_){kInterval};
  LogLimit errors_ ABSL_GUARDED_BY(mutex_){kInterval};
};

// Never destroyed: threads may log until the process is gone.
Log& TheLog() {
  static Log* const log = new Log();
  return *log;
}

}  // namespace

void SetLogSink(LogSink sink) { TheLog().SetSink(std::move(sink)); }

void LogInfo(absl::string_view site, absl::string_view message) {
  TheLog().Write(LogSeverity::kInfo, site, message);
}

void LogWarning(absl::string_view site, absl::string_view message) {
  TheLog().Write(LogSeverity::kWarning, site, message);
}

void LogError(absl::string_view site, absl::string_view message) {
  TheLog().Write(LogSeverity::kError, site, message);
}

}  // namespace kdn
