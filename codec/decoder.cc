#include "codec/decoder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "codec/kernels/stream_rows.h"
#include "codec/stream_codec.h"
#include "kv/check.h"
#include "kv/line_vector.h"

namespace kdn::codec {

absl::StatusOr<ObjectDecoder> ObjectDecoder::Create(
    const ObjectIndex* index, std::shared_ptr<const Calibration> calibration,
    absl::Span<const int32_t> positions, Isa isa) {
  KDN_CHECK(index != nullptr, "a decoder needs an index");
  const ObjectHeader& header = index->header();
  const std::string chunk = ShortHex(index->key());
  if (absl::Status s = CheckSupported(header); !s.ok()) {
    return absl::Status(s.code(),
                        absl::StrCat("chunk ", chunk, ": ", s.message()));
  }
  if (positions.size() != header.positions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", chunk, " has ", header.positions.size(),
                     " tokens, got ", positions.size(), " positions"));
  }
  const auto lowest = std::min_element(positions.begin(), positions.end());
  if (*lowest < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", chunk, ": wanted position of token ",
                     lowest - positions.begin(), " is ", *lowest));
  }
  return ObjectDecoder(index, std::move(calibration), positions, isa);
}

ObjectDecoder::ObjectDecoder(const ObjectIndex* index,
                             std::shared_ptr<const Calibration> calibration,
                             absl::Span<const int32_t> positions, Isa isa)
    : index_(index),
      calibration_(std::move(calibration)),
      rotations_(std::make_unique<KRotations>(
          index->header().rope, index->header().positions,
          std::vector<int32_t>(positions.begin(), positions.end()))),
      isa_(isa) {}

absl::Status ObjectDecoder::CheckCall(Level level, int layer, int head_begin,
                                      int head_end,
                                      const KvShape& destination) const {
  const ObjectHeader& header = index_->header();
  KvShape expected = header.shape;
  expected.layers = 1;
  expected.kv_heads = head_end - head_begin;
  if (!header.levels.Has(level) || layer < 0 || layer >= header.shape.layers ||
      head_begin < 0 || head_begin >= head_end ||
      head_end > header.shape.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", ShortHex(index_->key()), " of ",
                     header.shape.layers, " layers and ", header.shape.kv_heads,
                     " heads has no level ", static_cast<int>(level), " layer ",
                     layer, " heads [", head_begin, ", ", head_end, ")"));
  }
  if (destination != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the destination shows ", destination.layers, " layers, ",
        destination.kv_heads, " heads, ", destination.tokens,
        " tokens, head_dim ", destination.head_dim, ", dtype ",
        static_cast<int>(destination.dtype), "; expected 1, ",
        expected.kv_heads, ", ", expected.tokens, ", ", expected.head_dim, ", ",
        static_cast<int>(expected.dtype)));
  }
  return absl::OkStatus();
}

struct ObjectDecoder::Found {
  StreamId first;  // at the ladder's first level
  std::array<absl::Span<const std::byte>, kLadderSteps> levels;  // by step
};

namespace {

using HeadRows = absl::InlinedVector<MutableRows, 1>;

// A stream that a codec is decoding.
struct Decoding {
  absl::InlinedVector<StreamReader, kLadderSteps> readers;
  HeadRows heads;
  StreamJob job;
};

// Prefetches the beginning of a stream. The CPU itself prefetches the rest of a
// long stream.
void Prefetch(absl::Span<const std::byte> bytes) {
  constexpr size_t kMost = 16384;
  for (size_t at = 0; at < std::min(bytes.size(), kMost); at += kCacheLine) {
    __builtin_prefetch(bytes.data() + at, 0, 2);
  }
}

// The destination rows of the stream's heads. Null for a head that is not in
// [head_begin, head_end).
HeadRows WantedRows(const StreamId& id, const StreamShape& shape,
                    int head_begin, int head_end,
                    const KvDestination& destination) {
  HeadRows rows(shape.heads);
  for (int i = 0; i < shape.heads; ++i) {
    const StreamHead at = HeadOf(shape, id, i);
    if (at.head < head_begin || at.head >= head_end) continue;
    rows[i] = destination.Rows(0, at.part, at.head - head_begin);
  }
  return rows;
}

// The first streams of the ladder that hold any of the heads.
std::vector<StreamId> FirstStreams(const ObjectHeader& header, Level level,
                                   int layer, int head_begin, int head_end) {
  const StreamGrid grid = GridOf(header);
  std::vector<StreamId> streams =
      StreamsOf(grid, {layer, level}, head_begin, head_end);
  if (grid.IsJoint(level)) {  // the streams of V are empty
    streams.resize(streams.size() / 2);
  }
  return streams;
}

}  // namespace

StreamContext ObjectDecoder::ContextOf(const StreamId& id) const {
  StreamContext context;
  context.isa = isa_;
  if (id.part == KvPart::kK) {
    context.rotation = rotations_->For(CodecOf(id.level).k_form());
  }
  if (IsTransformCoded(id.level)) {
    KDN_CHECK(calibration_ != nullptr, "transform-coded without a calibration");
    context.transform = &calibration_->Of(id.layer, id.part, id.head_group);
    context.tables = calibration_->tables();
  }
  return context;
}

absl::Status ObjectDecoder::CheckLengths(const Found& found,
                                         absl::Span<const Level> ladder) const {
  const StreamShape shape =
      StreamShapeOf(GridOf(index_->header()), found.first);
  StreamId id = found.first;
  for (size_t step = 0; step < ladder.size(); ++step) {
    id.level = ladder[step];
    const size_t bytes = found.levels[step].size();
    if (CodecOf(id.level).MayHaveBytes(shape, id.level, bytes)) continue;
    return absl::DataLossError(absl::StrCat("chunk ", ShortHex(index_->key()),
                                            " ", Name(id), ": only ", bytes,
                                            " bytes are here"));
  }
  return absl::OkStatus();
}

absl::Status ObjectDecoder::Judge(const Found& found,
                                  absl::Span<const Level> ladder,
                                  absl::Span<StreamReader> readers,
                                  const absl::Status& decoded) const {
  StreamId id = found.first;
  for (size_t step = 0; step < ladder.size(); ++step) {
    id.level = ladder[step];
    readers[step].Next(readers[step].remaining());
    if (absl::Status s = VerifyChecksum(*index_, id, readers[step].size(),
                                        readers[step].crc32c());
        !s.ok()) {
      return s;
    }
  }
  if (decoded.ok()) return decoded;
  return absl::Status(decoded.code(),
                      absl::StrCat("chunk ", ShortHex(index_->key()), " ",
                                   Name(found.first), ": ", decoded.message()));
}

absl::Status ObjectDecoder::DecodeFound(
    absl::Span<const Found> found, absl::Span<const Level> ladder,
    int head_begin, int head_end, const KvDestination& destination) const {
  const StreamCodec& codec = CodecOf(ladder.front());
  for (size_t i = 0; i < found.size(); i += 2) {
    std::array<Decoding, 2> pair;
    const size_t count = std::min<size_t>(2, found.size() - i);
    for (size_t j = 0; j < count; ++j) {
      const Found& one = found[i + j];
      if (absl::Status s = CheckLengths(one, ladder); !s.ok()) return s;
      Decoding& decoding = pair[j];
      for (size_t step = 0; step < ladder.size(); ++step) {
        decoding.readers.emplace_back(one.levels[step]);
      }
      const StreamShape shape =
          StreamShapeOf(GridOf(index_->header()), one.first);
      decoding.heads =
          WantedRows(one.first, shape, head_begin, head_end, destination);
      decoding.job = {shape, absl::MakeSpan(decoding.readers),
                      ContextOf(one.first), decoding.heads};
    }
    // The bytes of the next two streams may not be in this core's caches yet.
    for (const Found& next : found.subspan(i + count, 2)) {
      for (const auto level : next.levels) Prefetch(level);
    }
    std::array<absl::Status, 2> decoded;
    if (count == 2) {
      decoded = codec.DecodeTwo(pair[0].job, pair[1].job);
    } else {
      const StreamJob& job = pair[0].job;
      decoded[0] = codec.Decode(job.shape, job.steps, job.context, job.heads);
    }
    for (size_t j = 0; j < count; ++j) {
      if (absl::Status s = Judge(found[i + j], ladder,
                                 absl::MakeSpan(pair[j].readers), decoded[j]);
          !s.ok()) {
        return s;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ObjectDecoder::DecodeLayer(
    Level level, int layer, int head_begin, int head_end,
    absl::Span<const std::byte> streams,
    const KvDestination& destination) const {
  if (absl::Status s =
          CheckCall(level, layer, head_begin, head_end, destination.shape());
      !s.ok()) {
    return s;
  }
  const absl::Span<const Level> ladder = LadderTo(level);
  std::vector<Found> found;
  for (const StreamId& id : FirstStreams(index_->header(), ladder.front(),
                                         layer, head_begin, head_end)) {
    found.push_back({id, {}});
  }
  // `streams` has all streams of one level, then those of the next.
  size_t at = 0;
  for (size_t step = 0; step < ladder.size(); ++step) {
    for (Found& one : found) {
      StreamId id = one.first;
      id.level = ladder[step];
      const size_t bytes =
          std::min<size_t>(index_->Entry(id).bytes, streams.size() - at);
      one.levels[step] = streams.subspan(at, bytes);
      at += bytes;
    }
  }
  if (absl::Status s =
          DecodeFound(found, ladder, head_begin, head_end, destination);
      !s.ok()) {
    return s;
  }
  if (at == streams.size()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("chunk ", ShortHex(index_->key()), " layer ", layer, ": ",
                   streams.size() - at, " bytes after the last stream"));
}

absl::Status ObjectDecoder::DecodeLayerOf(
    absl::Span<const std::byte> object, Level level, int layer, int head_begin,
    int head_end, const KvDestination& destination) const {
  if (absl::Status s =
          CheckCall(level, layer, head_begin, head_end, destination.shape());
      !s.ok()) {
    return s;
  }
  if (object.size() != index_->object_bytes()) {
    return absl::DataLossError(absl::StrCat(
        "chunk ", ShortHex(index_->key()), ": object has ", object.size(),
        " bytes, expected ", index_->object_bytes()));
  }
  const absl::Span<const Level> ladder = LadderTo(level);
  std::vector<Found> found;
  for (const StreamId& first : FirstStreams(index_->header(), ladder.front(),
                                            layer, head_begin, head_end)) {
    found.push_back({first, {}});
    for (size_t step = 0; step < ladder.size(); ++step) {
      StreamId id = first;
      id.level = ladder[step];
      const StreamEntry& entry = index_->Entry(id);
      found.back().levels[step] = object.subspan(entry.offset, entry.bytes);
    }
  }
  return DecodeFound(found, ladder, head_begin, head_end, destination);
}

}  // namespace kdn::codec
