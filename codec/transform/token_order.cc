#include "codec/transform/token_order.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "codec/calibration/calibration.h"
#include "codec/transform/symbol_bands.h"

namespace kdn::codec {

TokenOrder::TokenOrder(absl::Span<const uint8_t> classes)
    : rows_(classes.size()) {
  std::array<int, kTokenClassesMax> counts{};
  for (const uint8_t token_class : classes) ++counts[token_class];
  std::array<int, kTokenClassesMax> next{};
  int row = 0;
  for (int i = 0; i < kTokenClassesMax; ++i) {
    next[i] = row;
    if (counts[i] == 0) continue;
    runs_.push_back({i, row, counts[i]});
    row += PaddedTokens(counts[i]);
  }
  tokens_.resize(row);
  for (size_t token = 0; token < classes.size(); ++token) {
    const int at = next[classes[token]]++;
    rows_[token] = static_cast<uint16_t>(at);
    tokens_[at] = static_cast<uint16_t>(token);
  }
}

const TokenOrder::Run& TokenOrder::RunOfRow(int row) const {
  const auto behind =
      std::upper_bound(runs_.begin(), runs_.end(), row,
                       [](int r, const Run& run) { return r < run.first_row; });
  return *(behind - 1);
}

std::vector<uint8_t> RoundClasses(absl::Span<const float> wanted) {
  static constexpr float kLast = kStreamClasses - 1;
  std::vector<int> ranked(wanted.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int a, int b) { return wanted[a] < wanted[b]; });
  std::vector<uint8_t> classes(wanted.size());
  size_t begin = 0;
  size_t before = 0;  // the tokens that want a class before this one
  for (int i = 0; i < kStreamClasses; ++i) {
    // The tokens up to this class, to the nearest multiple of kTokenBlock.
    const auto up_to = static_cast<size_t>(
        std::count_if(wanted.begin(), wanted.end(), [i](float x) {
          return std::round(std::clamp(x, 0.0f, kLast)) <=
                 static_cast<float>(i);
        }));
    // Tokens that the class before did not take are of this class.
    const size_t nearest =
        (up_to + kTokenBlock / 2) / kTokenBlock * kTokenBlock;
    const size_t least = (before + kTokenBlock - 1) / kTokenBlock * kTokenBlock;
    const bool is_last = i + 1 == kStreamClasses || up_to == wanted.size();
    const size_t end =
        is_last ? wanted.size()
                : std::clamp(std::max(nearest, least), begin, wanted.size());
    before = up_to;
    for (size_t rank = begin; rank < end; ++rank) {
      classes[ranked[rank]] = static_cast<uint8_t>(i);
    }
    begin = end;
  }
  return classes;
}

}  // namespace kdn::codec
