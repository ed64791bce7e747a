#ifndef KDN_BENCH_BASELINES_H_
#define KDN_BENCH_BASELINES_H_

#include <cstdint>
#include <vector>

#include "bench/arithmetic_coder.h"
#include "bench/kv_tensor.h"

namespace kdn::bench {

// Our implementations of published KV codecs, for comparison. The sizes count
// what a decoder needs and no header, which favours these codecs.

// CacheGen (Liu et al., SIGCOMM 2024), as in its public code. K (after RoPE)
// and V are scaled by one absmax per layer and token, over all channels, and
// quantised to an odd number of bins, which depends on the layer. Each layer
// and channel has one arithmetic-coded stream and a frequency table. The size
// counts the streams, 2 bytes per stream for its length and 2 bytes per absmax.
// `level` is 1 (coarse), 2 (CacheGen's default) or 3.

// The bins of a layer. Level 2 is what LMCache, which has CacheGen's public
// code, chooses for a model of 10 or more layers, and level 3 what it chooses
// for other models. It has no coarser level. REQUIRES: 1 <= level <= 3.
int CacheGenBins(int level, KvPart part, int layer);

// The frequency tables of a model, counted on other texts (section 5.2 of the
// paper). One for each layer, K or V, and channel.
class CacheGenTables {
 public:
  // For KV of this shape, with any number of tokens. REQUIRES: 1 <= level <= 3.
  CacheGenTables(const KvShape& shape, int level);
  void Count(const KvTensor& sample);

  int level() const { return level_; }
  FrequencyTable Of(int layer, KvPart part, int head, int dim) const;

 private:
  size_t IndexOf(int layer, KvPart part, int head, int dim) const;

  KvShape shape_;
  int level_;
  std::vector<std::vector<uint32_t>> counts_;
};

// With tables counted on the chunk, as in CacheGen's public code. The size
// counts 2 bytes per bin of a table.
absl::StatusOr<Coded> CacheGen(const KvTensor& kv, int level);
// With tables of the model. The size does not count them: they belong to the
// model, and not to a chunk.
Coded CacheGen(const KvTensor& kv, const CacheGenTables& tables);

// KIVI (Liu et al., ICML 2024): asymmetric quantisation to `bits` bits. K is
// grouped per channel, 32 tokens a group; V per token, 32 channels a group.
// Each group has a scale and a minimum of 2 bytes each. KIVI's full-precision
// window of the newest tokens is left out: a store has no such window.
Coded Kivi(const KvTensor& kv, int bits);

}  // namespace kdn::bench

#endif  // KDN_BENCH_BASELINES_H_
