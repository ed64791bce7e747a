#ifndef KDN_KV_KV_PAGES_H_
#define KDN_KV_KV_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kv/kv_view.h"

namespace kdn {

// The places of a run of tokens in an engine's paged KV cache, such as vLLM's.
// Every layer has `blocks` blocks of block_tokens tokens each. Token t of a
// sequence lies in block block_table[t / block_tokens]. The run begins at token
// first_token of the sequence.
//
// `keys` and `values` have one address per layer: the address of the row of K
// or V for the first token of block 0 and the first head of the KV that is
// delivered. So K and V may have separate memory
// ([2][blocks][block_tokens][heads][dim]), share each block
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

// INVALID_ARGUMENT unless the pages have a place for every row of `shape`:
// addresses for each layer, no negative strides, and for each token a block
// that exists. Safe against overflow. Cannot check the memory itself.
absl::Status Validate(const KvPages& pages, const KvShape& shape);

}  // namespace kdn

#endif  // KDN_KV_KV_PAGES_H_
