#ifndef KDN_MODEL_SEQUENCE_H_
#define KDN_MODEL_SEQUENCE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kv/model_spec.h"
#include "model/attention_mask.h"
#include "model/kv_cache.h"

namespace kdn::model {

// The tokens of one sequence that a pass computes.
struct Sequence {
  KvCache* cache = nullptr;
  absl::Span<const int32_t> tokens;
  // The absolute position of each token.
  absl::Span<const int32_t> positions;
  // The tokens of the cache whose KV is computed anew: ascending, and at
  // `positions` in the cache. Empty: the tokens are added behind the last one.
  absl::Span<const int32_t> slots = {};
  // The positions that each token attends to. Null: all up to its own.
  const AttentionMask* mask = nullptr;
};

// Whether a pass can compute these sequences. INVALID_ARGUMENT for no sequences
// or tokens, unequal lengths, a token outside the vocabulary, two sequences
// with one cache, a cache of another model, a mask of other rows, or slots that
// are not those of the positions; OUT_OF_RANGE for a negative position;
// RESOURCE_EXHAUSTED when a cache is too small.
absl::Status CheckSequences(absl::Span<const Sequence> sequences,
                            const ModelSpec& spec, int vocab_size);

}  // namespace kdn::model

#endif  // KDN_MODEL_SEQUENCE_H_
