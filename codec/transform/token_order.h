#ifndef KDN_CODEC_TRANSFORM_TOKEN_ORDER_H_
#define KDN_CODEC_TRANSFORM_TOKEN_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace kdn::codec {

// The order in which a stream codes its tokens: class by class, and ascending
// within a class. The tokens of a class are padded to a multiple of
// kTokenBlock. A token's values are a row of the stream's values; padding has
// rows, too. Immutable.
class TokenOrder {
 public:
  // The tokens of one class.
  struct Run {
    int token_class = 0;
    int first_row = 0;
    int tokens = 0;  // without padding
  };

  // The class of each token.
  explicit TokenOrder(absl::Span<const uint8_t> classes);

  // The classes that have tokens.
  const std::vector<Run>& runs() const { return runs_; }
  int tokens() const { return static_cast<int>(rows_.size()); }
  // The number of rows, padding included.
  int rows() const { return static_cast<int>(tokens_.size()); }
  int RowOf(int token) const { return rows_[token]; }
  // The token of a row. REQUIRES: the row is not padding.
  int TokenOf(int row) const { return tokens_[row]; }
  // The run that has the row.
  const Run& RunOfRow(int row) const;

 private:
  std::vector<Run> runs_;
  std::vector<uint16_t> rows_;    // by token
  std::vector<uint16_t> tokens_;  // by row; 0 for padding
};

// The classes of tokens, when `wanted` gives the best class of each token, from
// 0 to kStreamClasses - 1, as a real number. It is rounded so that every class
// but the last has a multiple of kTokenBlock tokens: then no class needs
// padding. A token's class is at most one coarser than its nearest class.
// REQUIRES: no number is NaN.
std::vector<uint8_t> RoundClasses(absl::Span<const float> wanted);

}  // namespace kdn::codec

#endif  // KDN_CODEC_TRANSFORM_TOKEN_ORDER_H_
