#ifndef KDN_MODEL_KV_CACHE_H_
#define KDN_MODEL_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kv/kv_view.h"
#include "kv/model_spec.h"
#include "model/huge_memory.h"

namespace kdn::model {

struct Workspace;

// The KV cache of one sequence of up to `capacity` tokens. The layout is
// [layer][K|V][head][token][dim], in the spec's dtype, with K after RoPE. The
// KDN reads KV that it stores straight from the cache, and writes KV that it
// delivers straight into the cache. Thread-compatible.
class KvCache {
 public:
  // Allocates the memory of the cache.
  KvCache(const ModelSpec& spec, int capacity);
  // Uses the caller's memory, for example a region shared with a KDN node.
  // REQUIRES: `memory` has BytesFor(spec, capacity) bytes and outlives the
  // cache.
  KvCache(const ModelSpec& spec, int capacity, std::byte* memory);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;
  static size_t BytesFor(const ModelSpec& spec, int capacity);

  int size() const { return static_cast<int>(positions_.size()); }
  int capacity() const { return view_.shape().tokens; }
  // The absolute position of each token in the cache.
  const std::vector<int32_t>& positions() const { return positions_; }
  // The whole memory, also the part behind the last token.
  const MutableKvView& view() const { return view_; }
  // The memory of the tokens [begin, begin + count).
  MutableKvView Tokens(int begin, int count) const {
    return view_.Tokens(begin, count);
  }
  // Adds tokens with these positions behind the last token. Their KV is already
  // in the memory, or the caller writes it before it is read.
  // REQUIRES: size() + positions.size() <= capacity().
  void Append(absl::Span<const int32_t> positions);
  // The memory that forward passes over this cache use; made on first use.
  Workspace& workspace();
  // Removes all tokens from index `size` on. REQUIRES: size <= this->size().
  void Truncate(int size);

 private:
  HugeMemory owned_;
  MutableKvView view_;
  std::vector<int32_t> positions_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_KV_CACHE_H_
