#ifndef KDN_CODEC_ENCODER_H_
#define KDN_CODEC_ENCODER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "codec/kernels/row_rotation.h"
#include "codec/stream_codec.h"
#include "kv/kv_view.h"

namespace kdn::codec {

// Upper bound of the object that a header will give; what to reserve before
// encoding. REQUIRES: the header is valid (see ObjectEncoder::Create).
size_t ObjectBytesMax(const ObjectHeader& header);

// Encodes one chunk, layer by layer, into memory that the caller reserved.
// Layers may be encoded by several threads at once, in any order; the object's
// bytes are the same. How far a decoded value may be from a finite input is
// bounded at every level (docs/formats.md, "int8" and "Errors"); how far it is,
// is measured and goes into the index.
//
// Representation: the memory has a place for every layer, as large as a layer
// may become. A layer is encoded where it will stay when those before it are
// there, else in its place, from which it moves down to them: no memory is
// needed besides.
// Invariant: the layers before progress_->next are final and end at
// progress_->end. Header and index are written last, by Finish, so half-encoded
// memory never parses as an object.
class ObjectEncoder {
 public:
  // INVALID_ARGUMENT when the header contradicts itself (shape vs tokens vs
  // positions, depth vs condition, no level, bad RoPE) or `out` is smaller than
  // ObjectBytesMax; UNIMPLEMENTED when CheckSupported says so.
  // `out` must outlive the encoder; its content does not matter. The
  // transform-coded levels are coded with `calibration`, whose id goes into the
  // header; it may be null when there is none of them.
  static absl::StatusOr<ObjectEncoder> Create(
      ObjectHeader header, std::shared_ptr<const Calibration> calibration,
      absl::Span<std::byte> out);

  // Encodes a layer: K (after RoPE, as the engine holds it) and V.
  // FAILED_PRECONDITION when it is there or on its way; one that was refused
  // may be tried again. INVALID_ARGUMENT unless it is one of the header's and
  // `layer_kv` shows exactly one layer of the header's shape. `layer_kv` is not
  // kept. Thread-safe.
  absl::Status EncodeLayer(int layer, const KvView& layer_kv);
  // The next one, for a caller that gives them in order 0, 1, ...;
  // FAILED_PRECONDITION when all are there.
  absl::Status EncodeLayer(const KvView& layer_kv);

  // Layers that are there with all those before them.
  int layers_encoded() const;

  struct Finished {
    ChunkKey key;
    ObjectVersion version;
    size_t bytes = 0;
  };
  // Writes header and index. FAILED_PRECONDITION unless every layer is there.
  // Call once.
  absl::StatusOr<Finished> Finish();

 private:
  ObjectEncoder(ObjectHeader header,
                std::shared_ptr<const Calibration> calibration,
                absl::Span<std::byte> out);
  // What is known of one layer: where it is, and whether.
  struct Place {
    enum { kMissing, kBegun, kThere } state = kMissing;
    size_t at = 0;
    size_t bytes = 0;
  };
  // What threads share; the entries of a layer are its encoder's until the
  // layer is there.
  struct Progress {
    absl::Mutex mutex;
    int next ABSL_GUARDED_BY(mutex) = 0;
    size_t end ABSL_GUARDED_BY(mutex) = 0;
    std::vector<Place> places ABSL_GUARDED_BY(mutex);
  };

  absl::Status CheckLayer(int layer, const KvView& layer_kv) const;
  // Where to encode the layer.
  absl::StatusOr<size_t> Begin(int layer);
  // Begun, and refused.
  void Abandon(int layer);
  // Begun, and encoded: it is put behind those before it, as are those behind
  // it that wait for it.
  void Settle(int layer, size_t bytes);
  void MoveDown(int layer, const Place& from, size_t to);
  // Encodes the streams of a ladder of levels for one layer from room[*cursor]
  // on and moves the cursor behind them. Offsets in entries count from `room`.
  absl::Status EncodeLadder(absl::Span<const Level> ladder, int layer,
                            const KvView& layer_kv, absl::Span<std::byte> room,
                            size_t* cursor);
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

  ObjectHeader header_;
  std::shared_ptr<const Calibration> calibration_;
  // Bring K before RoPE and back; there when a level codes it so.
  std::optional<RowRotation> undo_rope_;
  std::optional<RowRotation> apply_rope_;
  absl::Span<std::byte> out_;
  size_t prefix_bytes_ = 0;
  size_t layer_bytes_max_ = 0;
  std::vector<StreamEntry> entries_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENCODER_H_
