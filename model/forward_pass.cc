#include "model/forward_pass.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kv/check.h"
#include "model/grow.h"
#include "model/llama.h"
#include "model/parallel.h"

namespace kdn::model {
namespace {

// The rows of a task in steps that touch each row alone.
constexpr int kStepRows = 8;
// The rows of a tile of the MLP: with their inputs they fit into an L2 cache.
constexpr int kMlpRows = 128;

// The squared distance between two rows.
float DistanceOf(const float* a, const float* b, int count) {
  float sum = 0.0f;
  for (int i = 0; i < count; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

}  // namespace

ForwardPass::ForwardPass(const Llama& llama, Workspace& workspace)
    : llama_(llama), w_(workspace) {
  w_.threads.resize(std::max<size_t>(w_.threads.size(), ThreadsMax()));
}

absl::Status ForwardPass::Begin(absl::Span<const Sequence> sequences) {
  if (absl::Status status =
          CheckSequences(sequences, llama_.spec(), llama_.config().vocab_size);
      !status.ok()) {
    return status;
  }
  w_.pass.assign(sequences.begin(), sequences.end());
  w_.rows.clear();
  flops_ = 0;
  if (w_.sequences.size() < sequences.size()) {
    w_.sequences.resize(sequences.size());
  }
  for (int i = 0; i < static_cast<int>(sequences.size()); ++i) AddRows(i);
  Embed();
  Plan();
  return absl::OkStatus();
}

void ForwardPass::AddRows(int number) {
  const Sequence& sequence = w_.pass[number];
  KvCache& cache = *sequence.cache;
  const int behind = cache.size();
  for (int i = 0; i < static_cast<int>(sequence.tokens.size()); ++i) {
    w_.rows.push_back(PassRow{
        sequence.tokens[i], sequence.positions[i],
        sequence.slots.empty() ? behind + i : sequence.slots[i], number, i});
  }
  if (sequence.slots.empty()) cache.Append(sequence.positions);
  w_.sequences[number].positions.Assign(cache.positions());
}

void ForwardPass::CountLinear(const Linear& linear, size_t rows) {
  flops_ +=
      2.0 * static_cast<double>(rows) * linear.inputs() * linear.outputs();
}

void ForwardPass::Embed() {
  const RopeTable& rope = llama_.rope();
  const size_t hidden = static_cast<size_t>(llama_.config().hidden_size);
  const size_t pairs = static_cast<size_t>(rope.pairs());
  Grow(w_.hidden, w_.rows.size() * hidden);
  Grow(w_.cos, w_.rows.size() * pairs);
  Grow(w_.sin, w_.rows.size() * pairs);
  for (size_t i = 0; i < w_.rows.size(); ++i) {
    const float* source =
        &llama_.weights().embedding[w_.rows[i].token * hidden];
    std::copy_n(source, hidden, w_.hidden.data() + i * hidden);
    rope.CosSin(w_.rows[i].position, w_.cos.data() + i * pairs,
                w_.sin.data() + i * pairs);
  }
}

void ForwardPass::Plan() {
  w_.runs.clear();
  w_.units.clear();
  size_t words = 0;
  const int count = static_cast<int>(w_.rows.size());
  for (int begin = 0; begin < count;) {
    int end = begin;
    const int sequence = w_.rows[begin].sequence;
    while (end < count && w_.rows[end].sequence == sequence) ++end;
    const int run = static_cast<int>(w_.runs.size());
    w_.runs.push_back(PassRun{sequence, begin, end, words});
    words += static_cast<size_t>(end - begin) *
             w_.sequences[sequence].positions.blocks();
    for (int at = begin; at < end; at += BlockAttention::kRowsMax) {
      for (int head = 0; head < llama_.config().num_kv_heads; ++head) {
        w_.units.push_back(PassUnit{
            run, head, at, std::min(end, at + BlockAttention::kRowsMax)});
      }
    }
    begin = end;
  }
  Grow(w_.allowed, words);
  for (const PassRun& run : w_.runs) Allow(run);
  pairs_ = 0;
  for (size_t i = 0; i < words; ++i) pairs_ += std::popcount(w_.allowed[i]);
}

void ForwardPass::Allow(const PassRun& run) {
  const PositionBlocks& positions = w_.sequences[run.sequence].positions;
  const AttentionMask* mask = w_.pass[run.sequence].mask;
  uint64_t* word = w_.allowed.data() + run.allowed;
  for (int row = run.begin; row < run.end; ++row) {
    const PositionInterval causal{0, int64_t{w_.rows[row].position} + 1};
    const auto intervals = mask == nullptr ? absl::MakeConstSpan(&causal, 1)
                                           : mask->Row(w_.rows[row].index);
    for (int block = 0; block < positions.blocks(); ++block) {
      *word++ = positions.AllowedBits(intervals, block);
    }
  }
}

void ForwardPass::WriteKv(int layer, PassObserver* observer) {
  const LayerWeights& weights = llama_.weights().layers[layer];
  const ModelConfig& config = llama_.config();
  const int rows = static_cast<int>(w_.rows.size());
  const int width =
      (config.num_heads + 2 * config.num_kv_heads) * config.head_dim;
  const bool compares = observer != nullptr && observer->WantsDeviation(layer);
  Grow(w_.qkv, static_cast<size_t>(rows) * width);
  Grow(w_.k_deviation, w_.rows.size());
  Grow(w_.v_deviation, w_.rows.size());
  w_.queries.Resize(llama_.attention_operand(), rows,
                    config.num_heads * PaddedInner(config.head_dim));

  Normalise(weights.attention_norm);
  CountLinear(weights.qkv, w_.rows.size());
  weights.qkv.Apply(w_.normed, rows, false, w_.qkv.data());
  if (observer != nullptr && observer->WantsQueries(layer)) {
    observer->OnQueries(
        layer, {w_.qkv.data(), static_cast<size_t>(rows) * width}, width);
  }
  const int tasks = (rows + kStepRows - 1) / kStepRows;
  ParallelFor(tasks, wide(), Tasks::kAny, [&](int task, int) {
    const int end = std::min(rows, (task + 1) * kStepRows);
    for (int row = task * kStepRows; row < end; ++row) {
      TakeQkv(layer, row, compares);
    }
  });
  if (observer != nullptr && compares) {
    observer->OnDeviation(layer, {w_.k_deviation.data(), w_.rows.size()},
                          {w_.v_deviation.data(), w_.rows.size()});
  }
}

void ForwardPass::RunLayer(int layer, PassObserver* observer) {
  WriteKv(layer, observer);
  const LayerWeights& weights = llama_.weights().layers[layer];
  const int rows = static_cast<int>(w_.rows.size());
  const bool weighs = observer != nullptr && observer->WantsMass(layer);
  w_.attended.Resize(weights.o.operand(), rows, weights.o.inputs());
  PackKv(layer);
  Attend(layer, weighs);
  if (observer != nullptr && weighs) SumMass(layer, *observer);
  CountLinear(weights.o, w_.rows.size());
  weights.o.Apply(w_.attended, rows, true, w_.hidden.data());
  Normalise(weights.mlp_norm);
  RunMlp(layer);
}

void ForwardPass::Normalise(absl::Span<const float> weight) {
  const int width = static_cast<int>(weight.size());
  const int rows = static_cast<int>(w_.rows.size());
  const float epsilon = static_cast<float>(llama_.config().rms_norm_eps);
  w_.normed.Resize(llama_.operand(), rows, width);
  for (Workspace::Thread& thread : w_.threads) Grow(thread.row, weight.size());
  const int tasks = (rows + kStepRows - 1) / kStepRows;
  ParallelFor(tasks, wide(), Tasks::kAny, [&](int task, int thread) {
    float* const scratch = w_.threads[thread].row.data();
    const int end = std::min(rows, (task + 1) * kStepRows);
    for (int row = task * kStepRows; row < end; ++row) {
      ResolvedMatrixKernels().rms_norm(
          w_.hidden.data() + static_cast<size_t>(row) * width, weight.data(),
          weight.size(), epsilon, scratch);
      w_.normed.Write(row, 0, scratch, width);
    }
  });
}

void ForwardPass::Rotate(int row, float* head) const {
  const RopeTable& rope = llama_.rope();
  const size_t pairs = static_cast<size_t>(rope.pairs());
  const float* cos = w_.cos.data() + row * pairs;
  const float* sin = w_.sin.data() + row * pairs;
  if (rope.spec().pairing == RopePairing::kNeoX) {
    ResolvedMatrixKernels().rotate_halves(cos, sin, pairs, head);
  } else {
    rope.Rotate(cos, sin, head);
  }
}

void ForwardPass::TakeQkv(int layer, int row, bool compares) {
  const ModelConfig& config = llama_.config();
  const int dim = config.head_dim;
  const int heads = config.num_heads;
  const int kv_heads = config.num_kv_heads;
  float* head =
      w_.qkv.data() + static_cast<size_t>(row) * (heads + 2 * kv_heads) * dim;
  for (int i = 0; i < heads; ++i, head += dim) {
    Rotate(row, head);
    const int at = i * PaddedInner(dim);
    constexpr float kZero = 0.0f;
    w_.queries.Write(row, at, head, dim);
    w_.queries.Write(row, at + dim, &kZero, PaddedInner(dim) - dim);
  }
  float distance = 0.0f;
  for (int i = 0; i < kv_heads; ++i, head += dim) {
    Rotate(row, head);
    distance += WriteHead(layer, KvPart::kK, i, w_.rows[row], head, compares);
  }
  w_.k_deviation[row] = distance;
  distance = 0.0f;
  for (int i = 0; i < kv_heads; ++i, head += dim) {
    distance += WriteHead(layer, KvPart::kV, i, w_.rows[row], head, compares);
  }
  w_.v_deviation[row] = distance;
}

// Returns the squared distance from the KV that was there, if it compares.
float ForwardPass::WriteHead(int layer, KvPart part, int head,
                             const PassRow& row, const float* values,
                             bool compares) {
  const Dtype dtype = llama_.spec().dtype;
  const size_t dim = static_cast<size_t>(llama_.config().head_dim);
  std::byte* const at =
      w_.pass[row.sequence].cache->view().At(layer, part, head, row.slot);
  if (!compares) {
    if (dtype == Dtype::kBf16 &&
        reinterpret_cast<uintptr_t>(at) % alignof(uint16_t) == 0) {
      ResolvedMatrixKernels().to_bf16(values, dim,
                                      reinterpret_cast<uint16_t*>(at));
    } else {
      StoreFloats(dtype, values, dim, at);
    }
    return 0.0f;
  }
  float before[kHeadDimMax];
  float after[kHeadDimMax];
  LoadFloats(dtype, at, dim, before);
  StoreFloats(dtype, values, dim, at);
  LoadFloats(dtype, at, dim, after);
  return DistanceOf(before, after, static_cast<int>(dim));
}

void ForwardPass::PackKv(int layer) {
  const ModelConfig& config = llama_.config();
  int tasks = 0;
  for (const PassRun& run : w_.runs) {
    PackedKv& kv = w_.sequences[run.sequence].kv;
    kv.Resize(llama_.attention_operand(), config.num_kv_heads,
              w_.pass[run.sequence].cache->size(), config.head_dim);
    if (run.packs()) continue;
    kv.Allocate();
    tasks += kv.blocks() * config.num_kv_heads;
  }
  ParallelFor(tasks, true, Tasks::kAny, [&](int task, int) {
    for (const PassRun& run : w_.runs) {
      if (run.packs()) continue;
      PackedKv& kv = w_.sequences[run.sequence].kv;
      const int here = kv.blocks() * config.num_kv_heads;
      if (task < here) {
        const KvView view = w_.pass[run.sequence].cache->view();
        kv.Pack(view.Layer(layer), task / kv.blocks(), task % kv.blocks());
        return;
      }
      task -= here;
    }
  });
}

size_t ForwardPass::TokensMax() const {
  int blocks = 0;
  for (const PassRun& run : w_.runs) {
    blocks = std::max(blocks, w_.sequences[run.sequence].kv.blocks());
  }
  return static_cast<size_t>(blocks) * kAttentionBlock;
}

void ForwardPass::Attend(int layer, bool weighs) {
  const ModelConfig& config = llama_.config();
  // A pair takes a product with K and one with V.
  flops_ += pairs_ * 4.0 * config.num_heads * config.head_dim;
  const size_t tokens = TokensMax();
  const size_t units = w_.units.size();
  if (weighs) {
    Grow(w_.mass, units * tokens);
    std::fill_n(w_.mass.begin(), units * tokens, 0.0f);
  }
  // Pairs of a row and a token that one thread weighs sooner than two.
  constexpr size_t kWidePairs = 1 << 8;
  ParallelFor(static_cast<int>(units), w_.rows.size() * tokens >= kWidePairs,
              Tasks::kAny, [&](int unit, int thread) {
                float* const mass =
                    weighs ? w_.mass.data() + unit * tokens : nullptr;
                AttendUnit(layer, w_.units[unit], mass, w_.threads[thread]);
              });
}

void ForwardPass::AttendUnit(int layer, const PassUnit& unit, float* mass,
                             Workspace::Thread& thread) {
  const ModelConfig& config = llama_.config();
  const PassRun& run = w_.runs[unit.run];
  const PackedKv& kv = w_.sequences[run.sequence].kv;
  const auto blocks = static_cast<size_t>(kv.blocks());
  const uint64_t* allowed =
      w_.allowed.data() + run.allowed + (unit.begin - run.begin) * blocks;
  const KvView view = KvView(w_.pass[run.sequence].cache->view()).Layer(layer);
  thread.attention.Attend(
      {.kv = &kv,
       .unpacked = run.packs() ? &view : nullptr,
       .kv_head = unit.kv_head,
       .group = config.num_heads / config.num_kv_heads,
       .queries = &w_.queries,
       .row = unit.begin,
       .rows = unit.end - unit.begin,
       .allowed = {allowed, (unit.end - unit.begin) * blocks},
       .out = &w_.attended,
       .mass = mass});
}

void ForwardPass::SumMass(int layer, PassObserver& observer) {
  const size_t tokens = TokensMax();
  for (int number = 0; number < static_cast<int>(w_.runs.size()); ++number) {
    const PassRun& run = w_.runs[number];
    const size_t count =
        static_cast<size_t>(w_.pass[run.sequence].cache->size());
    Grow(w_.mass_sum, count);
    std::fill_n(w_.mass_sum.begin(), count, 0.0f);
    for (size_t i = 0; i < w_.units.size(); ++i) {
      if (w_.units[i].run != number) continue;
      ResolvedMatrixKernels().add(w_.mass.data() + i * tokens, count,
                                  w_.mass_sum.data());
    }
    observer.OnMass(layer, run.sequence, {w_.mass_sum.data(), count});
  }
}

void ForwardPass::RunMlp(int layer) {
  const LayerWeights& weights = llama_.weights().layers[layer];
  const int rows = static_cast<int>(w_.rows.size());
  const int blocks = (rows + kMlpRows - 1) / kMlpRows;
  const int panels = weights.gate.panels();
  w_.mlp.Resize(llama_.operand(), rows, weights.gate.outputs());
  for (Workspace::Thread& thread : w_.threads) {
    Grow(thread.gate, kMlpRows * kPanelColumns);
    Grow(thread.up, kMlpRows * kPanelColumns);
  }
  ParallelFor(blocks * panels, true, blocks == 1 ? Tasks::kRange : Tasks::kAny,
              [&](int task, int thread) {
                RunMlpTile(layer, task % blocks * kMlpRows, task / blocks,
                           w_.threads[thread]);
              });
  for (const Linear* linear : {&weights.gate, &weights.up, &weights.down}) {
    CountLinear(*linear, w_.rows.size());
  }
  weights.down.Apply(w_.mlp, rows, true, w_.hidden.data());
}

void ForwardPass::RunMlpTile(int layer, int begin, int panel,
                             Workspace::Thread& thread) {
  const LayerWeights& weights = llama_.weights().layers[layer];
  const int end = std::min(static_cast<int>(w_.rows.size()), begin + kMlpRows);
  float* const gate = thread.gate.data();
  float* const up = thread.up.data();
  weights.gate.ApplyPanel(w_.normed, begin, end, panel, false, gate,
                          kPanelColumns);
  weights.up.ApplyPanel(w_.normed, begin, end, panel, false, up, kPanelColumns);
  const size_t count = static_cast<size_t>(end - begin) * kPanelColumns;
  ResolvedMatrixKernels().swiglu(gate, up, count, gate);
  const int first = panel * kPanelColumns;
  const int columns = std::min(kPanelColumns, weights.gate.outputs() - first);
  for (int row = begin; row < end; ++row) {
    w_.mlp.Write(row, first,
                 gate + static_cast<size_t>(row - begin) * kPanelColumns,
                 columns);
  }
}

void ForwardPass::Keep(absl::Span<const int> rows) {
  const size_t hidden = static_cast<size_t>(llama_.config().hidden_size);
  const size_t pairs = static_cast<size_t>(llama_.rope().pairs());
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t from = static_cast<size_t>(rows[i]);
    KDN_CHECK(from < w_.rows.size() && (i == 0 || rows[i - 1] < rows[i]),
              "the rows to keep ascend, and are rows of the pass");
    w_.rows[i] = w_.rows[from];
    std::copy_n(w_.hidden.data() + from * hidden, hidden,
                w_.hidden.data() + i * hidden);
    std::copy_n(w_.cos.data() + from * pairs, pairs, w_.cos.data() + i * pairs);
    std::copy_n(w_.sin.data() + from * pairs, pairs, w_.sin.data() + i * pairs);
  }
  w_.rows.resize(rows.size());
  Plan();
}

void ForwardPass::Logits(absl::Span<const int> rows, absl::Span<float> logits) {
  const Weights& weights = llama_.weights();
  const size_t hidden = weights.final_norm.size();
  KDN_CHECK(logits.size() == rows.size() * llama_.config().vocab_size,
            "the logits have the size of their shape");
  w_.normed.Resize(llama_.operand(), static_cast<int>(rows.size()),
                   static_cast<int>(hidden));
  LineVector<float>& scratch = w_.threads.front().row;
  Grow(scratch, hidden);
  for (size_t i = 0; i < rows.size(); ++i) {
    ResolvedMatrixKernels().rms_norm(
        w_.hidden.data() + static_cast<size_t>(rows[i]) * hidden,
        weights.final_norm.data(), hidden,
        static_cast<float>(llama_.config().rms_norm_eps), scratch.data());
    w_.normed.Write(static_cast<int>(i), 0, scratch.data(),
                    static_cast<int>(hidden));
  }
  CountLinear(*weights.output, rows.size());
  weights.output->Apply(w_.normed, static_cast<int>(rows.size()), false,
                        logits.data());
}

}  // namespace kdn::model
