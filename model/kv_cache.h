#ifndef KDN_MODEL_KV_CACHE_H_
#define KDN_MODEL_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"

namespace kdn::model {

// The KV cache of one sequence: up to `capacity` tokens, heads outside tokens
// ([layer][K|V][head][token][dim]), K after RoPE, in the spec's dtype. What the
// KDN stores is read straight out of it, what it delivers is written straight
// into it. Thread-compatible.
class KvCache {
 public:
  // Memory of its own.
  KvCache(const ModelSpec& spec, int capacity);
  // Over memory of the caller, which must have BytesFor(spec, capacity) bytes
  // and outlive the cache: a region shared with a KDN node, say.
  KvCache(const ModelSpec& spec, int capacity, std::byte* memory);
  static size_t BytesFor(const ModelSpec& spec, int capacity);

  int size() const { return static_cast<int>(positions_.size()); }
  int capacity() const { return view_.shape().tokens; }
  // Absolute position of each token held.
  const std::vector<int32_t>& positions() const { return positions_; }
  // All of the memory, or the tokens [begin, begin + count) of it.
  const MutableKvView& view() const { return view_; }
  MutableKvView Tokens(int begin, int count) const {
    return view_.Tokens(begin, count);
  }
  // Tokens with these positions are in the memory behind the ones held: their
  // KV has been written there. REQUIRES: they fit.
  void Append(absl::Span<const int32_t> positions);
  // Forgets all tokens from `size` on. REQUIRES: size <= this->size().
  void Truncate(int size);

 private:
  std::unique_ptr<std::byte[]> owned_;
  MutableKvView view_;
  std::vector<int32_t> positions_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_KV_CACHE_H_
