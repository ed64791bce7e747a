#include "kv/kv_destination.h"

#include <utility>
#include <vector>

namespace kdn {

struct KvDestination::Places {
  std::vector<std::byte*> keys;
  std::vector<std::byte*> values;
  int64_t head_stride;
  std::vector<int64_t> offsets;  // by token
};

absl::StatusOr<KvDestination> KvDestination::InPages(const KvShape& shape,
                                                     const KvPages& pages) {
  if (absl::Status s = Validate(pages, shape); !s.ok()) return s;
  auto places = std::make_shared<Places>(
      Places{pages.keys, pages.values, pages.head_stride, {}});
  places->offsets.reserve(shape.tokens);
  for (int token = 0; token < shape.tokens; ++token) {
    const int64_t at = int64_t{pages.first_token} + token;
    places->offsets.push_back(pages.block_table[at / pages.block_tokens] *
                                  pages.block_stride +
                              at % pages.block_tokens * pages.token_stride);
  }
  KvDestination destination(MutableKvView(nullptr, shape, KvStrides()));
  destination.pages_ = std::move(places);
  return destination;
}

KvDestination KvDestination::Layer(int layer) const {
  KvDestination one = *this;
  one.view_ = view_.Layer(layer);
  one.first_layer_ += layer;
  return one;
}

MutableRows KvDestination::Rows(int layer, KvPart part, int head) const {
  if (pages_ == nullptr) {
    return {view_.At(layer, part, head, 0), view_.strides().token};
  }
  const auto& bases = part == KvPart::kK ? pages_->keys : pages_->values;
  return {bases[first_layer_ + layer] + head * pages_->head_stride,
          /*token_stride=*/0, pages_->offsets.data()};
}

}  // namespace kdn
