#include "kv/level.h"

namespace kdn {

std::string_view Name(Level level) {
  switch (level) {
    case Level::kLossless:
      return "lossless";
    case Level::kInt8:
      return "int8";
    case Level::kBase:
      return "base";
    case Level::kBase1:
      return "base+1";
    case Level::kBase2:
      return "base+2";
    case Level::kArchive:
      return "archive";
  }
  return "unknown";
}

std::optional<Level> ParseLevel(std::string_view name) {
  for (const Level level : kLevelsByQuality) {
    if (Name(level) == name) return level;
  }
  return std::nullopt;
}

}  // namespace kdn
