#ifndef KDN_CODEC_ENCODER_H_
#define KDN_CODEC_ENCODER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/calibration.h"
#include "codec/object.h"
#include "codec/row_rotation.h"
#include "codec/stream_codec.h"
#include "kv/kv_view.h"

namespace kdn::codec {

// Upper bound of the object that a header will give; what to reserve before
// encoding. REQUIRES: the header is valid (see ObjectEncoder::Create).
size_t ObjectBytesMax(const ObjectHeader& header);

// Encodes one chunk, layer by layer, into memory that the caller reserved. How
// far a decoded value may be from a finite input is bounded at every level
// (docs/formats.md, "int8" and "Errors"); how far it is, is measured and goes
// into the index.
//
// Invariant: bytes before the cursor are final except header and index, which
// Finish writes last, so half-encoded memory never parses as an object.
// Thread-compatible: one caller at a time, any thread.
class ObjectEncoder {
 public:
  // INVALID_ARGUMENT when the header contradicts itself (shape vs tokens vs
  // positions, no level, bad RoPE) or `out` is smaller than ObjectBytesMax.
  // `out` must outlive the encoder; its content does not matter. The
  // transform-coded levels are coded with `calibration`, whose id goes into the
  // header; it may be null when there is none of them.
  static absl::StatusOr<ObjectEncoder> Create(
      ObjectHeader header, std::shared_ptr<const Calibration> calibration,
      absl::Span<std::byte> out);

  // Encodes the next layer: K (after RoPE, as the engine holds it) and V.
  // Layers come in order 0, 1, ...; FAILED_PRECONDITION when all are there.
  // INVALID_ARGUMENT unless `layer_kv` shows exactly one layer of the header's
  // shape. `layer_kv` is not kept.
  absl::Status EncodeLayer(const KvView& layer_kv);

  int layers_encoded() const { return next_layer_; }

  struct Finished {
    ChunkKey key;
    ObjectVersion version;
    size_t bytes = 0;
  };
  // Writes header and index. FAILED_PRECONDITION unless every layer is there.
  absl::StatusOr<Finished> Finish();

 private:
  ObjectEncoder(ObjectHeader header,
                std::shared_ptr<const Calibration> calibration,
                absl::Span<std::byte> out);
  // Encodes the streams of a ladder of levels for one layer from `*cursor` on
  // and moves it behind them; nothing else changes but the streams' entries.
  absl::Status EncodeLadder(absl::Span<const Level> ladder,
                            const KvView& layer_kv, size_t* cursor);
  // The streams of one head group into `rooms`, one per level.
  absl::Status EncodeStreams(const StreamId& first, const KvView& layer_kv,
                             absl::Span<StreamRoom> rooms,
                             absl::Span<StreamEntry> entries) const;
  // Decodes what was written and notes how far it is from `heads`.
  absl::Status MeasureErrors(const StreamId& first,
                             absl::Span<const Rows> heads,
                             absl::Span<const StreamRoom> rooms,
                             absl::Span<StreamEntry> entries) const;
  StreamContext ContextOf(const StreamId& id,
                          const RowRotation* rotation) const;
  void ZeroTo(size_t offset, size_t* cursor);

  ObjectHeader header_;
  std::shared_ptr<const Calibration> calibration_;
  // Bring K before RoPE and back; there when a level codes it so.
  std::optional<RowRotation> undo_rope_;
  std::optional<RowRotation> apply_rope_;
  absl::Span<std::byte> out_;
  size_t prefix_bytes_ = 0;
  size_t cursor_ = 0;
  int next_layer_ = 0;
  std::vector<StreamEntry> entries_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENCODER_H_
