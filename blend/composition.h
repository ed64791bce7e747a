#ifndef KDN_BLEND_COMPOSITION_H_
#define KDN_BLEND_COMPOSITION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace kdn::blend {

// Tokens whose KV was computed together.
struct Part {
  int begin = 0;  // the first token
  int end = 0;    // behind the last token
  // The KV is the KV that a prefill of the whole composition gives: the shared
  // prefix is exact, and so is what was computed right behind it.
  bool exact = false;
};

// Texts in a row, whose KV was computed apart. One number names a token
// everywhere: its index here is its absolute position and its slot in the
// cache.
struct Composition {
  std::vector<int32_t> tokens;
  std::vector<Part> parts;  // follow each other, from token 0 on
  // The tokens of the shared prefix. A ratio of rows to recompute is a share of
  // the tokens behind it.
  int prefix = 0;

  // INVALID_ARGUMENT unless the parts cover the tokens without gaps, the exact
  // parts come first, and the prefix is exact.
  absl::Status Validate() const;
  // The tokens of the parts that are not exact, ascending.
  std::vector<int> Inexact() const;
};

}  // namespace kdn::blend

#endif  // KDN_BLEND_COMPOSITION_H_
