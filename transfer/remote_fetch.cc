#include "transfer/remote_fetch.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "codec/format/stream_layout.h"
#include "codec/stream_codec.h"
#include "kv/check.h"
#include "kv/log.h"

namespace kdn::transfer {
namespace {

uint64_t LayerBytesMax(const codec::StreamGrid& grid, const KvSlice& slice,
                       Level level) {
  uint64_t bytes = 0;
  for (const Level step : codec::LadderTo(level)) {
    for (const codec::StreamId& id :
         codec::StreamsOf(grid, {0, step}, slice.head_begin, slice.head_end)) {
      bytes +=
          codec::CodecOf(step).BytesMax(codec::StreamShapeOf(grid, id), step);
    }
  }
  return bytes;
}

// The most bytes of the slice's streams that deliver a chunk at `level`,
// whichever heads share streams.
uint64_t StreamBytesMax(const KvShape& shape, const KvSlice& slice,
                        Level level) {
  uint64_t most = 0;
  for (int heads = 0; heads <= shape.kv_heads; ++heads) {
    const codec::StreamGrid grid(shape, heads);
    if (heads > 0 && !codec::MayJoin(shape, heads)) continue;
    most = std::max(most, LayerBytesMax(grid, slice, level));
  }
  return most * static_cast<uint64_t>(slice.layers());
}

delivery::FetchEnd EndOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return delivery::FetchEnd::kDone;
    case absl::StatusCode::kDeadlineExceeded:
      return delivery::FetchEnd::kLate;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:  // its bytes make no sense
      return delivery::FetchEnd::kBroken;
    default:
      return delivery::FetchEnd::kWithdrawn;
  }
}

uint64_t InPages(uint64_t bytes) {
  constexpr uint64_t kPage = storage::Arena::kPageBytes;
  return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

uint64_t FetchBytesMax(const delivery::RetrieveRequest& request) {
  int tokens = 1;
  for (const delivery::RetrieveChunk& chunk : request.chunks) {
    tokens = std::max(tokens, static_cast<int>(chunk.positions.size()));
  }
  const KvShape shape = ShapeOf(*request.model, tokens);
  uint64_t most = 1;
  for (const Level level : kLevelsByQuality) {
    if (!request.accept.Has(level)) continue;
    most = std::max(most, StreamBytesMax(shape, request.slice, level));
  }
  return InPages(most);
}

// The fetch and each try hold a pointer. The destructor runs when all of them
// have ended, and reports the delivery.
class RemoteFetch::Reckoning {
 public:
  explicit Reckoning(const Link& link) : book_(link.book), clock_(link.clock) {}
  Reckoning(const Reckoning&) = delete;
  Reckoning& operator=(const Reckoning&) = delete;
  ~Reckoning() {
    if (!report_) return;
    report_->load = std::max(report_->load, decoded_ - first_);
    book_->Count(*report_);
  }

  void OnChunkEnd() {
    absl::MutexLock lock(&mutex_);
    decoded_ = std::max(decoded_, clock_->Now());
  }
  // All bytes have come. `first`: when the first byte was due.
  void OnBytesEnd(const delivery::DeliveryReport& report, absl::Time first) {
    absl::MutexLock lock(&mutex_);
    report_ = report;
    first_ = first;
  }

 private:
  LinkBook* const book_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  absl::Time decoded_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time first_ ABSL_GUARDED_BY(mutex_);
  std::optional<delivery::DeliveryReport> report_ ABSL_GUARDED_BY(mutex_);
};

RemoteFetch::RemoteFetch(std::shared_ptr<RetrieveContext> context,
                         std::vector<delivery::ChunkWanted> items, Link link,
                         storage::Arena* scratch, WorkPool* pool,
                         RequesterId requester, OnSize on_size,
                         OnAttempt on_attempt)
    : context_(std::move(context)),
      items_(std::move(items)),
      link_(std::move(link)),
      scratch_(scratch),
      pool_(pool),
      requester_(requester),
      on_size_(std::move(on_size)),
      on_attempt_(std::move(on_attempt)),
      receiving_(items_.size()),
      reckoning_(std::make_shared<Reckoning>(link_)) {
  link_.health->OnAsk(link_.peer, link_.clock->Now());
}

void RemoteFetch::OnBegin() {
  KDN_CHECK(!began_, "a fetch begins once");
  began_ = link_.clock->Now();
  link_.health->OnBegin(link_.peer, *began_);
}

void RemoteFetch::NoteAnswer(absl::Time now) {
  KDN_CHECK(began_.has_value(), "an answer to a fetch that has not begun");
  if (std::exchange(answered_, true)) {
    link_.health->OnProgress(link_.peer, now);
  } else {
    link_.health->OnAnswer(link_.peer, *began_, now);
  }
}

absl::StatusOr<absl::Span<std::byte>> RemoteFetch::OnHit(
    int i, codec::ObjectIndex index, std::vector<Level> levels, Tier tier,
    uint64_t stream_bytes) {
  const absl::Time now = link_.clock->Now();
  NoteAnswer(now);
  // While no layer is owed, the peer waits for its disk. This time does not
  // count for the link.
  if (layers_owed_ == 0) {
    first_ = plan_.chunks_loaded == 0 ? now : first_ + (now - last_);
    last_ = now;
  }
  ++plan_.chunks_loaded;
  layers_owed_ += context_->request.slice.layers();
  plan_.tokens_loaded += TokensOf(i);
  plan_.bytes += stream_bytes;
  decoding_ += DecodingOf(i, levels);
  absl::StatusOr<std::shared_ptr<storage::ArenaBlock>> block =
      scratch_->Allocate(stream_bytes);
  if (!block.ok()) {
    skipped_ = true;
    LogWarning("transfer.fetch", block.status().ToString());
    ReportError(i, block.status());
    return block.status();
  }
  const absl::Span<std::byte> place = (*block)->bytes();
  const int chunk = items_[i].chunk;
  // A try ends when every layer has ended: then nothing reads the block or
  // writes to it.
  absl::StatusOr<std::shared_ptr<ChunkDecode>> decode = ChunkDecode::Create(
      context_, chunk, std::move(index), std::move(levels), tier,
      items_[i].pinned,
      [on_attempt = on_attempt_, chunk, reckoning = reckoning_,
       block = *std::move(block)](delivery::AttemptResult result) mutable {
        block = nullptr;
        reckoning->OnChunkEnd();
        reckoning = nullptr;
        on_attempt(chunk, std::move(result));
      });
  if (!decode.ok()) {
    skipped_ = true;
    LogWarning("transfer.fetch",
               absl::StrCat("a chunk of node ", link_.peer.name(),
                            " is not decoded: ", decode.status().ToString()));
    ReportError(i, decode.status());
    return decode.status();
  }
  on_size_(chunk, InPages(stream_bytes));
  receiving_[i].decode = *std::move(decode);
  receiving_[i].layers_left = context_->request.slice.layers();
  return place;
}

void RemoteFetch::OnRecompute(int i) {
  NoteAnswer(link_.clock->Now());
  plan_.tokens_recomputed += TokensOf(i);
  plan_.chunks.emplace_back();
  delivery::AttemptResult result;
  result.recompute = true;
  Report(i, std::move(result));
}

void RemoteFetch::OnNoHit(int i, const absl::Status& why,
                          ObjectVersion version) {
  NoteAnswer(link_.clock->Now());
  delivery::AttemptResult result;
  result.status = why;
  result.version = version;
  Report(i, std::move(result));
}

void RemoteFetch::OnLayer(int i, int layer,
                          absl::Span<const std::byte> streams) {
  Receiving& item = receiving_[i];
  KDN_CHECK(item.decode != nullptr,
            "a layer of a chunk that the peer did not announce");
  KDN_CHECK(item.layers_left > 0, "more layers came than were asked for");
  --item.layers_left;
  --layers_owed_;
  bytes_ += streams.size();
  last_ = link_.clock->Now();
  NoteAnswer(last_);
  item.decode->AddWireBytes(streams.size());
  pool_->Post(WorkOrder{WorkClass::kRead, requester_, layer},
              [decode = item.decode, layer, streams] {
                decode->Decode(layer, streams);
              });
}

void RemoteFetch::OnDone(const absl::Status& status) {
  // The end of a fetch that never had a connection says nothing about the peer.
  if (began_) {
    // When the fetch succeeded, its end time does not matter to the peer's
    // health.
    link_.health->OnEnd(link_.peer, EndOf(status), answered_, *began_,
                        status.ok() ? last_ : link_.clock->Now());
  }
  Settle(status);
  reckoning_ = nullptr;
  const absl::Status why =
      status.ok()
          ? absl::UnavailableError("the peer did not send the whole chunk")
          : status;
  for (size_t i = 0; i < receiving_.size(); ++i) {
    Receiving& item = receiving_[i];
    if (item.decode != nullptr) {
      item.decode->Skip(item.layers_left, why);
    } else if (!item.reported) {
      ReportError(static_cast<int>(i), why);
    }
  }
}

void RemoteFetch::Settle(const absl::Status& status) {
  // The peer held no chunk, so it had nothing to plan.
  if (plan_.chunks_loaded == 0 && plan_.chunks.empty()) return;
  // Skipped bytes took time on the link but were not counted.
  if (skipped_) return;
  // A broken connection says nothing about the link's rate; a late one does.
  if (!status.ok() && !absl::IsDeadlineExceeded(status)) return;
  if (!status.ok() && layers_owed_ > 0) last_ = link_.clock->Now();
  const absl::Duration took =
      plan_.chunks_loaded > 0 ? last_ - first_ : absl::ZeroDuration();
  if (plan_.chunks_loaded > 0) {
    link_.book->OnTransfer(link_.peer, bytes_, took, last_);
  }
  plan_.chunks.resize(plan_.chunks.size() + plan_.chunks_loaded);
  reckoning_->OnBytesEnd(
      {delivery::Predict(plan_, link_.target, decoding_), bytes_, took},
      first_);
}

absl::Duration RemoteFetch::DecodingOf(int i,
                                       absl::Span<const Level> levels) const {
  const delivery::RetrieveChunk& chunk =
      context_->request.chunks[items_[i].chunk];
  const auto layer_bytes =
      static_cast<double>(chunk.destination.shape().layer_bytes());
  absl::Duration time;
  for (const Level level : levels) {
    const double rate = context_->decode_rates[static_cast<size_t>(level)];
    if (rate > 0) time += absl::Seconds(layer_bytes / rate);
  }
  return time;
}

int RemoteFetch::TokensOf(int i) const {
  return static_cast<int>(
      context_->request.chunks[items_[i].chunk].positions.size());
}

void RemoteFetch::ReportError(int i, const absl::Status& why) {
  delivery::AttemptResult result;
  result.status = why;
  Report(i, std::move(result));
}

void RemoteFetch::Report(int i, delivery::AttemptResult result) {
  KDN_CHECK(!receiving_[i].reported, "a chunk's try ends once");
  receiving_[i].reported = true;
  on_attempt_(items_[i].chunk, std::move(result));
}

}  // namespace kdn::transfer
