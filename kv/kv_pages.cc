#include "kv/kv_pages.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace kdn {
namespace {

absl::Status CheckBases(const KvPages& pages, const KvShape& shape) {
  const auto layers = static_cast<size_t>(shape.layers);
  const auto is_null = [](const std::byte* base) { return base == nullptr; };
  if (std::any_of(pages.keys.begin(), pages.keys.end(), is_null) ||
      std::any_of(pages.values.begin(), pages.values.end(), is_null)) {
    return absl::InvalidArgumentError("the address of a layer's pages is null");
  }
  if (pages.keys.size() == layers && pages.values.size() == layers) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("pages have ", pages.keys.size(), " layers of K and ",
                   pages.values.size(), " of V, expected ", layers));
}

absl::Status CheckTable(const KvPages& pages, int tokens) {
  if (pages.first_token < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pages begin at token ", pages.first_token, ", expected at least 0"));
  }
  const int64_t last_token = int64_t{pages.first_token} + tokens - 1;
  const auto first =
      static_cast<size_t>(pages.first_token / pages.block_tokens);
  const auto last = static_cast<size_t>(last_token / pages.block_tokens);
  if (last >= pages.block_table.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "token ", last_token, " is past the last of ", pages.block_table.size(),
        " blocks of ", pages.block_tokens));
  }
  for (size_t i = first; i <= last; ++i) {
    if (pages.block_table[i] < 0 || pages.block_table[i] >= pages.blocks) {
      return absl::InvalidArgumentError(
          absl::StrCat("the block table names block ", pages.block_table[i],
                       ", expected 0 to ", pages.blocks - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const KvPages& pages, const KvShape& shape) {
  if (shape.layers < 1 || shape.tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages for ", shape.layers, " layers of ", shape.tokens,
                     " tokens, expected at least 1 of each"));
  }
  if (absl::Status s = CheckBases(pages, shape); !s.ok()) return s;
  // K or V of one layer is checked like a KV tensor, with blocks in the place
  // of layers.
  const KvShape pool{pages.blocks, shape.kv_heads, pages.block_tokens,
                     shape.head_dim, shape.dtype};
  const KvStrides strides{pages.block_stride, 0, pages.token_stride,
                          pages.head_stride};
  if (absl::Status s = ValidateInside(pool, strides, 0, INT64_MAX); !s.ok()) {
    return s;
  }
  return CheckTable(pages, shape.tokens);
}

}  // namespace kdn
