#include "model/attention_mask.h"

#include <algorithm>

namespace kdn::model {

void AttentionMask::AddRow(absl::Span<const PositionInterval> intervals) {
  intervals_.insert(intervals_.end(), intervals.begin(), intervals.end());
  ends_.push_back(intervals_.size());
}

absl::Span<const PositionInterval> AttentionMask::Row(int row) const {
  const size_t begin = row == 0 ? 0 : ends_[row - 1];
  return absl::MakeConstSpan(intervals_).subspan(begin, ends_[row] - begin);
}

void PositionBlocks::Assign(absl::Span<const int32_t> positions) {
  positions_ = positions;
  ranges_.clear();
  for (size_t at = 0; at < positions.size(); at += kTokens) {
    const auto block = positions.subspan(at, kTokens);
    const auto [least, most] = std::minmax_element(block.begin(), block.end());
    ranges_.push_back({*least, int64_t{*most} + 1});
  }
}

uint64_t PositionBlocks::AllowedBits(
    absl::Span<const PositionInterval> intervals, int block) const {
  const auto positions =
      positions_.subspan(static_cast<size_t>(block) * kTokens, kTokens);
  const PositionInterval& range = ranges_[block];
  uint64_t bits = 0;
  for (const PositionInterval& interval : intervals) {
    if (interval.end <= range.begin || interval.begin >= range.end) continue;
    if (interval.begin <= range.begin && interval.end >= range.end) {
      return ~uint64_t{0} >> (kTokens - positions.size());
    }
    for (size_t i = 0; i < positions.size(); ++i) {
      const bool inside =
          positions[i] >= interval.begin && positions[i] < interval.end;
      bits |= static_cast<uint64_t>(inside) << i;
    }
  }
  return bits;
}

}  // namespace kdn::model
