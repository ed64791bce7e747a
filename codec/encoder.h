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

// Upper bound in bytes of an object with this header, whichever heads share
// streams: the memory to reserve for encoding. REQUIRES: CheckShape of its
// shape is OK, and so is CheckHeader, except for joint_heads.
size_t ObjectBytesMax(ObjectHeader header);

// Encodes one chunk, layer by layer, into memory that the caller has reserved.
// Several threads may encode layers at once, in any order; the object's bytes
// are the same. The error of a decoded value is bounded for every finite input
// (docs/formats.md, "int8" and "Errors"). The encoder measures the errors and
// writes them into the index.
//
// Representation: the memory has a place for every layer, as large as a layer
// may become. If all layers before a layer are encoded, the layer is encoded
// directly after them. Otherwise it is encoded in its place, and moves down
// when the layers before it are encoded. Moving layers needs no other memory.
// Invariant: the layers before progress_->next are final and end at
// progress_->end. Finish writes header and index last, so half-encoded memory
// never parses as an object.
class ObjectEncoder {
 public:
  // INVALID_ARGUMENT if CheckHeader refuses the header, if the header has no
  // depth, or if `out` is smaller than ObjectBytesMax. UNIMPLEMENTED if
  // CheckSupported refuses the header. `out` must outlive the encoder; its
  // content does not matter. The transform-coded levels are coded with
  // `calibration`, and the header gets its id. `calibration` may be null if the
  // header has no such level. Archive needs one with joint_heads.
  static absl::StatusOr<ObjectEncoder> Create(
      ObjectHeader header, std::shared_ptr<const Calibration> calibration,
      absl::Span<std::byte> out,
      LosslessForm lossless_form = LosslessForm::kCoded);

  // Encodes a layer: K after RoPE, as the engine holds it, and V.
  // FAILED_PRECONDITION if the layer is encoded or being encoded.
  // INVALID_ARGUMENT unless the header has this layer, `layer_kv` has one layer
  // of the header's shape, and every level can hold the values; the layer may
  // then be tried again. Does not keep `layer_kv`. Thread-safe.
  absl::Status EncodeLayer(int layer, const KvView& layer_kv);
  // Encodes layer layers_encoded(), for a caller that gives the layers in
  // order. FAILED_PRECONDITION when all layers are encoded.
  absl::Status EncodeLayer(const KvView& layer_kv);

  // The number of leading layers that are all encoded.
  int layers_encoded() const;

  struct Finished {
    ChunkKey key;
    ObjectVersion version;
    size_t bytes = 0;
  };
  // Writes header and index. FAILED_PRECONDITION unless every layer is encoded.
  // Call it once.
  absl::StatusOr<Finished> Finish();

 private:
  ObjectEncoder(ObjectHeader header,
                std::shared_ptr<const Calibration> calibration,
                absl::Span<std::byte> out, LosslessForm lossless_form);
  // The state of one layer, and its bytes in out_.
  struct Place {
    enum { kMissing, kBegun, kThere } state = kMissing;
    size_t at = 0;
    size_t bytes = 0;
  };
  // The state that threads share. The entries_ of a layer are not in it: they
  // belong to the thread that encodes the layer until the layer is kThere.
  struct Progress {
    absl::Mutex mutex;
    int next ABSL_GUARDED_BY(mutex) = 0;
    size_t end ABSL_GUARDED_BY(mutex) = 0;
    std::vector<Place> places ABSL_GUARDED_BY(mutex);
  };

  absl::Status CheckLayer(int layer, const KvView& layer_kv) const;
  // Makes the layer kBegun and returns the offset in out_ to encode it at.
  absl::StatusOr<size_t> Begin(int layer);
  // Makes a layer that could not be encoded kMissing again.
  void Abandon(int layer);
  // Makes an encoded layer kThere. Then moves down all layers that are kThere
  // and directly follow the final ones.
  void Settle(int layer, size_t bytes);
  void MoveDown(int layer, const Place& from, size_t to);
  // Encodes the streams of a ladder of levels for one layer from room[*cursor]
  // on, and moves the cursor to their end. Offsets in their entries count from
  // the beginning of `room`.
  absl::Status EncodeLadder(absl::Span<const Level> ladder, int layer,
                            const KvView& layer_kv, absl::Span<std::byte> room,
                            size_t* cursor);
  // The entry of an encoded stream. V has an entry of its own in a joint
  // stream.
  struct Encoded {
    StreamEntry entry;
    StreamEntry of_v;
  };
  // Encodes the streams of one head group into `rooms`, one for each level.
  absl::Status EncodeStreams(const StreamId& first, const KvView& layer_kv,
                             absl::Span<StreamRoom> rooms,
                             absl::Span<Encoded> steps) const;
  // Decodes the streams in `rooms` and writes their errors against `heads` into
  // `steps`.
  absl::Status MeasureErrors(const StreamId& first,
                             absl::Span<const Rows> heads,
                             absl::Span<const StreamRoom> rooms,
                             absl::Span<Encoded> steps) const;
  StreamContext ContextOf(const StreamId& id,
                          const RowRotation* rotation) const;

  ObjectHeader header_;
  std::shared_ptr<const Calibration> calibration_;
  // Undo RoPE on K and apply it again. Set if a level codes K before RoPE.
  std::optional<RowRotation> undo_rope_;
  std::optional<RowRotation> apply_rope_;
  absl::Span<std::byte> out_;
  LosslessForm lossless_form_;
  size_t prefix_bytes_ = 0;
  size_t layer_bytes_max_ = 0;
  std::vector<StreamEntry> entries_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENCODER_H_
