#include "model/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kv/check.h"
#include "kv/dtype.h"
#include "kv/model_spec.h"
#include "model/grow.h"

namespace kdn::model {
namespace {

// A row of a cache as values of an operand. For bf16 that is the row itself.
const uint16_t* RowOf(const KvView& layer, KvPart part, int head, int token,
                      uint16_t* scratch) {
  const std::byte* const row = layer.At(0, part, head, token);
  if (reinterpret_cast<uintptr_t>(row) % alignof(uint16_t) == 0) {
    return reinterpret_cast<const uint16_t*>(row);
  }
  std::memcpy(scratch, row, layer.shape().head_bytes());
  return scratch;
}

const float* RowOf(const KvView& layer, KvPart part, int head, int token,
                   float* scratch) {
  LoadFloats(layer.shape().dtype, layer.At(0, part, head, token),
             static_cast<size_t>(layer.shape().head_dim), scratch);
  return scratch;
}

// Writes K of some tokens from `token` on into their columns. Returns the next
// token.
int PackKeys(const KvView& layer, int head, int begin, int token, int end,
             uint16_t* k) {
  uint16_t scratch[4][kHeadDimMax];
  const int dim = layer.shape().head_dim;
  const auto row = [&](int i) {
    return RowOf(layer, KvPart::kK, head, begin + token + i, scratch[i]);
  };
  if (token + 4 > end) {
    ScatterToPanel(row(0), dim, token, k);
    return token + 1;
  }
  ScatterToPanel({row(0), row(1), row(2), row(3)}, dim, token, k);
  return token + 4;
}

int PackKeys(const KvView& layer, int head, int begin, int token, int,
             float* k) {
  float scratch[kHeadDimMax];
  ScatterToPanel(RowOf(layer, KvPart::kK, head, begin + token, scratch),
                 layer.shape().head_dim, token, k);
  return token + 1;
}

// Writes `dim` values of V of the tokens [token, end) that are next to each
// other in a panel, from where the first of them lies. Returns the next token.
int PackValues(const KvView& layer, int head, int begin, int token, int end,
               size_t panel_values, uint16_t* v) {
  uint16_t scratch[2][kHeadDimMax];
  static constexpr uint16_t kZeros[kPanelColumns] = {};
  const int dim = layer.shape().head_dim;
  const bool pair = token + 1 < end;
  const uint16_t* even =
      RowOf(layer, KvPart::kV, head, begin + token, scratch[0]);
  const uint16_t* odd =
      pair ? RowOf(layer, KvPart::kV, head, begin + token + 1, scratch[1])
           : nullptr;
  v += static_cast<size_t>(token) * kPanelColumns;
  for (int at = 0; at < dim; at += kPanelColumns, v += panel_values) {
    const auto count = static_cast<size_t>(std::min(kPanelColumns, dim - at));
    ResolvedMatrixKernels().interleave(
        even + at, odd == nullptr ? kZeros : odd + at, count, v);
  }
  return token + 2;
}

int PackValues(const KvView& layer, int head, int begin, int token, int,
               size_t panel_values, float* v) {
  float scratch[kHeadDimMax];
  const int dim = layer.shape().head_dim;
  const float* row = RowOf(layer, KvPart::kV, head, begin + token, scratch);
  v += static_cast<size_t>(token) * kPanelColumns;
  for (int at = 0; at < dim; at += kPanelColumns, v += panel_values) {
    std::copy_n(row + at, std::min(kPanelColumns, dim - at), v);
  }
  return token + 1;
}

}  // namespace

void PackedKv::Resize(Operand operand, int kv_heads, int tokens, int dim) {
  operand_ = operand;
  kv_heads_ = kv_heads;
  tokens_ = tokens;
  dim_ = dim;
}

void PackedKv::Allocate() {
  const size_t count = static_cast<size_t>(kv_heads_) * blocks();
  Grow(k_, count * k_bytes());
  Grow(v_, count * PanelsFor(dim_) * v_panel_bytes());
}

void PackedKv::PackOne(const PackedKv& shape, const KvView& layer, int head,
                       int block) {
  const int begin = block * kAttentionBlock;
  Resize(shape.operand(), 1, std::min(kAttentionBlock, shape.tokens() - begin),
         shape.dim());
  Allocate();
  KvShape one = layer.shape();
  one.kv_heads = 1;
  Pack(KvView(layer.At(0, KvPart::kK, head, begin), one, layer.strides()), 0,
       0);
}

template <typename T>
void PackedKv::PackInto(const KvView& layer, int head, int block, T* k,
                        T* v) const {
  const int begin = block * kAttentionBlock;
  const int tokens = std::min(kAttentionBlock, tokens_ - begin);
  const bool partial = tokens < kAttentionBlock;
  if (partial || dim_ % kInnerStep != 0) std::memset(k, 0, k_bytes());
  if (partial || dim_ % kPanelColumns != 0) {
    std::memset(v, 0, PanelsFor(dim_) * v_panel_bytes());
  }
  for (int token = 0; token < tokens;) {
    token = PackKeys(layer, head, begin, token, tokens, k);
  }
  const size_t v_panel = v_panel_bytes() / sizeof(T);
  for (int token = 0; token < tokens;) {
    token = PackValues(layer, head, begin, token, tokens, v_panel, v);
  }
}

void PackedKv::Pack(const KvView& layer, int head, int block) {
  KDN_CHECK(operand_ != Operand::kBf16 || layer.shape().dtype == Dtype::kBf16,
            "only a cache of bf16 is multiplied as bf16");
  std::byte* const k = k_.data() + Index(head, block) * k_bytes();
  std::byte* const v =
      v_.data() + Index(head, block) * PanelsFor(dim_) * v_panel_bytes();
  if (operand_ == Operand::kBf16) {
    PackInto(layer, head, block, reinterpret_cast<uint16_t*>(k),
             reinterpret_cast<uint16_t*>(v));
  } else {
    PackInto(layer, head, block, reinterpret_cast<float*>(k),
             reinterpret_cast<float*>(v));
  }
}

void BlockAttention::Attend(const Call& call) {
  KDN_CHECK(call.rows <= kRowsMax, "a call has few rows");
  Prepare(call);
  for (int block = 0; block < call.kv->blocks(); ++block) {
    if (!TakeAllowed(call, block)) continue;
    if (call.unpacked != nullptr) {
      block_kv_.PackOne(*call.kv, *call.unpacked, call.kv_head, block);
    }
    Score(call, block);
    ResolvedMatrixKernels().softmax(block_, call.kv->operand());
    AddValues(call, block);
  }
  Finish(call);
  if (call.mass != nullptr) AddMass(call);
}

void BlockAttention::Prepare(const Call& call) {
  const size_t rows = static_cast<size_t>(call.rows) * call.group;
  const int dim = call.kv->dim();
  const size_t width = static_cast<size_t>(PanelsFor(dim)) * kPanelColumns;
  Grow(scores_, rows * kAttentionBlock);
  Grow(weights_, rows * kAttentionBlock * SizeOf(call.kv->operand()));
  Grow(values_, rows * width);
  Grow(most_, rows);
  Grow(sums_, rows);
  Grow(allowed_, rows);
  std::fill_n(values_.begin(), rows * width, 0.0f);
  std::fill_n(most_.begin(), rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sums_.begin(), rows, 0.0f);
  block_ = SoftmaxBlock{.scores = scores_.data(),
                        .rows = static_cast<int>(rows),
                        .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                        .allowed = allowed_.data(),
                        .most = most_.data(),
                        .sums = sums_.data(),
                        .weights = weights_.data(),
                        .values = values_.data(),
                        .width = width};
}

const std::byte* BlockAttention::KeysOf(const Call& call, int block) {
  return call.unpacked != nullptr ? block_kv_.k(0, 0)
                                  : call.kv->k(call.kv_head, block);
}

const std::byte* BlockAttention::ValuesOf(const Call& call, int block,
                                          int panel) {
  return call.unpacked != nullptr ? block_kv_.v(0, 0, panel)
                                  : call.kv->v(call.kv_head, block, panel);
}

bool BlockAttention::TakeAllowed(const Call& call, int block) {
  const int blocks = call.kv->blocks();
  uint64_t any = 0;
  for (int row = 0; row < call.rows; ++row) {
    const uint64_t bits = call.allowed[row * blocks + block];
    any |= bits;
    for (int head = 0; head < call.group; ++head) {
      allowed_[static_cast<size_t>(head) * call.rows + row] = bits;
    }
  }
  return any != 0;
}

// The rows of a head follow each other: [head of the group][row].
void BlockAttention::Score(const Call& call, int block) {
  const int dim = call.kv->dim();
  const int first = call.kv_head * call.group * PaddedInner(dim);
  Product product;
  product.a = call.queries->At(call.row, first);
  product.a_stride = call.queries->stride();
  product.panel = KeysOf(call, block);
  product.inner = dim;
  product.c = scores_.data();
  product.c_stride = kAttentionBlock;
  product.rows = call.rows;
  if (call.rows == 1) {  // the heads of the row are as far apart as rows
    product.a_stride = static_cast<size_t>(PaddedInner(dim));
    product.rows = call.group;
    Multiply(call.kv->operand(), product);
    return;
  }
  for (int i = 0; i < call.group; ++i) {
    product.a = call.queries->At(call.row, first + i * PaddedInner(dim));
    product.c =
        scores_.data() + static_cast<size_t>(i) * call.rows * kAttentionBlock;
    Multiply(call.kv->operand(), product);
  }
}

void BlockAttention::AddValues(const Call& call, int block) {
  Product product;
  product.a = weights_.data();
  product.a_stride = kAttentionBlock;
  product.inner = kAttentionBlock;
  product.c_stride = block_.width;
  product.rows = block_.rows;
  product.adds = true;
  for (int panel = 0; panel < PanelsFor(call.kv->dim()); ++panel) {
    product.panel = ValuesOf(call, block, panel);
    product.c = values_.data() + panel * kPanelColumns;
    Multiply(call.kv->operand(), product);
  }
}

void BlockAttention::Finish(const Call& call) {
  const int dim = call.kv->dim();
  for (int i = 0; i < block_.rows; ++i) {
    float* const values = values_.data() + i * block_.width;
    if (sums_[i] > 0.0f) {
      for (int j = 0; j < dim; ++j) values[j] /= sums_[i];
    }
    const int head = call.kv_head * call.group + i / call.rows;
    call.out->Write(call.row + i % call.rows, head * dim, values, dim);
  }
}

void BlockAttention::AddMass(const Call& call) {
  for (int block = 0; block < call.kv->blocks(); ++block) {
    if (!TakeAllowed(call, block)) continue;
    if (call.unpacked != nullptr) {
      block_kv_.PackOne(*call.kv, *call.unpacked, call.kv_head, block);
    }
    Score(call, block);
    ResolvedMatrixKernels().add_mass(
        block_, call.mass + static_cast<size_t>(block) * kAttentionBlock);
  }
}

}  // namespace kdn::model
