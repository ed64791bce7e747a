#ifndef KDN_KV_LOG_H_
#define KDN_KV_LOG_H_

#include <cstdint>
#include <functional>

#include "absl/strings/string_view.h"

// The log of the libraries. They do not depend on a logging library: a program
// receives the lines through SetLogSink. Without a sink nothing is written, so
// an engine that links the client library stays silent.
namespace kdn {

enum class LogSeverity : uint8_t { kInfo, kWarning, kError };

// Writes one line. Called on any thread, but never by two threads at once. Must
// not call the functions below: that would deadlock.
using LogSink = std::function<void(LogSeverity severity, absl::string_view site,
                                   absl::string_view message)>;

// Passes all later lines to `sink`; null: drops them. Thread-safe.
void SetLogSink(LogSink sink);

// Write a line. `site` names the place in the code, such as "bulk.accept". A
// site that logs about many peers ends with the peer's name, as in
// "placement.down n2". Each site writes at most one warning and one error in
// ten seconds; the next line says how many lines were left out. LogInfo has no
// such limit. Thread-safe.
void LogInfo(absl::string_view site, absl::string_view message);
void LogWarning(absl::string_view site, absl::string_view message);
void LogError(absl::string_view site, absl::string_view message);

}  // namespace kdn

#endif  // KDN_KV_LOG_H_
