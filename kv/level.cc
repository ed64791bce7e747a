#include "kv/level.h"

namespace kdn {

std::string_view Name(Level level) {
  switch (level) {
    case Level::kLossless:
      return "lossless";
    case Level::kInt8:
      return "int8";
  }
  return "unknown";
}

std::optional<Level> ParseLevel(std::string_view name) {
  for (Level level : {Level::kLossless, Level::kInt8}) {
    if (Name(level) == name) return level;
  }
  return std::nullopt;
}

}  // namespace kdn
