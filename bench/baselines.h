#ifndef KDN_BENCH_BASELINES_H_
#define KDN_BENCH_BASELINES_H_

#include "bench/kv_tensor.h"

namespace kdn::bench {

// Own implementations of published KV codecs, for comparison. Each counts all
// that a decoder needs, and nothing else: sizes in their favour.

// CacheGen (Liu et al., SIGCOMM 2024) as its public code does it: per layer and
// token one absmax over all channels; K and V after RoPE quantised to an odd
// number of bins graded by depth; per layer and channel a table of frequencies
// counted on the chunk and an arithmetic-coded stream. Counted: streams with
// their byte lengths in 2 bytes each, tables at 2 bytes a bin, absmax at 2
// bytes a token. `level` 1 (coarse), 2 (the default) or 3.
absl::StatusOr<Coded> CacheGen(const KvTensor& kv, int level);

// KIVI (Liu et al., ICML 2024): asymmetric `bits`-bit quantisation, K per
// channel in groups of 32 tokens, V per token in groups of 32 channels; per
// group a scale and a minimum of 2 bytes each. Its full-precision window of
// newest tokens is the engine's, not the store's.
Coded Kivi(const KvTensor& kv, int bits);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BASELINES_H_
