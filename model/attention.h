#ifndef KDN_MODEL_ATTENTION_H_
#define KDN_MODEL_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kv/kv_view.h"
#include "kv/line_vector.h"
#include "model/attention_mask.h"
#include "model/operand_rows.h"

namespace kdn::model {

// Tokens of a cache that are attended to at once: those of one panel.
inline constexpr int kAttentionBlock = kPanelColumns;

// The K and V of one layer of a cache, in the form that attention multiplies:
// K as [dim][tokens] and V as [tokens][dim], in blocks of kAttentionBlock
// tokens. Tokens behind the last one are zeros, so that the values that the
// memory of the cache had before never count. Keeps its memory for the next
// layer.
class PackedKv {
 public:
  // Sets the shape. Allocate() makes the memory for it.
  void Resize(Operand operand, int kv_heads, int tokens, int dim);
  void Allocate();
  // Packs the tokens of one block from the cache. REQUIRES: `layer` is a view
  // of one layer with as many heads, and at least as many tokens.
  void Pack(const KvView& layer, int head, int block);
  // Becomes a copy of one block of `shape`, from the cache.
  void PackOne(const PackedKv& shape, const KvView& layer, int head, int block);

  Operand operand() const { return operand_; }
  int kv_heads() const { return kv_heads_; }
  int tokens() const { return tokens_; }
  int dim() const { return dim_; }
  int blocks() const {
    return (tokens_ + kAttentionBlock - 1) / kAttentionBlock;
  }
  const std::byte* k(int head, int block) const {
    return k_.data() + Index(head, block) * k_bytes();
  }
  const std::byte* v(int head, int block, int panel) const {
    return v_.data() +
           (Index(head, block) * PanelsFor(dim_) + panel) * v_panel_bytes();
  }

 private:
  size_t Index(int head, int block) const {
    return static_cast<size_t>(head) * blocks() + block;
  }
  size_t k_bytes() const { return PanelBytes(operand_, dim_); }
  size_t v_panel_bytes() const { return PanelBytes(operand_, kAttentionBlock); }
  template <typename T>
  void PackInto(const KvView& layer, int head, int block, T* k, T* v) const;

  Operand operand_ = Operand::kFp32;
  int kv_heads_ = 0;
  int tokens_ = 0;
  int dim_ = 0;
  LineVector<std::byte> k_;
  LineVector<std::byte> v_;
};

// Attention of a few rows of one sequence in the heads of one KV head, with
// online softmax (Milakov and Gimelshein, arXiv 1805.02867): the blocks of
// tokens come in the order of the cache, and the sums of the blocks so far are
// rescaled when a larger score comes. A block in which a row attends to no
// token leaves the row as it is. So a row has the same bits whatever rows and
// later tokens come with it. One thread at a time; keeps its memory.
class BlockAttention {
 public:
  // The most rows of a call.
  static constexpr int kRowsMax = 32;

  struct Call {
    const PackedKv* kv = nullptr;
    // If set, `kv` has only its shape, and the call packs each block itself:
    // for a sequence whose rows are all in this call, because a packed block is
    // then used while it is in the core's cache.
    const KvView* unpacked = nullptr;
    int kv_head = 0;
    int group = 1;  // query heads for each KV head
    // [rows][heads][PaddedInner(dim)], after RoPE, of all rows and heads.
    const OperandRows* queries = nullptr;
    int row = 0;  // the first of the rows, in `queries` and `out`
    int rows = 0;
    // The tokens that each row attends to: [rows][blocks].
    absl::Span<const uint64_t> allowed;
    OperandRows* out = nullptr;  // [rows][heads][dim]
    // Adds to mass[token] how much the rows attend to a token, summed over
    // rows and heads. Null: not computed.
    float* mass = nullptr;
  };
  // Writes softmax(queries K^T / sqrt(dim)) V; zeros for a row without a token.
  void Attend(const Call& call);

 private:
  void Prepare(const Call& call);
  // The packed K and V of a block.
  const std::byte* KeysOf(const Call& call, int block);
  const std::byte* ValuesOf(const Call& call, int block, int panel);
  // False when no row attends to a token of the block.
  bool TakeAllowed(const Call& call, int block);
  void Score(const Call& call, int block);
  void AddValues(const Call& call, int block);
  void Finish(const Call& call);
  void AddMass(const Call& call);

  SoftmaxBlock block_;  // points into the members below
  LineVector<float> scores_;
  LineVector<std::byte> weights_;
  LineVector<float> values_;  // [rows][dim, padded to panels]
  LineVector<float> most_;
  LineVector<float> sums_;
  LineVector<uint64_t> allowed_;
  PackedKv block_kv_;  // one block, if the call packs
};

}  // namespace kdn::model

#endif  // KDN_MODEL_ATTENTION_H_
