#include "model/kv_cache.h"

#include "kv/check.h"
#include "model/workspace.h"

namespace kdn::model {

size_t KvCache::BytesFor(const ModelSpec& spec, int capacity) {
  return ShapeOf(spec, capacity).bytes();
}

KvCache::KvCache(const ModelSpec& spec, int capacity) {
  const KvShape shape = ShapeOf(spec, capacity);
  view_ = MutableKvView(owned_.Allocate(shape.bytes()), shape,
                        KvStrides::HeadMajor(shape));
}

KvCache::KvCache(const ModelSpec& spec, int capacity, std::byte* memory) {
  const KvShape shape = ShapeOf(spec, capacity);
  view_ = MutableKvView(memory, shape, KvStrides::HeadMajor(shape));
}

KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;

Workspace& KvCache::workspace() {
  if (workspace_ == nullptr) workspace_ = std::make_unique<Workspace>();
  return *workspace_;
}

void KvCache::Append(absl::Span<const int32_t> positions) {
  KDN_CHECK(
      positions.size() + positions_.size() <= static_cast<size_t>(capacity()),
      "the tokens fit into the cache");
  positions_.insert(positions_.end(), positions.begin(), positions.end());
}

void KvCache::Truncate(int size) {
  KDN_CHECK(size >= 0 && size <= this->size(),
            "a cache is not truncated to more tokens");
  positions_.resize(static_cast<size_t>(size));
}

}  // namespace kdn::model
