#ifndef KDN_MODEL_WORKSPACE_H_
#define KDN_MODEL_WORKSPACE_H_

#include <cstdint>
#include <vector>

#include "kv/line_vector.h"
#include "model/attention.h"
#include "model/attention_mask.h"
#include "model/operand_rows.h"
#include "model/sequence.h"

namespace kdn::model {

// A token that a pass computes.
struct PassRow {
  int32_t token = 0;
  int32_t position = 0;
  int32_t slot = 0;
  int sequence = 0;
  int index = 0;  // in the sequence's tokens
};

// Rows of one sequence, next to each other.
struct PassRun {
  int sequence = 0;
  int begin = 0;
  int end = 0;
  size_t allowed = 0;  // where the words of its rows begin

  // Whether its units pack K and V themselves: each head has one unit.
  bool packs() const { return end - begin <= BlockAttention::kRowsMax; }
};

// Rows of one run and one KV head: what one thread attends with.
struct PassUnit {
  int run = 0;
  int kv_head = 0;
  int begin = 0;
  int end = 0;
};

// The memory of a forward pass between its steps. It grows to the largest pass
// and is used again by the next, so that a pass allocates nothing. The contents
// mean nothing between two passes. One pass at a time.
struct Workspace {
  // Of one thread.
  struct Thread {
    BlockAttention attention;
    LineVector<float> row;   // a normalised row
    LineVector<float> gate;  // a tile of the MLP
    LineVector<float> up;
  };
  // Of one sequence.
  struct Tokens {
    PackedKv kv;  // of the present layer
    PositionBlocks positions;
  };

  std::vector<Sequence> pass;  // what the pass computes
  std::vector<PassRow> rows;
  std::vector<PassRun> runs;
  std::vector<PassUnit> units;
  std::vector<Thread> threads;
  std::vector<Tokens> sequences;
  LineVector<float> hidden;  // [rows][hidden]
  LineVector<float> cos;     // [rows][pairs]
  LineVector<float> sin;
  LineVector<float> qkv;          // [rows][Q, K and V of all heads]
  OperandRows normed;             // [rows][hidden]
  OperandRows queries;            // [rows][heads][head_dim]
  OperandRows attended;           // [rows][heads][head_dim]
  OperandRows mlp;                // [rows][intermediate]
  LineVector<uint64_t> allowed;   // of each row: a word for each block
  LineVector<float> mass;         // of each unit of attention: [tokens]
  LineVector<float> mass_sum;     // [tokens]
  LineVector<float> k_deviation;  // [rows]
  LineVector<float> v_deviation;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_WORKSPACE_H_
