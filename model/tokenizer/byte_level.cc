#include "model/tokenizer/byte_level.h"

#include <array>

#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

constexpr int kStandInsMax = 0x200;  // above the last stand-in, U+0143

struct StandIns {
  std::array<std::string, 256> of_byte;
  std::array<int16_t, kStandInsMax> byte_of;  // -1: stands for no byte
};

const StandIns& TheStandIns() {
  static const StandIns* const table = [] {
    auto* made = new StandIns;
    made->byte_of.fill(-1);
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) ||
                             (byte >= 161 && byte <= 172) || byte >= 174;
      const char32_t character =
          printable ? static_cast<char32_t>(byte) : next++;
      AppendUtf8(character, made->of_byte[byte]);
      made->byte_of[character] = static_cast<int16_t>(byte);
    }
    return made;
  }();
  return *table;
}

}  // namespace

std::string ToStandIns(std::string_view bytes) {
  const StandIns& table = TheStandIns();
  std::string text;
  text.reserve(bytes.size());
  for (char c : bytes) text += table.of_byte[static_cast<uint8_t>(c)];
  return text;
}

std::optional<uint8_t> ByteOfStandIn(char32_t character) {
  if (character >= kStandInsMax) return std::nullopt;
  const int16_t byte = TheStandIns().byte_of[character];
  if (byte < 0) return std::nullopt;
  return static_cast<uint8_t>(byte);
}

}  // namespace kdn::model
