#include "codec/cuda/batch_plan.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/cuda/device_stream.h"
#include "codec/format/stream_layout.h"
#include "codec/transform/symbol_bands.h"
#include "codec/transform/transform_frame.h"
#include "kv/check.h"

namespace kdn::codec::cuda {
namespace {

static_assert(kDimMax == kTransformDimMax && kJointDimsMax == kJointDimMax);
static_assert(kChunkTokensMax + kTokenClassesMax * kTokenStep < kNoToken);
static_assert(static_cast<int>(ElementType::kFp16) ==
                  static_cast<int>(Dtype::kFp16) &&
              static_cast<int>(ElementType::kFp32) ==
                  static_cast<int>(Dtype::kFp32));
static_assert(static_cast<int>(Pairing::kNeighbours) ==
              static_cast<int>(RopePairing::kGptJ));
static_assert(kRansLanes == kWarpLanes && kTokenBlock == kTokenStep);

// A tile is indexed with 31 bits.
constexpr uint64_t kTileBytesMax = uint64_t{1} << 30;

// The number of `bands` up to the last one that a level of the job codes.
int UsedBands(absl::Span<const std::array<BandStep, kLadderSteps>> bands,
              int levels) {
  int used = 0;
  for (size_t i = 0; i < bands.size(); ++i) {
    for (int step = 0; step < levels; ++step) {
      if (bands[i][step].mode != BandMode::kAbsent) {
        used = static_cast<int>(i) + 1;
      }
    }
  }
  return used;
}

// Sets the bands that the tile has: those that a class with tokens uses.
void SetUsedBands(const StreamTransform& transform, StreamJob* job) {
  const size_t low_bands = transform.components() / kBandComponents;
  job->used_bands = 1;  // rows are made from at least one band
  job->used_high = 0;
  for (size_t i = 0; i < transform.classes.size(); ++i) {
    if ((job->classes >> i & 1) == 0) continue;
    const auto bands = absl::MakeConstSpan(transform.classes[i].bands);
    job->used_bands = std::max(job->used_bands,
                               UsedBands(bands.first(low_bands), job->levels));
    job->used_high = std::max(job->used_high,
                              UsedBands(bands.subspan(low_bands), job->levels));
  }
}

// Whether streams of K or V alone can be decoded with the transform. No
// calibration file has another one.
bool IsPlain(const StreamTransform& transform) {
  return transform.classes.size() == 1 && transform.classes[0].exponent == 0 &&
         transform.head_scales.empty() && transform.wide_bands == 0;
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
  return job.pairs % whole == 0 && IsAligned(job.places) &&
         job.v_offset % static_cast<int64_t>(sizeof(Bytes16)) == 0;
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
  const size_t runs = runs_.size();
  const size_t value_rows = value_rows_.size();
  const size_t scales = scales_.size();
  const uint64_t output_bytes = output_bytes_;
  absl::Status added = AddChunk(request);
  if (!added.ok()) {
    jobs_.resize(jobs);
    names_.resize(jobs);
    bytes_.resize(bytes);
    std::fill_n(bytes_.end() - kBytesBehind, kBytesBehind, std::byte{0});
    rope_.resize(rope);
    blocks_.resize(blocks);
    runs_.resize(runs);
    value_rows_.resize(value_rows);
    scales_.resize(scales);
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
  const Level level = LadderTo(request.level).front();
  for (int layer = slice.layer_begin; layer < slice.layer_end; ++layer) {
    for (const StreamId& first : StreamsOf(GridOf(header), {layer, level},
                                           slice.head_begin, slice.head_end)) {
      // The V of a joint stream is in the stream of K.
      if (header.joint_heads > 0 && first.part == KvPart::kV) continue;
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

void BatchPlan::Place(const ChunkRequest& request, const StreamId& first,
                      StreamJob* job) {
  const StreamShape shape =
      StreamShapeOf(GridOf(request.index->header()), first);
  const int heads = shape.joint ? shape.heads / 2 : shape.heads;
  const KvSlice& slice = request.slice;
  const int first_head = first.head_group * heads;
  job->joint_heads = shape.joint ? heads : 0;
  job->head_begin = std::max(0, slice.head_begin - first_head);
  job->head_end = std::min(heads, slice.head_end - first_head);
  const auto base_of = [&](KvPart part) {
    return reinterpret_cast<uint8_t*>(
        BaseOf(request, first.layer - slice.layer_begin, part,
               first_head + job->head_begin - slice.head_begin));
  };
  job->places.base = base_of(first.part);
  if (!shape.joint) return;
  // K and V may be pieces of memory of their own.
  job->v_offset =
      static_cast<int64_t>(reinterpret_cast<uintptr_t>(base_of(KvPart::kV)) -
                           reinterpret_cast<uintptr_t>(job->places.base));
}

struct BatchPlan::Stream {
  const StreamTransform& transform;
  StreamShape shape;
  StreamFrame frame;
  std::vector<uint8_t> classes = {};
  std::optional<TokenOrder> order = {};
};

absl::Status BatchPlan::AddStreams(const ChunkRequest& request,
                                   const StreamId& first, StreamJob job) {
  const StreamTransform& transform =
      calibration_->calibration().Of(first.layer, first.part, first.head_group);
  const StreamShape shape =
      StreamShapeOf(GridOf(request.index->header()), first);
  if (!shape.joint && !IsPlain(transform)) {
    return absl::UnimplementedError(
        "a stream of K or V alone has token classes, scales of heads or wide "
        "components");
  }
  Stream stream{transform, shape, FrameOf(shape, transform)};
  job.transform = calibration_->IndexOf(transform);
  job.rows = PaddedTokens(job.tokens);
  job.patch_bytes = static_cast<int32_t>(PartsBytes(stream.frame, 0, 1) -
                                         PartsBytes(stream.frame, 0, 0));
  Place(request, first, &job);
  job.in_blocks = FitsBlocks(job);
  if (absl::Status s = AddLevels(request, first, &stream, &job); !s.ok()) {
    return s;
  }
  SetUsedBands(transform, &job);
  if (job.tile_bytes() > kTileBytesMax) {
    return absl::InvalidArgumentError("too many tokens for a warp");
  }
  const int wanted = (job.head_end - job.head_begin) * (shape.joint ? 2 : 1);
  output_bytes_ +=
      shape.row_bytes() * wanted * static_cast<uint64_t>(job.tokens);
  jobs_.push_back(job);
  names_.push_back(
      absl::StrCat("chunk ", ShortHex(request.index->key()), " ", Name(first)));
  return absl::OkStatus();
}

absl::Status BatchPlan::AddLevels(const ChunkRequest& request, StreamId id,
                                  Stream* stream, StreamJob* job) {
  bool goes_on = true;
  for (const Level level : LadderTo(request.level)) {
    id.level = level;
    const StreamEntry& entry = request.index->Entry(id);
    const auto bytes = request.object.subspan(entry.offset, entry.bytes);
    if (!CodecOf(level).MayHaveBytes(stream->shape, level, entry.bytes)) {
      return absl::DataLossError(
          absl::StrCat("no encoder makes a stream of ", entry.bytes, " bytes"));
    }
    if (absl::Status s = VerifyStream(*request.index, id, bytes); !s.ok()) {
      return s;
    }
    if (stream->frame.step == 0) {
      if (absl::Status s = AddBase(stream, bytes, job); !s.ok()) return s;
      goes_on = job->levels > 0;
    } else if (goes_on) {
      const auto more = AddRefinement(*stream, bytes, job);
      if (!more.ok()) return more.status();
      goes_on = *more;
    }
    ++stream->frame.step;
  }
  return absl::OkStatus();
}

absl::Status BatchPlan::AddBase(Stream* stream,
                                absl::Span<const std::byte> bytes,
                                StreamJob* job) {
  const StreamFrame& frame = stream->frame;
  const auto parts = ReadLevel(frame, stream->transform, bytes);
  if (!parts.ok()) return parts.status();
  const uint64_t begin = Copy(bytes, parts->symbols);
  const auto at = [&](absl::Span<const std::byte> part) {
    return begin + static_cast<uint64_t>(part.data() - bytes.data());
  };
  job->raw_rows_at = at(parts->raw_rows);
  if (parts->form == StreamForm::kRows) {
    job->raw_rows = static_cast<uint32_t>(frame.tokens);
    return absl::OkStatus();
  }
  job->levels = 1;
  job->scale = stream->transform.scale * parts->gain;
  if (frame.own_statistics) job->mean_at = at(parts->mean);
  job->raw_rows = static_cast<uint32_t>(parts->raw_tokens.size());
  job->raw_tokens_at = job->raw_rows_at - sizeof(uint16_t) * job->raw_rows;
  stream->classes = parts->token_classes;
  stream->order.emplace(stream->classes);
  AddRows(*stream, *parts, job);
  return AddSymbols(*stream, *parts, bytes, begin, &job->base);
}

void BatchPlan::AddRows(const Stream& stream, const StreamParts& base,
                        StreamJob* job) {
  const StreamTransform& transform = stream.transform;
  const TokenOrder& order = *stream.order;
  const TransformRef& ref = calibration_->transforms()[job->transform];
  job->rows = order.rows();
  job->runs = static_cast<int32_t>(order.runs().size());
  job->runs_at = runs_.size();
  job->classes = 0;
  for (const TokenOrder::Run& run : order.runs()) {
    const auto token_class = static_cast<uint64_t>(run.token_class);
    runs_.push_back(
        {run.first_row, PaddedTokens(run.tokens),
         ref.bands_at + token_class * kLevelSteps *
                            static_cast<uint64_t>(ref.coded_bands())});
    job->classes |= 1u << run.token_class;
  }
  if (job->joint_heads == 0) return;
  job->value_rows_at = value_rows_.size();
  value_rows_.resize(value_rows_.size() + job->tile_rows(), {kNoToken, 0});
  for (size_t token = 0; token < stream.classes.size(); ++token) {
    const auto number = static_cast<uint16_t>(token);
    if (std::binary_search(base.raw_tokens.begin(), base.raw_tokens.end(),
                           number)) {
      continue;
    }
    const int exponent = transform.classes[stream.classes[token]].exponent;
    value_rows_[job->value_rows_at + order.RowOf(static_cast<int>(token))] = {
        number, static_cast<int16_t>(exponent)};
  }
  job->scales_at = scales_.size();
  for (int head = 0; head < stream.shape.heads; ++head) {
    scales_.push_back(transform.ScaleOf(head) * base.gain);
  }
}

absl::StatusOr<bool> BatchPlan::AddRefinement(const Stream& stream,
                                              absl::Span<const std::byte> bytes,
                                              StreamJob* job) {
  const int step = stream.frame.step;
  const auto parts =
      ReadLevel(stream.frame, stream.transform, bytes, stream.classes);
  if (!parts.ok()) return parts.status();
  if (parts->form == StreamForm::kNothing) return false;
  const uint64_t begin = Copy(bytes, parts->symbols);
  job->levels = step + 1;
  absl::Status added = AddSymbols(stream, *parts, bytes, begin,
                                  step == 1 ? &job->base1 : &job->base2);
  if (!added.ok()) return added;
  return true;
}

absl::Status BatchPlan::AddSymbols(const Stream& stream,
                                   const StreamParts& parts,
                                   absl::Span<const std::byte> bytes,
                                   uint64_t begin, LevelJob* level) {
  constexpr size_t kStatesBytes = sizeof(uint32_t) * kRansLanes;
  const size_t symbols = parts.symbols.size();
  if (symbols < kStatesBytes || symbols % 2 != 0) {
    return absl::DataLossError("its entropy-coded symbols are damaged");
  }
  level->symbols_at =
      begin + static_cast<uint64_t>(parts.symbols.data() - bytes.data());
  level->words = static_cast<uint32_t>((symbols - kStatesBytes) / 2);
  level->patches = static_cast<uint32_t>(parts.patches.size());
  if (!stream.shape.joint) return absl::OkStatus();
  // The warp adds patches to rows of values, which are not in the order of the
  // tokens.
  const size_t patch_bytes =
      PartsBytes(stream.frame, 0, 1) - PartsBytes(stream.frame, 0, 0);
  std::byte* at =
      bytes_.data() + level->symbols_at - patch_bytes * parts.patches.size();
  for (const Patch& patch : parts.patches) {
    const auto row = static_cast<uint16_t>(stream.order->RowOf(patch.token));
    std::memcpy(at, &row, sizeof(row));
    at += patch_bytes;
  }
  return absl::OkStatus();
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
