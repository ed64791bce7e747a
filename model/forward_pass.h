#ifndef KDN_MODEL_FORWARD_PASS_H_
#define KDN_MODEL_FORWARD_PASS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/sequence.h"
#include "model/workspace.h"

namespace kdn::model {

class Linear;
class Llama;

// What a pass computes besides KV and logits. Called by the thread that runs
// the pass, between its steps.
class PassObserver {
 public:
  virtual ~PassObserver() = default;
  // Whether the layer's figures are computed, which takes time.
  virtual bool WantsDeviation(int /*layer*/) const { return false; }
  virtual bool WantsMass(int /*layer*/) const { return false; }
  virtual bool WantsQueries(int /*layer*/) const { return false; }
  // Q, K and V of each row before RoPE, `stride` floats a row. Q comes first:
  // [num_heads][head_dim].
  virtual void OnQueries(int /*layer*/, absl::Span<const float> /*rows*/,
                         size_t /*stride*/) {}
  // Of each row: the squared distance between the KV that its slot held before
  // and the KV that the layer computed, in the cache's dtype, over all heads.
  // K is compared after RoPE. A token that has been added has no KV before:
  // its figures mean nothing.
  virtual void OnDeviation(int /*layer*/, absl::Span<const float> /*k*/,
                           absl::Span<const float> /*v*/) {}
  // Of each token in the sequence's cache: the attention that the rows pay to
  // it, summed over rows and heads. Each row and head adds 1 in all.
  virtual void OnMass(int /*layer*/, int /*sequence*/,
                      absl::Span<const float> /*mass*/) {}
};

// One pass of a model over tokens of one or several sequences, layer by layer:
//
//   ForwardPass pass(llama, workspace);
//   status = pass.Begin({{.cache = &cache, .tokens = ..., .positions = ...}});
//   for (int i = 0; i < layers; ++i) pass.RunLayer(i);
//   pass.Logits({last_row}, logits);
//
// A row is one token of the pass; the rows of all sequences follow each other.
// Keep() goes on with some rows only: the other tokens keep the KV that their
// slots hold in the layers to come. A row's bits depend on its sequence alone,
// and not on the other rows and sequences of the pass (see kernels/).
// Thread-confined; the layers use all cores.
class ForwardPass {
 public:
  // Both must outlive the pass.
  ForwardPass(const Llama& llama, Workspace& workspace);

  // Begins with the tokens of `sequences`, and adds the tokens without slots to
  // their caches. Errors are those of CheckSequences, and leave the caches
  // unchanged. What the sequences point to must outlive the layers.
  absl::Status Begin(absl::Span<const Sequence> sequences);

  // The rows that the next layer computes.
  const std::vector<PassRow>& rows() const { return w_.rows; }

  // Computes the rows' KV of this layer, and writes it into their slots.
  // REQUIRES: the layers are run in order, each once.
  void RunLayer(int layer, PassObserver* observer = nullptr);
  // The first part of RunLayer alone, without attention and MLP. A caller that
  // chooses rows by their deviation calls this, then Keep(), then RunLayer of
  // the same layer, which computes the KV of the rows that are left once more.
  void WriteKv(int layer, PassObserver* observer = nullptr);
  // Goes on with these rows, indices into rows(). REQUIRES: they ascend.
  void Keep(absl::Span<const int> rows);
  // Writes the logits of these rows, [rows][vocab_size]. REQUIRES: all layers
  // have run.
  void Logits(absl::Span<const int> rows, absl::Span<float> logits);

  // The floating-point operations since Begin, two for each product that is
  // summed: those of the linear layers, and in attention those of the pairs of
  // a row and a token that the row attends to.
  double flops() const { return flops_; }

 private:
  void AddRows(int number);
  void CountLinear(const Linear& linear, size_t rows);
  void Embed();
  // Finds runs and units, and the tokens that each row attends to.
  void Plan();
  void Allow(const PassRun& run);
  void Normalise(absl::Span<const float> weight);
  void Rotate(int row, float* head) const;
  // Takes Q, K and V of a row: Q becomes an operand, K and V go to the cache.
  void TakeQkv(int layer, int row, bool compares);
  float WriteHead(int layer, KvPart part, int head, const PassRow& row,
                  const float* values, bool compares);
  void PackKv(int layer);
  // The tokens of the longest sequence, in whole blocks.
  size_t TokensMax() const;
  void Attend(int layer, bool weighs);
  void AttendUnit(int layer, const PassUnit& unit, float* mass,
                  Workspace::Thread& thread);
  void SumMass(int layer, PassObserver& observer);
  void RunMlp(int layer);
  void RunMlpTile(int layer, int begin, int panel, Workspace::Thread& thread);
  // Whether a step over the rows takes longer than waking threads.
  bool wide() const { return w_.rows.size() >= 16; }

  const Llama& llama_;
  Workspace& w_;
  double flops_ = 0;
  double pairs_ = 0;  // of a row and a token, in one head of one layer
};

}  // namespace kdn::model

#endif  // KDN_MODEL_FORWARD_PASS_H_
