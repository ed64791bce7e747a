#ifndef KDN_KV_LOG_H_
#define KDN_KV_LOG_H_

#include <cstdint>
#include <functional>

#include "absl/strings/string_view.h"

// Where libraries report what went wrong. The libraries name no logging
// library: a program gives the lines a place with SetLogSink. Without a sink
// nothing is written, so an engine that links the client stays silent.
namespace kdn {

enum class LogSeverity : uint8_t { kInfo, kWarning, kError };

// Writes one line. May be called on any thread, one call at a time, and must
// not log itself.
using LogSink = std::function<void(LogSeverity severity, absl::string_view site,
                                   absl::string_view message)>;

// Lines go to `sink` from now on; null: nowhere. Thread-safe.
void SetLogSink(LogSink sink);

// `site` names the place in the code ("bulk.accept"). Where each peer needs
// lines of its own, the peer follows ("placement.down n2"). Of one site at most
// one warning and one error is written in ten seconds; the next line says how
// many were left out. Information is always written. Thread-safe.
void LogInfo(absl::string_view site, absl::string_view message);
void LogWarning(absl::string_view site, absl::string_view message);
void LogError(absl::string_view site, absl::string_view message);

}  // namespace kdn

#endif  // KDN_KV_LOG_H_
