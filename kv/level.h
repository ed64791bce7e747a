#ifndef KDN_KV_LEVEL_H_
#define KDN_KV_LEVEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kdn {

// The quality at which a chunk is encoded. The numbers are part of the wire and
// disk formats.
enum class Level : uint8_t {
  // The engine's own bytes, bit for bit, at the positions where they were
  // computed. At other positions K is rotated by the difference, in fp32.
  kLossless = 0,
  // 8 bits per value. K is kept before RoPE, with a scale per channel; V has a
  // scale per token.
  kInt8 = 1,
  // Transform-coded, with K before RoPE. base+1 refines base, and base+2
  // refines base+1: a refining level has a third of the step size of the level
  // before, and needs that level's streams.
  kBase = 2,
  kBase1 = 3,
  kBase2 = 4,
  // Transform-coded in steps twice as large as at base, for knowledge that is
  // kept for long and read rarely. Not refined. Needs a calibration of the
  // model.
  kArchive = 5,
};
inline constexpr int kLevelCount = 6;
// All levels, the most exact first.
inline constexpr std::array<Level, kLevelCount> kLevelsByQuality = {
    Level::kLossless, Level::kInt8, Level::kBase2,
    Level::kBase1,    Level::kBase, Level::kArchive};

std::string_view Name(Level level);
// Understands "lossless", "int8", "base", "base+1", "base+2" and "archive";
// nullopt for other names.
std::optional<Level> ParseLevel(std::string_view name);

// A set of levels, such as the levels that an object holds or that a reader
// accepts.
class LevelSet {
 public:
  constexpr LevelSet() = default;
  static constexpr LevelSet Of(Level level) {
    return LevelSet(static_cast<uint8_t>(1u << static_cast<int>(level)));
  }
  static constexpr LevelSet All() {
    return LevelSet(static_cast<uint8_t>((1u << kLevelCount) - 1));
  }
  // Takes any bits. Bits of unknown levels are dropped, so bits() may differ.
  static constexpr LevelSet FromBits(uint8_t bits) {
    return LevelSet(static_cast<uint8_t>(bits & All().bits_));
  }
  constexpr LevelSet With(Level level) const {
    return LevelSet(static_cast<uint8_t>(bits_ | Of(level).bits_));
  }
  constexpr bool Has(Level level) const {
    return (bits_ & Of(level).bits_) != 0;
  }
  constexpr LevelSet Without(LevelSet other) const {
    return LevelSet(static_cast<uint8_t>(bits_ & ~other.bits_));
  }
  constexpr LevelSet operator&(LevelSet other) const {
    return LevelSet(static_cast<uint8_t>(bits_ & other.bits_));
  }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr uint8_t bits() const { return bits_; }
  // The most exact level of the set. REQUIRES: not empty.
  constexpr Level Best() const {
    for (const Level level : kLevelsByQuality) {
      if (Has(level)) return level;
    }
    return Level::kArchive;
  }
  // The least exact level of the set. REQUIRES: not empty.
  constexpr Level Worst() const {
    for (size_t i = kLevelsByQuality.size(); i-- > 0;) {
      if (Has(kLevelsByQuality[i])) return kLevelsByQuality[i];
    }
    return Level::kLossless;
  }
  // This set and all levels that its levels refine. An object holds such a set.
  constexpr LevelSet WithRefined() const {
    LevelSet all = *this;
    if (all.Has(Level::kBase2)) all = all.With(Level::kBase1);
    if (all.Has(Level::kBase1)) all = all.With(Level::kBase);
    return all;
  }
  constexpr bool operator==(const LevelSet&) const = default;

 private:
  constexpr explicit LevelSet(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

}  // namespace kdn

#endif  // KDN_KV_LEVEL_H_
