#ifndef KDN_KV_KV_DESTINATION_H_
#define KDN_KV_KV_DESTINATION_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kv/kv_pages.h"
#include "kv/kv_view.h"

namespace kdn {

// The places of one head's rows, in one layer's K or V, that a decoder writes
// to. Does not own the memory.
struct MutableRows {
  std::byte* base = nullptr;
  int64_t token_stride = 0;
  // The offset of each token's row from `base`, in bytes. Null outside pages:
  // the rows are then token_stride bytes apart.
  const int64_t* offsets = nullptr;

  std::byte* At(int token) const {
    return base + (offsets == nullptr ? token * token_stride : offsets[token]);
  }
};

// The memory that KV is delivered to: a view, or pages of an engine's cache.
// Does not own the memory. In pages, the place of each token is computed once,
// by InPages, and copies share the result. Immutable.
class KvDestination {
 public:
  KvDestination() = default;
  // NOLINTNEXTLINE(google-explicit-constructor)
  KvDestination(const MutableKvView& view) : view_(view) {}
  // The destination of KV of `shape` in `pages`. INVALID_ARGUMENT when the
  // pages do not fit the shape (see Validate). Does not refer to `pages`
  // afterwards.
  static absl::StatusOr<KvDestination> InPages(const KvShape& shape,
                                               const KvPages& pages);

  const KvShape& shape() const { return view_.shape(); }
  // The destination of one layer, in the same memory.
  KvDestination Layer(int layer) const;
  // Valid as long as this object or a copy of it lives.
  MutableRows Rows(int layer, KvPart part, int head) const;

 private:
  struct Places;

  MutableKvView view_;                   // in pages it has a shape only
  std::shared_ptr<const Places> pages_;  // null: not in pages
  int first_layer_ = 0;  // the view's layer 0 among the layers of the pages
};

}  // namespace kdn

#endif  // KDN_KV_KV_DESTINATION_H_
