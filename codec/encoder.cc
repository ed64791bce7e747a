#include "codec/encoder.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/format/header_check.h"
#include "codec/format/prefix_format.h"
#include "codec/format/stream_layout.h"
#include "codec/kernels/stream_rows.h"
#include "codec/kernels/vector_kernels.h"
#include "codec/stream_codec.h"
#include "kv/check.h"
#include "kv/crc32c.h"
#include "kv/line_vector.h"

namespace kdn::codec {
namespace {

std::string ShapeText(const KvShape& shape) {
  const std::string_view dtype = Name(shape.dtype);
  return absl::StrCat(shape.layers, " layers, ", shape.kv_heads, " heads, ",
                      shape.tokens, " tokens, head_dim ", shape.head_dim, ", ",
                      absl::string_view(dtype.data(), dtype.size()));
}

// The ladders of a set of levels, each up to the most exact level in the set.
// The levels of a ladder are coded together.
std::vector<absl::Span<const Level>> LaddersOf(LevelSet levels) {
  std::vector<absl::Span<const Level>> ladders;
  for (const Level level : LevelsOf(levels)) {
    const absl::Span<const Level> ladder = LadderTo(level);
    if (ladder.size() > 1) {
      ladders.back() = ladder;
    } else {
      ladders.push_back(ladder);
    }
  }
  return ladders;
}

// Whether some level of the set codes K before RoPE.
bool NeedsUndo(LevelSet levels) {
  for (Level level : LevelsOf(levels)) {
    if (CodecOf(level).k_form() == KForm::kBeforeRope) return true;
  }
  return false;
}

// The largest float for an error that is not finite: a decoded value may have
// overflowed.
float Certified(double error) {
  return error <= FLT_MAX ? static_cast<float>(error) : FLT_MAX;
}

// Upper bound of the bytes of a layer that begins at a multiple of
// kGroupAlignment. The bound is such a multiple, too.
size_t LayerBytesMax(const ObjectHeader& header) {
  size_t layer_bytes = 0;
  for (Level level : LevelsOf(header.levels)) {
    const StreamCodec& codec = CodecOf(level);
    size_t group_bytes = 0;
    for (const StreamId& id : StreamsOf(GridOf(header), {0, level})) {
      group_bytes += codec.BytesMax(StreamShapeOf(GridOf(header), id), level);
    }
    layer_bytes += AlignUp(group_bytes);
  }
  return layer_bytes;
}

// Upper bound of the bytes of an object with this very header.
size_t BytesMax(const ObjectHeader& header) {
  return PrefixBytesFor(header) + LayerBytesMax(header) * header.shape.layers;
}

void ZeroTo(size_t offset, absl::Span<std::byte> memory, size_t* cursor) {
  std::memset(memory.data() + *cursor, 0, offset - *cursor);
  *cursor = offset;
}

}  // namespace

size_t ObjectBytesMax(ObjectHeader header) {
  KDN_CHECK(CheckShape(header.shape).ok(), "the shape was not checked");
  const int heads =
      HasTransformCoded(header.levels) ? header.shape.kv_heads : 0;
  size_t most = 0;
  for (header.joint_heads = 0; header.joint_heads <= heads;
       ++header.joint_heads) {
    const bool apart = header.joint_heads == 0;
    if (!apart && !MayJoin(header.shape, header.joint_heads)) continue;
    most = std::max(most, BytesMax(header));
  }
  return most;
}

absl::StatusOr<ObjectEncoder> ObjectEncoder::Create(
    ObjectHeader header, std::shared_ptr<const Calibration> calibration,
    absl::Span<std::byte> out, LosslessForm lossless_form) {
  header.calibration = CalibrationId();
  header.joint_heads = 0;
  if (HasTransformCoded(header.levels)) {
    KDN_CHECK(calibration != nullptr, "transform-coded without a calibration");
    header.calibration = calibration->id();
    header.joint_heads = calibration->joint_heads();
  }
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  if (!header.depth.has_value()) {
    return absl::InvalidArgumentError("the header has no depth");
  }
  if (absl::Status s = CheckSupported(header); !s.ok()) return s;
  const size_t bytes_max = BytesMax(header);
  if (out.size() < bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("the object needs up to ", bytes_max, " bytes, ",
                     out.size(), " are reserved"));
  }
  return ObjectEncoder(std::move(header), std::move(calibration), out,
                       lossless_form);
}

ObjectEncoder::ObjectEncoder(ObjectHeader header,
                             std::shared_ptr<const Calibration> calibration,
                             absl::Span<std::byte> out,
                             LosslessForm lossless_form)
    : header_(std::move(header)),
      calibration_(std::move(calibration)),
      out_(out),
      lossless_form_(lossless_form),
      prefix_bytes_(PrefixBytesFor(header_)),
      layer_bytes_max_(LayerBytesMax(header_)),
      entries_(StreamCount(GridOf(header_), header_.levels)),
      progress_(std::make_unique<Progress>()) {
  {
    absl::MutexLock lock(&progress_->mutex);
    progress_->end = prefix_bytes_;
    progress_->places.resize(header_.shape.layers);
  }
  if (NeedsUndo(header_.levels)) {
    const RopeTable rope(header_.rope);
    undo_rope_ = RowRotation::Undo(rope, header_.positions);
    apply_rope_ = RowRotation::Apply(rope, header_.positions);
  }
  // Reused memory may hold an older object's header.
  std::memset(out_.data(), 0, ObjectIndex::kFixedPrefixBytes);
}

StreamContext ObjectEncoder::ContextOf(const StreamId& id,
                                       const RowRotation* rotation) const {
  StreamContext context;
  context.positions = header_.positions;
  context.lossless_form = lossless_form_;
  if (id.part == KvPart::kK &&
      CodecOf(id.level).k_form() == KForm::kBeforeRope) {
    context.rotation = rotation;
  }
  if (IsTransformCoded(id.level)) {
    context.transform = &calibration_->Of(id.layer, id.part, id.head_group);
    context.tables = calibration_->tables();
    context.coarser = id.level == Level::kArchive ? kCoarserMax : 0;
  }
  return context;
}

absl::Status ObjectEncoder::MeasureErrors(const StreamId& first,
                                          absl::Span<const Rows> heads,
                                          absl::Span<const StreamRoom> rooms,
                                          absl::Span<Encoded> steps) const {
  const StreamShape shape = StreamShapeOf(GridOf(header_), first);
  LineVector<std::byte> decoded(shape.values() * SizeOf(shape.dtype));
  std::vector<MutableRows> rows;
  rows.reserve(shape.heads);
  for (int head = 0; head < shape.heads; ++head) {
    rows.push_back({decoded.data() + head * shape.tokens * shape.row_bytes(),
                    static_cast<int64_t>(shape.row_bytes())});
  }
  const auto measure = [&](int begin, int end, StreamEntry* entry) {
    kernels::Differences differences;
    for (int head = begin; head < end; ++head) {
      for (int token = 0; token < shape.tokens; ++token) {
        kernels::AddDifferences(shape.dtype, heads[head].At(token),
                                rows[head].At(token), shape.head_dim,
                                &differences);
      }
    }
    const double values =
        static_cast<double>(end - begin) * shape.tokens * shape.head_dim;
    entry->error_max = Certified(differences.max());
    entry->error_rms =
        Certified(std::sqrt(differences.sum_of_squares() / values));
  };
  const auto measure_all = [&](size_t step) {
    const int first_part = shape.joint ? shape.k_heads() : shape.heads;
    measure(0, first_part, &steps[step].entry);
    if (shape.joint) measure(first_part, shape.heads, &steps[step].of_v);
  };
  std::vector<StreamReader> readers;
  for (const StreamRoom& room : rooms) {
    readers.emplace_back(room.room.first(room.bytes));
  }
  StreamContext context =
      ContextOf(first, apply_rope_.has_value() ? &*apply_rope_ : nullptr);
  context.reads_rows = true;
  absl::Status status =
      CodecOf(first.level)
          .DecodeEach({shape, absl::MakeSpan(readers), context, rows},
                      measure_all);
  if (status.ok()) return status;
  return absl::InternalError(
      absl::StrCat("an encoded stream does not decode: ", status.message()));
}

absl::Status ObjectEncoder::EncodeStreams(const StreamId& first,
                                          const KvView& layer_kv,
                                          absl::Span<StreamRoom> rooms,
                                          absl::Span<Encoded> steps) const {
  const StreamCodec& codec = CodecOf(first.level);
  const StreamShape shape = StreamShapeOf(GridOf(header_), first);
  const std::vector<Rows> heads = RowsOfStream(layer_kv, shape, first);
  absl::Status status = codec.Encode(
      shape, heads,
      ContextOf(first, undo_rope_.has_value() ? &*undo_rope_ : nullptr), rooms);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(Name(first), ": ", status.message()));
  }
  for (size_t step = 0; step < rooms.size(); ++step) {
    StreamEntry& entry = steps[step].entry;
    entry.bytes = static_cast<uint32_t>(rooms[step].bytes);
    entry.crc32c = Crc32c(rooms[step].room.first(rooms[step].bytes));
  }
  if (codec.is_exact()) return absl::OkStatus();
  return MeasureErrors(first, heads, rooms, steps);
}

absl::Status ObjectEncoder::EncodeLadder(absl::Span<const Level> ladder,
                                         int layer, const KvView& layer_kv,
                                         absl::Span<std::byte> room,
                                         size_t* cursor) {
  // The object has all streams of a level together, but the levels of one head
  // group are coded together. So the streams of the finer levels wait here.
  std::vector<std::vector<std::byte>> waiting(ladder.size());
  std::vector<StreamRoom> rooms(ladder.size());
  std::vector<Encoded> encoded(ladder.size());
  const auto entry_of = [this](StreamId id, Level level) -> StreamEntry& {
    id.level = level;
    return entries_[SlotOf(GridOf(header_), header_.levels, id)];
  };
  ZeroTo(AlignUp(*cursor), room, cursor);
  const auto streams = StreamsOf(GridOf(header_), {layer, ladder.front()});
  for (const StreamId& id : streams) {
    const StreamShape shape = StreamShapeOf(GridOf(header_), id);
    if (shape.heads == 0) {
      // Coded in the stream of K, which came before and set the errors.
      entry_of(id, ladder.front()).offset = *cursor;
      continue;
    }
    rooms[0] = {room.subspan(
        *cursor, CodecOf(id.level).BytesMax(shape, ladder.front()))};
    for (size_t step = 1; step < ladder.size(); ++step) {
      const size_t at = waiting[step].size();
      waiting[step].resize(at +
                           CodecOf(id.level).BytesMax(shape, ladder[step]));
      rooms[step] = {absl::MakeSpan(waiting[step]).subspan(at)};
    }
    if (absl::Status s = EncodeStreams(id, layer_kv, absl::MakeSpan(rooms),
                                       absl::MakeSpan(encoded));
        !s.ok()) {
      return s;
    }
    encoded[0].entry.offset = *cursor;
    *cursor += rooms[0].bytes;
    for (size_t step = 1; step < ladder.size(); ++step) {
      waiting[step].resize(waiting[step].size() - rooms[step].room.size() +
                           rooms[step].bytes);
    }
    StreamId v = id;
    v.part = KvPart::kV;
    for (size_t step = 0; step < ladder.size(); ++step) {
      entry_of(id, ladder[step]) = encoded[step].entry;
      if (shape.joint) entry_of(v, ladder[step]) = encoded[step].of_v;
    }
  }
  for (size_t step = 1; step < ladder.size(); ++step) {
    ZeroTo(AlignUp(*cursor), room, cursor);
    std::memcpy(room.data() + *cursor, waiting[step].data(),
                waiting[step].size());
    for (const StreamId& id : streams) {
      StreamEntry& entry = entry_of(id, ladder[step]);
      entry.offset = *cursor;
      *cursor += entry.bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status ObjectEncoder::CheckLayer(int layer,
                                       const KvView& layer_kv) const {
  if (layer < 0 || layer >= header_.shape.layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " of an object of ", header_.shape.layers, " layers"));
  }
  KvShape expected = header_.shape;
  expected.layers = 1;
  if (layer_kv.shape() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " has ", ShapeText(layer_kv.shape()),
                     "; the header has ", ShapeText(expected)));
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> ObjectEncoder::Begin(int layer) {
  absl::MutexLock lock(&progress_->mutex);
  Place& place = progress_->places[layer];
  if (place.state != Place::kMissing) {
    return absl::FailedPreconditionError(
        absl::StrCat("layer ", layer, " is encoded or being encoded"));
  }
  place.state = Place::kBegun;
  place.at = layer == progress_->next
                 ? AlignUp(progress_->end)
                 : prefix_bytes_ + layer * layer_bytes_max_;
  return place.at;
}

void ObjectEncoder::Abandon(int layer) {
  absl::MutexLock lock(&progress_->mutex);
  progress_->places[layer].state = Place::kMissing;
}

void ObjectEncoder::MoveDown(int layer, const Place& from, size_t to) {
  if (from.at != to) {
    std::memmove(out_.data() + to, out_.data() + from.at, from.bytes);
  }
  for (const Level level : LevelsOf(header_.levels)) {
    for (const StreamId& id : StreamsOf(GridOf(header_), {layer, level})) {
      entries_[SlotOf(GridOf(header_), header_.levels, id)].offset += to;
    }
  }
}

void ObjectEncoder::Settle(int layer, size_t bytes) {
  absl::MutexLock lock(&progress_->mutex);
  progress_->places[layer].state = Place::kThere;
  progress_->places[layer].bytes = bytes;
  for (; progress_->next < header_.shape.layers; ++progress_->next) {
    const Place& place = progress_->places[progress_->next];
    if (place.state != Place::kThere) break;
    ZeroTo(AlignUp(progress_->end), out_, &progress_->end);
    MoveDown(progress_->next, place, progress_->end);
    progress_->end += place.bytes;
  }
}

absl::Status ObjectEncoder::EncodeLayer(int layer, const KvView& layer_kv) {
  if (absl::Status s = CheckLayer(layer, layer_kv); !s.ok()) return s;
  const absl::StatusOr<size_t> at = Begin(layer);
  if (!at.ok()) return at.status();
  size_t bytes = 0;
  for (const absl::Span<const Level> ladder : LaddersOf(header_.levels)) {
    if (absl::Status s =
            EncodeLadder(ladder, layer, layer_kv,
                         out_.subspan(*at, layer_bytes_max_), &bytes);
        !s.ok()) {
      Abandon(layer);
      return s;
    }
  }
  Settle(layer, bytes);
  return absl::OkStatus();
}

absl::Status ObjectEncoder::EncodeLayer(const KvView& layer_kv) {
  const int next = layers_encoded();
  if (next == header_.shape.layers) {
    return absl::FailedPreconditionError(
        absl::StrCat("all ", next, " layers are encoded"));
  }
  return EncodeLayer(next, layer_kv);
}

int ObjectEncoder::layers_encoded() const {
  absl::MutexLock lock(&progress_->mutex);
  return progress_->next;
}

absl::StatusOr<ObjectEncoder::Finished> ObjectEncoder::Finish() {
  absl::MutexLock lock(&progress_->mutex);
  if (progress_->next != header_.shape.layers) {
    return absl::FailedPreconditionError(
        absl::StrCat("the object has ", progress_->next, " of ",
                     header_.shape.layers, " layers"));
  }
  KDN_CHECK(progress_->end <= out_.size(), "streams past the reserved memory");
  const absl::Span<std::byte> prefix = out_.subspan(0, prefix_bytes_);
  WritePrefix(header_, entries_, prefix);
  return Finished{KeyOf(header_), VersionOf(prefix), progress_->end};
}

}  // namespace kdn::codec
