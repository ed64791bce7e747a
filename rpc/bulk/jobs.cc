#include "rpc/bulk/jobs.h"

#include <kj/debug.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "codec/format/fixed_fields.h"
#include "kv/check.h"
#include "kv/clock.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

void FillRef(const ChunkRef& ref, peer::ChunkRef::Builder out) {
  out.setKey(ToWire(ref.key));
}

void FillFetch(const delivery::FetchRequest& request,
               peer::Fetch::Builder out) {
  out.setNamespace(request.ns.name());
  auto chunks = out.initChunks(static_cast<unsigned>(request.chunks.size()));
  for (unsigned i = 0; i < request.chunks.size(); ++i) {
    FillRef(request.chunks[i], chunks[i]);
  }
  out.setLayerBegin(static_cast<uint32_t>(request.slice.layer_begin));
  out.setLayerEnd(static_cast<uint32_t>(request.slice.layer_end));
  out.setHeadBegin(static_cast<uint32_t>(request.slice.head_begin));
  out.setHeadEnd(static_cast<uint32_t>(request.slice.head_end));
  out.setAccept(request.accept.bits());
  out.setNewestFormat(codec::kFormatVersion);
  auto budget = out.initBudget();
  budget.setBytesMax(request.budget.bytes_max);
  budget.setBytesPerTokenMax(request.budget.bytes_per_token_max.value_or(0.0));
  budget.setSetupBytes(request.budget.setup_bytes);
  budget.setLevelsTooSlow(request.budget.too_slow.bits());
  budget.setLeadingChunks(request.budget.reuse ==
                          delivery::Reuse::kLeadingChunks);
}

// The levels of a list of numbers; empty when one of them was not accepted.
std::vector<Level> LevelsOf(capnp::List<uint8_t>::Reader levels,
                            LevelSet accept) {
  std::vector<Level> known;
  for (const uint8_t number : levels) {
    const auto level = static_cast<Level>(number);
    if (number >= kLevelCount || !accept.Has(level)) return {};
    known.push_back(level);
  }
  return known;
}

kj::Exception BadItem(int item, absl::string_view what) {
  return Malformed(
      absl::DataLossError(absl::StrCat("chunk ", item, ": ", what)));
}

// The exception for a prefix that this node cannot parse. Without the index,
// the receiver cannot tell where the next bytes belong, so the fetch ends. An
// object that only a newer node reads is not damaged, and the peer is sound.
kj::Exception Unreadable(const absl::Status& why) {
  if (!absl::IsUnimplemented(why)) return Malformed(why);
  return ExceptionOf(kj::Exception::Type::UNIMPLEMENTED, why.message());
}

}  // namespace

uint32_t MillisUntil(absl::Time deadline) {
  return TimeoutToWire(deadline - SteadyNow());
}

kj::Promise<absl::Status> FetchJob::Run(kj::AsyncIoStream& stream) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto request = message->initRoot<peer::Request>();
  request.setDeadlineMs(MillisUntil(request_.deadline));
  FillFetch(request_, request.initFetch());
  auto writing = WriteFrame(stream, *message);
  return writing.attach(kj::mv(message))
      .then([this, &stream] {
        seen_.assign(request_.chunks.size(), false);
        unseen_ = request_.chunks.size();
        return ReadItems(stream);
      })
      .then([] { return absl::OkStatus(); });
}

kj::Promise<void> FetchJob::ReadItems(kj::AsyncIoStream& stream) {
  if (unseen_ == 0) return kj::READY_NOW;
  return ReadFrame(stream)
      .then([this, &stream](kj::Own<Frame> frame) -> kj::Promise<void> {
        const auto header = frame->As<peer::FetchItem>();
        const bool ends_group = header.getEndsGroup();
        return ReadItem(stream, header).then([this, &stream, ends_group] {
          return ends_group ? ReadGroup(stream)
                            : kj::Promise<void>(kj::READY_NOW);
        });
      })
      .then([this, &stream] { return ReadItems(stream); });
}

kj::Promise<void> FetchJob::ReadItem(kj::AsyncIoStream& stream,
                                     peer::FetchItem::Reader header) {
  const uint32_t item = header.getItem();
  if (item >= seen_.size() || seen_[item]) {
    return Malformed(absl::DataLossError(
        absl::StrCat("item ", item, " of ", seen_.size(),
                     " was not asked for, or has come before")));
  }
  seen_[item] = true;
  --unseen_;
  if (unseen_ == 0 && !header.getEndsGroup()) {
    return BadItem(static_cast<int>(item),
                   "the last item does not end its group");
  }
  const absl::Status status = FromWire(header.getStatus());
  if (status.ok() && header.getRecompute()) {
    sink_->OnRecompute(static_cast<int>(item));
    return kj::READY_NOW;
  }
  if (status.ok()) return ReadHit(stream, static_cast<int>(item), header);
  sink_->OnNoHit(static_cast<int>(item), status,
                 ObjectVersion(header.getVersion()));
  return kj::READY_NOW;
}

kj::Promise<void> FetchJob::ReadGroup(kj::AsyncIoStream& stream) {
  kj::Promise<void> reading = hits_.size() == 1 && !hits_[0].skipped
                                  ? ReadOnlyHit(stream, 0, 0)
                                  : ReadLayers(stream, 0, 0);
  return reading.then([this] { hits_.clear(); });
}

kj::Promise<void> FetchJob::ReadHit(kj::AsyncIoStream& stream, int item,
                                    peer::FetchItem::Reader header) {
  const uint32_t bytes = header.getPrefixBytes();
  const uint64_t object_bytes = header.getObjectBytes();
  const uint64_t stream_bytes = header.getStreamBytes();
  SliceLayout layout{request_.slice,
                     LevelsOf(header.getLevels(), request_.accept)};
  const auto tier = static_cast<Tier>(header.getTier());
  if (bytes > kPrefixBytesMax || bytes > object_bytes ||
      layout.levels.empty() || tier > Tier::kDisk) {
    return BadItem(item, "an impossible header");
  }
  auto prefix = kj::heapArray<kj::byte>(bytes);
  auto reading = stream.read(prefix.begin(), bytes);
  return reading.then([this, item, layout = std::move(layout), tier,
                       stream_bytes, object_bytes,
                       prefix = kj::mv(prefix)]() mutable -> kj::Promise<void> {
    absl::StatusOr<codec::ObjectIndex> index = codec::ObjectIndex::Parse(
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(prefix.begin()),
                            prefix.size()),
        object_bytes);
    if (!index.ok()) return Unreadable(index.status());
    if (index->key() != request_.chunks[item].key) {
      return BadItem(item, "the object of another chunk");
    }
    if (absl::Status status = CheckSlice(*index, layout); !status.ok()) {
      return Malformed(status);
    }
    Hit hit{.item = item, .layer_bytes = {}};
    uint64_t all_bytes = 0;
    for (int layer = 0; layer < request_.slice.layers(); ++layer) {
      hit.layer_bytes.push_back(layout.LayerBytes(*index, layer));
      all_bytes += hit.layer_bytes.back();
    }
    if (all_bytes != stream_bytes) {
      return BadItem(item, "streamBytes differs from the sizes in the index");
    }
    Accept(std::move(hit), *std::move(index), std::move(layout.levels), tier,
           stream_bytes);
    return kj::READY_NOW;
  });
}

void FetchJob::Accept(Hit hit, codec::ObjectIndex index,
                      std::vector<Level> levels, Tier tier,
                      uint64_t stream_bytes) {
  absl::StatusOr<absl::Span<std::byte>> place = sink_->OnHit(
      hit.item, std::move(index), std::move(levels), tier, stream_bytes);
  hit.skipped = !place.ok();
  if (place.ok()) {
    KDN_CHECK(place->size() == stream_bytes,
              "a sink gave memory of the wrong size");
    hit.next = place->data();
  }
  hits_.push_back(std::move(hit));
}

kj::Promise<void> FetchJob::ReadLayers(kj::AsyncIoStream& stream, int layer,
                                       size_t hit) {
  if (hit == hits_.size()) {
    ++layer;
    hit = 0;
  }
  if (hits_.empty() || layer == request_.slice.layers()) return kj::READY_NOW;
  Hit& at = hits_[hit];
  const uint64_t bytes = at.layer_bytes[layer];
  kj::Promise<void> reading =
      at.skipped ? Skip(stream, bytes) : stream.read(at.next, bytes);
  return reading.then([this, &stream, layer, hit, bytes] {
    Hit& arrived = hits_[hit];
    meters_->Add("peer_bytes_in", bytes);
    if (!arrived.skipped) {
      sink_->OnLayer(arrived.item, layer,
                     absl::MakeConstSpan(arrived.next, bytes));
      arrived.next += bytes;
    }
    return ReadLayers(stream, layer, hit + 1);
  });
}

// The layers of a single hit are contiguous on the wire and in memory, so one
// read takes as many bytes as have arrived. `ready`: bytes from the start of
// `layer` on that have been read.
kj::Promise<void> FetchJob::ReadOnlyHit(kj::AsyncIoStream& stream, int layer,
                                        uint64_t ready) {
  Hit& hit = hits_[0];
  while (layer < request_.slice.layers() && ready >= hit.layer_bytes[layer]) {
    const uint64_t bytes = hit.layer_bytes[layer];
    sink_->OnLayer(hit.item, layer, absl::MakeConstSpan(hit.next, bytes));
    hit.next += bytes;
    ready -= bytes;
    ++layer;
  }
  if (layer == request_.slice.layers()) return kj::READY_NOW;
  uint64_t left = 0;
  for (int l = layer; l < request_.slice.layers(); ++l) {
    left += hit.layer_bytes[l];
  }
  const uint64_t wanted = hit.layer_bytes[layer] - ready;
  const uint64_t most = std::max<uint64_t>(
      wanted, std::min<uint64_t>(left - ready, kBulkBlockBytes));
  return stream.read(hit.next + ready, wanted, most)
      .then([this, &stream, layer, ready](size_t count) {
        meters_->Add("peer_bytes_in", count);
        return ReadOnlyHit(stream, layer, ready + count);
      });
}

kj::Promise<void> FetchJob::Skip(kj::AsyncIoStream& stream, uint64_t bytes) {
  if (bytes == 0) return kj::READY_NOW;
  constexpr uint64_t kJunkBytes = 256u << 10;
  if (junk_.size() == 0) junk_ = kj::heapArray<kj::byte>(kJunkBytes);
  const uint64_t count = std::min(bytes, kJunkBytes);
  return stream.read(junk_.begin(), count)
      .then(
          [this, &stream, rest = bytes - count] { return Skip(stream, rest); });
}

void FetchJob::Finish(const absl::Status& status) {
  KDN_CHECK(sink_ != nullptr, "a fetch finished twice");
  sink_->OnDone(status);
  sink_ = nullptr;
}

kj::Promise<absl::Status> PushJob::Run(kj::AsyncIoStream& stream) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto request = message->initRoot<peer::Request>();
  request.setDeadlineMs(MillisUntil(request_.deadline));
  auto push = request.initPush();
  FillRef(request_.ref, push.initChunk());
  push.setObjectBytes(request_.object->size());
  push.setDurability(static_cast<uint8_t>(request_.durability));
  if (request_.expires > SteadyNow()) {
    // Rounded up, so that a TTL does not end early at a replica.
    push.setTtlMs(static_cast<uint64_t>(absl::ToInt64Milliseconds(
        absl::Ceil(request_.expires - SteadyNow(), absl::Milliseconds(1)))));
  }
  auto writing = WriteFrame(stream, *message);
  return writing.attach(kj::mv(message))
      .then([&stream] { return ReadFrame(stream); })
      .then([this, &stream](kj::Own<Frame> frame) -> kj::Promise<absl::Status> {
        absl::Status go = FromWire(frame->As<peer::PushGo>().getStatus());
        if (!go.ok()) return go;
        return SendFrom(stream, 0).then(
            [this, &stream] { return ReadReceipt(stream); });
      });
}

kj::Promise<void> PushJob::SendFrom(kj::AsyncIoStream& stream, size_t sent) {
  const auto bytes = request_.object->bytes();
  if (sent == bytes.size()) return kj::READY_NOW;
  const size_t count = std::min(kBulkBlockBytes, bytes.size() - sent);
  return stream.write(bytes.data() + sent, count)
      .then([this, &stream, sent, count] {
        meters_->Add("peer_bytes_out", count);
        return SendFrom(stream, sent + count);
      });
}

kj::Promise<absl::Status> PushJob::ReadReceipt(kj::AsyncIoStream& stream) {
  return ReadFrame(stream).then([this](kj::Own<Frame> frame) {
    const auto done = frame->As<peer::PushDone>();
    receipt_ = delivery::PushReceipt{ObjectVersion(done.getVersion()),
                                     done.getExisted()};
    return FromWire(done.getStatus());
  });
}

kj::Promise<absl::Status> CalibrationJob::Run(kj::AsyncIoStream& stream) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto request = message->initRoot<peer::Request>();
  request.setDeadlineMs(MillisUntil(deadline_));
  request.initCalibration().setId(ToWire(id_));
  auto writing = WriteFrame(stream, *message);
  return writing.attach(kj::mv(message))
      .then([&stream] { return ReadFrame(stream); })
      .then([this, &stream](kj::Own<Frame> frame) -> kj::Promise<absl::Status> {
        const auto item = frame->As<peer::CalibrationItem>();
        absl::Status status = FromWire(item.getStatus());
        if (!status.ok()) return status;
        if (item.getBytes() > bytes_max_) {
          // The bytes are on their way, so the connection ends.
          return ExceptionOf(
              kj::Exception::Type::OVERLOADED,
              absl::StrCat("a calibration of ", item.getBytes(),
                           " bytes, and there is room for ", bytes_max_));
        }
        return ReadFrom(stream, 0, item.getBytes());
      });
}

// The buffer grows with the bytes that come, not with the announced size.
kj::Promise<absl::Status> CalibrationJob::ReadFrom(kj::AsyncIoStream& stream,
                                                   size_t begin,
                                                   uint64_t bytes) {
  if (begin == bytes) return absl::OkStatus();
  const size_t count = std::min<uint64_t>(kBulkBlockBytes, bytes - begin);
  bytes_.resize(begin + count);
  return stream.read(bytes_.data() + begin, count)
      .then([this, &stream, begin, count, bytes] {
        meters_->Add("peer_bytes_in", count);
        return ReadFrom(stream, begin + count, bytes);
      });
}

void CalibrationJob::Finish(const absl::Status& status) {
  KDN_CHECK(done_ != nullptr, "a calibration finished twice");
  auto done = std::exchange(done_, nullptr);
  if (status.ok()) {
    done(std::move(bytes_));
  } else {
    done(status);
  }
}

void PushJob::Finish(const absl::Status& status) {
  KDN_CHECK(done_ != nullptr, "a push finished twice");
  auto done = std::exchange(done_, nullptr);
  if (status.ok()) {
    done(receipt_);
  } else {
    done(status);
  }
}

}  // namespace kdn::rpc
