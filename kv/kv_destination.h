#ifndef KDN_KV_KV_DESTINATION_H_
#define KDN_KV_KV_DESTINATION_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kv/kv_pages.h"
#include "kv/kv_view.h"

namespace kdn {

// Where one head's rows of one layer go. Not owned.
struct MutableRows {
  std::byte* base = nullptr;
  int64_t token_stride = 0;
  // Of each token's row from `base`, in pages; null: token_stride apart.
  const int64_t* offsets = nullptr;

  std::byte* At(int token) const {
    return base + (offsets == nullptr ? token * token_stride : offsets[token]);
  }
};

// Where delivered KV goes: a view, or pages of an engine's cache. The memory is
// not owned; where the pages lie is worked out once per run of tokens and
// shared by copies. Immutable.
class KvDestination {
 public:
  KvDestination() = default;
  // NOLINTNEXTLINE(google-explicit-constructor)
  KvDestination(const MutableKvView& view) : view_(view) {}
  // INVALID_ARGUMENT when the pages do not fit (see Validate). `pages` is not
  // kept.
  static absl::StatusOr<KvDestination> InPages(const KvShape& shape,
                                               const KvPages& pages);

  const KvShape& shape() const { return view_.shape(); }
  // The same memory, one layer of it.
  KvDestination Layer(int layer) const;
  // Valid as long as this or a copy.
  MutableRows Rows(int layer, KvPart part, int head) const;

 private:
  struct Places;

  MutableKvView view_;  // with pages its shape only
  std::shared_ptr<const Places> pages_;
  int first_layer_ = 0;  // of the pages
};

}  // namespace kdn

#endif  // KDN_KV_KV_DESTINATION_H_
