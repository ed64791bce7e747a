#ifndef KDN_MODEL_ATTENTION_MASK_H_
#define KDN_MODEL_ATTENTION_MASK_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::model {

// The positions [begin, end).
struct PositionInterval {
  int64_t begin = 0;
  int64_t end = 0;
};

// The positions that each row of a call may attend to, as intervals. The causal
// rule needs no mask: see Sequence. Masks go by positions, so the order of the
// tokens in the cache is free.
class AttentionMask {
 public:
  // Adds the next row. It attends to the tokens in any of `intervals`; without
  // intervals it attends to no token.
  void AddRow(absl::Span<const PositionInterval> intervals);

  int rows() const { return static_cast<int>(ends_.size()); }
  absl::Span<const PositionInterval> Row(int row) const;

 private:
  std::vector<PositionInterval> intervals_;  // of all rows
  std::vector<size_t> ends_;                 // of each row's intervals
};

// The positions of a cache's tokens, in blocks of 64, and the smallest and
// largest position of each block: most blocks are attended to as a whole, or
// not at all.
class PositionBlocks {
 public:
  static constexpr int kTokens = 64;

  // Keeps a view of `positions`.
  void Assign(absl::Span<const int32_t> positions);

  int blocks() const { return static_cast<int>(ranges_.size()); }
  // A bit for each token of the block whose position is in an interval.
  uint64_t AllowedBits(absl::Span<const PositionInterval> intervals,
                       int block) const;

 private:
  absl::Span<const int32_t> positions_;
  std::vector<PositionInterval> ranges_;  // of each block
};

}  // namespace kdn::model

#endif  // KDN_MODEL_ATTENTION_MASK_H_
