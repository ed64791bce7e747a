#ifndef KDN_KV_KV_PAGES_H_
#define KDN_KV_KV_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kv/kv_view.h"

namespace kdn {

// Where a run of tokens lies in an engine's paged cache, as vLLM's: every layer
// has `blocks` blocks of block_tokens tokens, and token t of a sequence lies in
// block block_table[t / block_tokens]. The run's tokens are the sequence's from
// first_token on.
//
// `keys` and `values` have, per layer, the first row of K and of V: of block 0,
// its first token, the first head that is shown. So K and V may have memory of
// their own ([2][blocks][block_tokens][heads][dim]), share each block
// ([blocks][2][block_tokens][heads][dim]) or lie side by side
// ([blocks][heads][block_tokens][2 * dim]). Strides are in bytes; the elements
// of a row are contiguous.
struct KvPages {
  std::vector<std::byte*> keys;
  std::vector<std::byte*> values;
  int64_t block_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int block_tokens = 0;
  int blocks = 0;  // in each layer's memory
  std::vector<int32_t> block_table;
  int first_token = 0;
};

// INVALID_ARGUMENT unless the pages have a place for every row of `shape`: a
// base for each of its layers, strides that are not negative, and blocks that
// exist for each of its tokens. Overflow-proof. Says nothing about the memory.
absl::Status Validate(const KvPages& pages, const KvShape& shape);

}  // namespace kdn

#endif  // KDN_KV_KV_PAGES_H_
