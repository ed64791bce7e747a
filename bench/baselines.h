#ifndef KDN_BENCH_BASELINES_H_
#define KDN_BENCH_BASELINES_H_

#include "bench/kv_tensor.h"

namespace kdn::bench {

// Our implementations of published KV codecs, for comparison. The sizes count
// what a decoder needs and no header, which favours these codecs.

// CacheGen (Liu et al., SIGCOMM 2024), as in its public code. K (after RoPE)
// and V are scaled by one absmax per layer and token, over all channels, and
// quantised to an odd number of bins, which depends on the layer. Each layer
// and channel has one arithmetic-coded stream, and a frequency table counted on
// the chunk. The size counts the streams, 2 bytes per stream for its length, 2
// bytes per bin of a table and 2 bytes per absmax. `level` is 1 (coarse), 2
// (CacheGen's default) or 3.
absl::StatusOr<Coded> CacheGen(const KvTensor& kv, int level);

// KIVI (Liu et al., ICML 2024): asymmetric quantisation to `bits` bits. K is
// grouped per channel, 32 tokens a group; V per token, 32 channels a group.
// Each group has a scale and a minimum of 2 bytes each. KIVI's full-precision
// window of the newest tokens is left out: a store has no such window.
Coded Kivi(const KvTensor& kv, int bits);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BASELINES_H_
