#include "transfer/chunk_decode.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn::transfer {
namespace {

absl::Status ValidateFor(const RetrieveContext& context, int chunk,
                         const codec::ObjectIndex& index,
                         absl::Span<const Level> levels,
                         std::optional<ObjectVersion> pinned) {
  const delivery::RetrieveRequest& request = context.request;
  const codec::ObjectHeader& header = index.header();
  const delivery::RetrieveChunk& wanted = request.chunks[chunk];
  if (index.key() != wanted.ref.key || header.identity.ns != request.ns) {
    return absl::DataLossError(
        absl::StrCat("asked for chunk ", ShortHex(wanted.ref.key),
                     ", but the object is of chunk ", ShortHex(index.key())));
  }
  if (header.identity.fingerprint != context.fingerprint) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk ", ShortHex(index.key()), " is of model ",
        ShortHex(header.identity.fingerprint),
        ", but the retrieve is of model ", ShortHex(context.fingerprint)));
  }
  KDN_CHECK(levels.size() == static_cast<size_t>(request.slice.layers()),
            "a level for each layer");
  const LevelSet deliverable = header.levels & request.accept;
  for (const Level level : levels) {
    if (deliverable.Has(level)) continue;
    return absl::NotFoundError(absl::StrCat(
        "chunk ", ShortHex(index.key()), " is not delivered at level ",
        std::string(Name(level)),
        ": the object lacks it, or the retrieve does not accept it"));
  }
  if (pinned && *pinned != index.version()) {
    return absl::FailedPreconditionError(
        absl::StrCat("chunk ", ShortHex(index.key()),
                     " has another version here than at the node that "
                     "delivered its first layers"));
  }
  return absl::OkStatus();
}

// The bytes of the slice of one token, in the engine's dtype.
uint64_t TokenBytes(const delivery::RetrieveRequest& request) {
  KvShape token = ShapeOf(*request.model, 1);
  token.layers = request.slice.layers();
  token.kv_heads = request.slice.heads();
  return token.bytes();
}

absl::Status NamingChunk(const codec::ObjectIndex& index,
                         const absl::Status& status) {
  absl::Status named(
      status.code(),
      absl::StrCat("chunk ", ShortHex(index.key()), ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    named.SetPayload(type, payload);
  });
  return named;
}

}  // namespace

RetrieveContext::RetrieveContext(delivery::RetrieveRequest request_in,
                                 delivery::NodeService::OnLayer on_layer_in,
                                 const DecodeMeans& means_in)
    : request(std::move(request_in)),
      fingerprint(FingerprintOf(*request.model)),
      on_layer(std::move(on_layer_in)),
      means(means_in),
      decode_rates(means.book->RatesAt(means.clock->Now())),
      too_slow(delivery::SlowerThanPrefill(decode_rates, TokenBytes(request),
                                           request.prefill_tokens_per_second)),
      announced(request.chunks.size(),
                std::vector<uint8_t>(request.slice.layers(), 0)) {}

ChunkDecode::ChunkDecode(std::shared_ptr<RetrieveContext> context, int chunk,
                         codec::ObjectIndex index, std::vector<Level> levels,
                         Tier tier,
                         delivery::Done<delivery::AttemptResult> done)
    : context_(std::move(context)),
      chunk_(chunk),
      index_(std::move(index)),
      levels_(std::move(levels)),
      tier_(tier),
      remaining_(context_->request.slice.layers()),
      done_(std::move(done)) {}

absl::StatusOr<std::shared_ptr<ChunkDecode>> ChunkDecode::Create(
    std::shared_ptr<RetrieveContext> context, int chunk,
    codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
    std::optional<ObjectVersion> pinned,
    delivery::Done<delivery::AttemptResult> done) {
  const delivery::RetrieveRequest& request = context->request;
  if (absl::Status status = ValidateFor(*context, chunk, index, levels, pinned);
      !status.ok()) {
    return status;
  }
  std::shared_ptr<const codec::Calibration> calibration;
  if (std::any_of(levels.begin(), levels.end(), codec::IsTransformCoded)) {
    auto found = context->means.calibrations->ForObject(index.header());
    if (!found.ok()) return NamingChunk(index, found.status());
    calibration = *std::move(found);
  }
  const delivery::RetrieveChunk& wanted = request.chunks[chunk];
  std::shared_ptr<ChunkDecode> decode(
      new ChunkDecode(std::move(context), chunk, std::move(index),
                      std::move(levels), tier, std::move(done)));
  absl::StatusOr<codec::ObjectDecoder> decoder = codec::ObjectDecoder::Create(
      &decode->index_, std::move(calibration), wanted.positions);
  if (!decoder.ok()) return decoder.status();
  decode->decoder_.emplace(*std::move(decoder));
  return decode;
}

bool ChunkDecode::wanted() const {
  return !failed_.load() && !context_->request.cancellation->cancelled();
}

void ChunkDecode::Decode(int layer, absl::Span<const std::byte> streams) {
  const KvSlice& slice = context_->request.slice;
  DecodeWith(layer, [&] {
    return decoder_->DecodeLayer(levels_[layer], slice.layer_begin + layer,
                                 slice.head_begin, slice.head_end, streams,
                                 destination().Layer(layer));
  });
}

void ChunkDecode::DecodeOf(int layer, absl::Span<const std::byte> object) {
  const KvSlice& slice = context_->request.slice;
  DecodeWith(layer, [&] {
    return decoder_->DecodeLayerOf(object, levels_[layer],
                                   slice.layer_begin + layer, slice.head_begin,
                                   slice.head_end, destination().Layer(layer));
  });
}

void ChunkDecode::DecodeWith(int layer,
                             absl::FunctionRef<absl::Status()> decode) {
  if (!wanted())
    return Skip(1, absl::CancelledError("the try has failed or was cancelled"));
  if (IsAnnounced(layer)) return Finish(1, absl::OkStatus());
  const DecodeMeans& means = context_->means;
  const absl::Time begin = means.clock->Now();
  const absl::Status status = decode();
  const absl::Time end = means.clock->Now();
  if (status.ok()) {
    means.book->OnLayer(levels_[layer], destination().shape().layer_bytes(),
                        end - begin, end);
  } else {
    LogError("transfer.decode",
             absl::StrCat("chunk ", ShortHex(index_.key()), ", layer ", layer,
                          ": ", status.message()));
  }
  Account(layer, status);
}

void ChunkDecode::Account(int layer, const absl::Status& status) {
  if (status.ok() && wanted()) {
    announced_ = true;
    context_->announced[chunk_][layer] =
        static_cast<uint8_t>(1 + static_cast<int>(levels_[layer]));
    context_->on_layer(chunk_, layer);
  }
  Finish(1, status);
}

void ChunkDecode::Skip(int layers, const absl::Status& why) {
  KDN_CHECK(!why.ok(), "skipping needs a reason");
  if (layers > 0) Finish(layers, why);
}

void ChunkDecode::Finish(int layers, const absl::Status& status) {
  if (!status.ok()) failed_ = true;
  delivery::Done<delivery::AttemptResult> done;
  delivery::AttemptResult result;
  {
    absl::MutexLock lock(&mutex_);
    KDN_CHECK(remaining_ >= layers, "a layer ends once");
    remaining_ -= layers;
    // The first error names the cause. A CANCELLED status may be only its
    // consequence, so another error replaces it.
    if (!status.ok() && (status_.ok() || absl::IsCancelled(status_))) {
      status_ = status;
    }
    if (remaining_ > 0) return;
    done = std::move(done_);
    result.status = status_;
  }
  LevelSet used;
  for (size_t layer = 0; layer < levels_.size(); ++layer) {
    const int announced = context_->announced[chunk_][layer];
    used = used.With(announced > 0 ? static_cast<Level>(announced - 1)
                                   : levels_[layer]);
  }
  result.level = used.Worst();
  result.tier = tier_;
  result.version = index_.version();
  result.wire_bytes = wire_bytes_;
  result.announced = announced_;
  done(std::move(result));
}

}  // namespace kdn::transfer
