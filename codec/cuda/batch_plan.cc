#include "codec/cuda/batch_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/cuda/device_stream.h"
#include "codec/format/stream_layout.h"
#include "codec/transform/symbol_bands.h"
#include "codec/transform/transform_frame.h"
#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

static_assert(kDimMax == kTransformDimMax);
static_assert(static_cast<int>(ElementType::kFp16) ==
                  static_cast<int>(Dtype::kFp16) &&
              static_cast<int>(ElementType::kFp32) ==
                  static_cast<int>(Dtype::kFp32));
static_assert(static_cast<int>(Pairing::kNeighbours) ==
              static_cast<int>(RopePairing::kGptJ));
static_assert(kRansLanes == kWarpLanes && kTokenBlock == kTokenStep);

// A tile is indexed with 31 bits.
constexpr uint64_t kTileBytesMax = uint64_t{1} << 30;

absl::Status AddSymbols(absl::Span<const std::byte> symbols, uint64_t at,
                        size_t patches, LevelJob* level) {
  constexpr size_t kStatesBytes = sizeof(uint32_t) * kRansLanes;
  if (symbols.size() < kStatesBytes || symbols.size() % 2 != 0) {
    return absl::DataLossError("its entropy-coded symbols are damaged");
  }
  level->symbols_at = at;
  level->words = static_cast<uint32_t>((symbols.size() - kStatesBytes) / 2);
  level->patches = static_cast<uint32_t>(patches);
  return absl::OkStatus();
}

// The number of bands up to the last one that a level of the job codes.
int UsedBands(const StreamTransform& transform, int levels) {
  int used = 1;  // rows are made from at least one band
  for (size_t i = 0; i < transform.classes[0].bands.size(); ++i) {
    for (int step = 0; step < levels; ++step) {
      if (transform.classes[0].bands[i][step].mode != BandMode::kAbsent) {
        used = static_cast<int>(i) + 1;
      }
    }
  }
  return used;
}

bool IsAligned(const RowPlaces& places) {
  const auto bits = static_cast<uint64_t>(
      reinterpret_cast<uintptr_t>(places.base) | places.head_stride |
      places.token_stride | places.block_stride);
  return bits % sizeof(Bytes16) == 0;
}

// Whether a stream's rows can be written by blocks of dimensions.
bool FitsBlocks(const StreamJob& job) {
  if (job.head_dim % (2 * kBlockDims) != 0) return false;
  const int whole = job.pairing == Pairing::kHalves ? kBlockDims : 4;
  return job.pairs % whole == 0 && IsAligned(job.places);
}

RowPlaces PlacesOf(const ChunkRequest& request, uint64_t blocks_at) {
  RowPlaces places;
  if (const auto* strided = std::get_if<StridedPlaces>(&request.places)) {
    places.head_stride = strided->strides.head;
    places.token_stride = strided->strides.token;
    return places;
  }
  const auto& pages = std::get<KvPages>(request.places);
  places.head_stride = pages.head_stride;
  places.token_stride = pages.token_stride;
  places.block_stride = pages.block_stride;
  places.block_tokens = pages.block_tokens;
  places.first_token = pages.first_token;
  places.block_table_at = blocks_at;
  return places;
}

}  // namespace

BatchPlan::BatchPlan(std::shared_ptr<const CalibrationImage> calibration)
    : calibration_(std::move(calibration)), bytes_(kBytesBehind) {}

absl::Status BatchPlan::Add(const ChunkRequest& request) {
  if (absl::Status s = CheckRequest(request, calibration_->calibration());
      !s.ok()) {
    return s;
  }
  const size_t jobs = jobs_.size();
  const size_t bytes = bytes_.size();
  const size_t rope = rope_.size();
  const size_t blocks = blocks_.size();
  const uint64_t output_bytes = output_bytes_;
  absl::Status added = AddChunk(request);
  if (!added.ok()) {
    jobs_.resize(jobs);
    names_.resize(jobs);
    bytes_.resize(bytes);
    std::fill_n(bytes_.end() - kBytesBehind, kBytesBehind, std::byte{0});
    rope_.resize(rope);
    blocks_.resize(blocks);
    output_bytes_ = output_bytes;
  }
  return added;
}

absl::Status BatchPlan::AddChunk(const ChunkRequest& request) {
  const ObjectHeader& header = request.index->header();
  StreamJob job;
  job.tokens = header.shape.tokens;
  job.head_dim = header.shape.head_dim;
  job.type = static_cast<ElementType>(header.shape.dtype);
  job.pairing = static_cast<Pairing>(header.rope.pairing);
  job.places = PlacesOf(request, blocks_.size());
  if (const auto* pages = std::get_if<KvPages>(&request.places)) {
    blocks_.insert(blocks_.end(), pages->block_table.begin(),
                   pages->block_table.end());
  }
  const RopeTable table(header.rope);
  const size_t row = 2 * static_cast<size_t>(table.pairs());
  job.rope_at = rope_.size();
  // Padded to 16 bytes, so that the next chunk's cosines are aligned too.
  rope_.resize((rope_.size() + row * request.positions.size() + 3) / 4 * 4);
  for (size_t i = 0; i < request.positions.size(); ++i) {
    float* cos = rope_.data() + job.rope_at + i * row;
    table.CosSin(request.positions[i], cos, cos + table.pairs());
  }
  const KvSlice& slice = request.slice;
  for (int layer = slice.layer_begin; layer < slice.layer_end; ++layer) {
    for (const StreamId& first :
         StreamsOf(GridOf(header), {layer, Level::kBase}, slice.head_begin,
                   slice.head_end)) {
      job.pairs = first.part == KvPart::kK ? table.pairs() : 0;
      absl::Status added = AddStreams(request, first, job);
      if (!added.ok()) {
        return absl::Status(
            added.code(),
            absl::StrCat("chunk ", ShortHex(request.index->key()), " ",
                         Name(first), ": ", added.message()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BatchPlan::AddStreams(const ChunkRequest& request,
                                   const StreamId& first, StreamJob job) {
  const StreamShape shape =
      StreamShapeOf(GridOf(request.index->header()), first);
  const StreamTransform& transform =
      calibration_->calibration().Of(first.layer, first.part, first.head_group);
  const int first_head = first.head_group * shape.heads;
  job.transform = calibration_->IndexOf(transform);
  job.head_begin = std::max(0, request.slice.head_begin - first_head);
  job.head_end = std::min(shape.heads, request.slice.head_end - first_head);
  job.places.base = reinterpret_cast<uint8_t*>(
      BaseOf(request, first.layer - request.slice.layer_begin, first.part,
             first_head + job.head_begin - request.slice.head_begin));
  job.in_blocks = FitsBlocks(job);
  StreamFrame frame = FrameOf(shape, transform);
  bool goes_on = true;
  for (const Level level : LadderTo(request.level)) {
    StreamId id = first;
    id.level = level;
    const StreamEntry& entry = request.index->Entry(id);
    const auto stream = request.object.subspan(entry.offset, entry.bytes);
    if (!CodecOf(level).MayHaveBytes(shape, level, entry.bytes)) {
      return absl::DataLossError(
          absl::StrCat("no encoder makes a stream of ", entry.bytes, " bytes"));
    }
    if (absl::Status s = VerifyStream(*request.index, id, stream); !s.ok()) {
      return s;
    }
    if (frame.step == 0) {
      if (absl::Status s = AddBase(frame, stream, transform, &job); !s.ok()) {
        return s;
      }
      goes_on = job.levels > 0;
    } else if (goes_on) {
      const auto more = AddRefinement(frame, stream, transform, &job);
      if (!more.ok()) return more.status();
      goes_on = *more;
    }
    ++frame.step;
  }
  job.used_bands = UsedBands(transform, job.levels);
  if (job.tile_bytes() > kTileBytesMax) {
    return absl::InvalidArgumentError("too many tokens for a warp");
  }
  output_bytes_ += shape.row_bytes() * (job.head_end - job.head_begin) *
                   static_cast<uint64_t>(job.tokens);
  jobs_.push_back(job);
  names_.push_back(
      absl::StrCat("chunk ", ShortHex(request.index->key()), " ", Name(first)));
  return absl::OkStatus();
}

absl::Status BatchPlan::AddBase(const StreamFrame& frame,
                                absl::Span<const std::byte> stream,
                                const StreamTransform& transform,
                                StreamJob* job) {
  const auto parts = ReadLevel(frame, transform, stream);
  if (!parts.ok()) return parts.status();
  const uint64_t begin = Copy(stream, parts->symbols);
  const auto at = [&](absl::Span<const std::byte> part) {
    return begin + static_cast<uint64_t>(part.data() - stream.data());
  };
  job->raw_rows_at = at(parts->raw_rows);
  if (parts->form == StreamForm::kRows) {
    job->raw_rows = static_cast<uint32_t>(frame.tokens);
    return absl::OkStatus();
  }
  job->levels = 1;
  job->scale = transform.scale * parts->gain;
  if (frame.own_statistics) job->mean_at = at(parts->mean);
  job->raw_rows = static_cast<uint32_t>(parts->raw_tokens.size());
  job->raw_tokens_at = job->raw_rows_at - sizeof(uint16_t) * job->raw_rows;
  return AddSymbols(parts->symbols, at(parts->symbols), parts->patches.size(),
                    &job->base);
}

absl::StatusOr<bool> BatchPlan::AddRefinement(
    const StreamFrame& frame, absl::Span<const std::byte> stream,
    const StreamTransform& transform, StreamJob* job) {
  const auto parts = ReadLevel(frame, transform, stream);
  if (!parts.ok()) return parts.status();
  if (parts->form == StreamForm::kNothing) return false;
  const uint64_t begin = Copy(stream, parts->symbols);
  job->levels = frame.step + 1;
  absl::Status added = AddSymbols(
      parts->symbols,
      begin + static_cast<uint64_t>(parts->symbols.data() - stream.data()),
      parts->patches.size(), frame.step == 1 ? &job->base1 : &job->base2);
  if (!added.ok()) return added;
  return true;
}

uint64_t BatchPlan::Copy(absl::Span<const std::byte> stream,
                         absl::Span<const std::byte> symbols) {
  constexpr uint64_t kAlignment = 8;
  const auto before = static_cast<uint64_t>(symbols.data() - stream.data());
  const uint64_t end = bytes_.size() - kBytesBehind + before;
  const uint64_t gap = (kAlignment - end % kAlignment) % kAlignment;
  bytes_.resize(bytes_.size() + gap);
  const uint64_t begin = bytes_.size() - kBytesBehind;
  bytes_.insert(bytes_.end() - kBytesBehind, stream.begin(), stream.end());
  return begin;
}

uint64_t BatchPlan::tile_bytes() const {
  uint64_t most = 0;
  for (const StreamJob& job : jobs_) most = std::max(most, job.tile_bytes());
  return most;
}

int BatchPlan::tile_bands() const {
  int most = 0;
  for (const StreamJob& job : jobs_) most = std::max(most, job.tile_bands());
  return most;
}

absl::Status BatchPlan::StatusOf(absl::Span<const uint32_t> errors) const {
  KDN_CHECK(errors.size() == jobs_.size(), "one for each job");
  for (size_t i = 0; i < errors.size(); ++i) {
    if (errors[i] == 0) continue;
    return absl::DataLossError(
        absl::StrCat(names_[i], ": its entropy-coded symbols are damaged"));
  }
  return absl::OkStatus();
}

}  // namespace kdn::codec::cuda
