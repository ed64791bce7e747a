// How a BulkSession serves a fetch and a push.
#include <kj/debug.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/format/fixed_fields.h"
#include "kv/clock.h"
#include "kv/model_spec.h"
#include "rpc/bulk/session.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

constexpr size_t kPiecesPerWrite = 512;
// Shows that the peer has begun to send.
constexpr size_t kFirstPushBytes = 4096;
constexpr uint64_t kTtlMsMax = 30ull * 24 * 3600 * 1000;

kj::ArrayPtr<const kj::byte> BytesOf(absl::Span<const std::byte> bytes) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes.data()),
                      bytes.size());
}

// Appends a piece, cut into blocks. It is merged with the last piece if the two
// touch and the last piece is not before index `first`.
void AddPiece(kj::ArrayPtr<const kj::byte> piece, size_t first,
              std::vector<kj::ArrayPtr<const kj::byte>>& pieces) {
  if (pieces.size() > first && pieces.back().end() == piece.begin()) {
    const auto last = pieces.back();
    pieces.pop_back();
    piece = kj::arrayPtr(last.begin(), last.size() + piece.size());
  }
  while (piece.size() > kBulkBlockBytes) {
    pieces.push_back(piece.slice(0, kBulkBlockBytes));
    piece = piece.slice(kBulkBlockBytes, piece.size());
  }
  if (piece.size() > 0) pieces.push_back(piece);
}

absl::StatusOr<ChunkRef> RefOf(peer::ChunkRef::Reader ref) {
  auto key = DigestFromWire<ChunkKey>(ref.getKey(), "chunk key");
  if (!key.ok()) return key.status();
  return ChunkRef{*key};
}

absl::Status CheckRange(const char* what, uint32_t begin, uint32_t end,
                        uint32_t most) {
  if (begin <= end && end <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      what, " [", begin, ", ", end, "), expected a range up to ", most));
}

// The slice of a fetch. INVALID_ARGUMENT for layers or heads that no model has.
absl::StatusOr<KvSlice> SliceOf(peer::Fetch::Reader fetch) {
  absl::Status status = CheckRange("layers", fetch.getLayerBegin(),
                                   fetch.getLayerEnd(), kLayersMax);
  status.Update(CheckRange("heads", fetch.getHeadBegin(), fetch.getHeadEnd(),
                           kKvHeadsMax));
  if (!status.ok()) return status;
  return KvSlice{static_cast<int>(fetch.getLayerBegin()),
                 static_cast<int>(fetch.getLayerEnd()),
                 static_cast<int>(fetch.getHeadBegin()),
                 static_cast<int>(fetch.getHeadEnd())};
}

// The frame of one chunk of a fetch.
kj::Array<kj::byte> ItemFrame(unsigned number, bool ends_group,
                              const absl::Status& status,
                              const SliceLayout& layout, Tier tier,
                              const codec::ObjectIndex* index,
                              ObjectVersion damaged) {
  capnp::MallocMessageBuilder message;
  auto item = message.initRoot<peer::FetchItem>();
  item.setItem(number);
  item.setEndsGroup(ends_group);
  ToWire(status, item.initStatus());
  if (index != nullptr) {
    auto levels = item.initLevels(static_cast<unsigned>(layout.levels.size()));
    for (unsigned i = 0; i < levels.size(); ++i) {
      levels.set(i, static_cast<uint8_t>(layout.levels[i]));
    }
    item.setTier(static_cast<uint8_t>(tier));
    item.setObjectBytes(index->object_bytes());
    item.setPrefixBytes(static_cast<uint32_t>(index->prefix_bytes()));
    item.setStreamBytes(layout.AllBytes(*index));
  } else {
    item.setRecompute(status.ok());
    item.setVersion(damaged.value());
  }
  return FrameOf(message);
}

delivery::SendBudget BudgetOf(peer::Budget::Reader budget) {
  delivery::SendBudget out;
  out.bytes_max = budget.getBytesMax();
  const double per_token = budget.getBytesPerTokenMax();
  if (per_token > 0 && std::isfinite(per_token)) {
    out.bytes_per_token_max = per_token;
  }
  out.setup_bytes = budget.getSetupBytes();
  out.too_slow = LevelSet::FromBits(budget.getLevelsTooSlow());
  out.reuse = budget.getLeadingChunks() ? delivery::Reuse::kLeadingChunks
                                        : delivery::Reuse::kAnyChunk;
  return out;
}

}  // namespace

kj::Promise<void> BulkSession::ServeFetch(peer::Fetch::Reader request,
                                          absl::Duration timeout) {
  const auto chunks = request.getChunks();
  const absl::StatusOr<Namespace> ns =
      Namespace::Parse(FromWire(request.getNamespace()));
  if (!ns.ok()) return Malformed(ns.status());
  const absl::StatusOr<KvSlice> slice = SliceOf(request);
  if (!slice.ok()) return Malformed(slice.status());
  if (chunks.size() >
      static_cast<unsigned>(shared_.options.items_per_fetch_max)) {
    return Malformed(absl::InvalidArgumentError(
        absl::StrCat(chunks.size(), " chunks in a fetch, expected at most ",
                     shared_.options.items_per_fetch_max)));
  }
  std::vector<ChunkRef> refs;
  for (const auto chunk : chunks) {
    const absl::StatusOr<ChunkRef> ref = RefOf(chunk);
    if (!ref.ok()) return Malformed(ref.status());
    refs.push_back(*ref);
  }
  auto fetch = std::make_shared<Fetch>(
      *slice, LevelSet::FromBits(request.getAccept()),
      request.getNewestFormat(), BudgetOf(request.getBudget()), refs.size());
  const CallDeadline deadline = CallDeadline::After(timeout);
  for (unsigned i = 0; i < refs.size(); ++i) {
    using Held = absl::StatusOr<delivery::PeerService::Held>;
    auto expected = loop_.Expect<Held>();
    shared_.service->ReadLocal(refs[i], *ns, deadline.of_node,
                               std::move(expected.done));
    // The fetch owns its reads, so the reference stays valid.
    fetch->reads.push_back(
        ByDeadline(loop_, kj::mv(expected.promise), deadline.at,
                   "reading an object")
            .then([i, &fetch = *fetch](Held held) {
              fetch.items[i] = ItemOf(i, std::move(held), fetch);
              fetch.order.OnRead(i, SteadyNow());
              if (fetch.order.all_read() && fetch.all_read.get() != nullptr) {
                fetch.all_read->fulfill();
              }
            })
            .eagerlyEvaluate(nullptr));
  }
  return SendGroups(std::move(fetch));
}

kj::Promise<void> BulkSession::SendGroups(std::shared_ptr<Fetch> fetch) {
  if (fetch->order.done()) return kj::READY_NOW;
  return AwaitGroup(*fetch)
      .then([this, fetch] {
        std::vector<Item> items = TakeItems(*fetch);
        Plan(*fetch, items);
        return SendFrom(Arrange(std::move(items), fetch->slice), 0);
      })
      .then([this, fetch] { return SendGroups(fetch); });
}

kj::Promise<void> BulkSession::AwaitGroup(Fetch& fetch) {
  const absl::Time now = SteadyNow();
  if (fetch.order.IsGroupDue(now)) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  fetch.all_read = kj::mv(paf.fulfiller);
  const kj::TimePoint at = EventLoop::In(fetch.order.NextLook(now) - now);
  return paf.promise.exclusiveJoin(loop_.At(at)).then([this, &fetch] {
    return AwaitGroup(fetch);
  });
}

std::vector<BulkSession::Item> BulkSession::TakeItems(Fetch& fetch) {
  std::vector<Item> items;
  for (const unsigned chunk : fetch.order.TakeGroup()) {
    items.push_back(std::exchange(fetch.items[chunk], {}));
  }
  return items;
}

BulkSession::Item BulkSession::ItemOf(
    unsigned number, absl::StatusOr<delivery::PeerService::Held> held,
    const Fetch& fetch) {
  Item item;
  item.number = number;
  item.status = held.status();
  if (!held.ok()) return item;
  item.held = *std::move(held);
  const absl::Span<const std::byte> bytes = item.held.object->bytes();
  absl::StatusOr<codec::ObjectIndex> index =
      codec::ObjectIndex::Parse(bytes, bytes.size());
  item.status = index.status();
  if (!index.ok()) {
    item.damaged = item.held.info.version;
    return item;
  }
  const uint16_t format = codec::ReadFixed(bytes)->version;
  if (format > fetch.newest_format) {
    item.status = absl::UnimplementedError(
        absl::StrCat("object format ", format, "; the caller reads ",
                     fetch.newest_format, " and older: update its node"));
    return item;
  }
  const LevelSet offered = index->header().levels & fetch.accept;
  if (offered.empty()) {
    item.status = absl::NotFoundError("the copy keeps no accepted level");
    return item;
  }
  item.layout.slice = fetch.slice;
  item.status = CheckSlice(index->header().shape, fetch.slice);
  item.index = *std::move(index);
  return item;
}

void BulkSession::Plan(Fetch& fetch, std::vector<Item>& items) {
  std::vector<Item*> held;
  std::vector<const codec::ObjectIndex*> objects;
  for (Item& item : items) {
    if (!item.status.ok()) continue;
    held.push_back(&item);
    objects.push_back(&*item.index);
  }
  std::vector<std::vector<Level>> levels =
      fetch.plan.LevelsOf(objects, items.size() - objects.size());
  for (size_t i = 0; i < held.size(); ++i) {
    held[i]->layout.levels = std::move(levels[i]);
  }
}

// The pieces of a group: frames and prefixes in the order of the items, then
// the streams, layer by layer.
std::shared_ptr<BulkSession::Group> BulkSession::Arrange(
    std::vector<Item> items, const KvSlice& slice) {
  auto out = std::make_shared<Group>();
  out->items = std::move(items);
  for (const Item& item : out->items) {
    const codec::ObjectIndex* index = item.is_sent() ? &*item.index : nullptr;
    out->frames.push_back(ItemFrame(item.number, &item == &out->items.back(),
                                    item.status, item.layout,
                                    item.held.info.tier, index, item.damaged));
    out->pieces.push_back(out->frames.back());
    if (index == nullptr) continue;
    AddPiece(
        BytesOf(item.held.object->bytes().subspan(0, index->prefix_bytes())),
        out->pieces.size(), out->pieces);
  }
  out->first_stream = out->pieces.size();
  // Without a hit, the slice has not been checked against an object.
  if (std::none_of(out->items.begin(), out->items.end(),
                   [](const Item& item) { return item.is_sent(); })) {
    return out;
  }
  delivery::ForEachLayer(
      slice.layers(), out->items.size(), [&](int layer, size_t i) {
        const Item& item = out->items[i];
        if (!item.is_sent()) return;
        for (const codec::ByteRange& range : item.index->LayerRanges(
                 item.layout.levels[layer], slice.layer_begin + layer,
                 slice.head_begin, slice.head_end)) {
          AddPiece(BytesOf(item.held.object->bytes().subspan(range.offset,
                                                             range.bytes)),
                   out->first_stream, out->pieces);
        }
      });
  return out;
}

kj::Promise<void> BulkSession::SendFrom(std::shared_ptr<Group> group,
                                        size_t next) {
  const auto& pieces = group->pieces;
  size_t bytes = 0;
  size_t stream_bytes = 0;
  size_t end = next;
  while (end < pieces.size() && end - next < kPiecesPerWrite &&
         (end == next || bytes + pieces[end].size() <= kBulkBlockBytes)) {
    bytes += pieces[end].size();
    if (end >= group->first_stream) stream_bytes += pieces[end].size();
    ++end;
  }
  if (end == next) return kj::READY_NOW;
  // Counted before the write: the peer may have received the bytes, and
  // reported them, when the write returns.
  shared_.options.meters->Add("peer_bytes_out", stream_bytes);
  auto writing = stream_->write(kj::arrayPtr(pieces.data() + next, end - next));
  return Within(loop_, shared_.options.stall_timeout, kj::mv(writing))
      .then([this, group, end] { return SendFrom(group, end); });
}

kj::Promise<void> BulkSession::ServeCalibration(
    peer::Calibration::Reader request, absl::Duration timeout) {
  using Bytes = absl::StatusOr<delivery::PeerService::FileBytes>;
  const auto id =
      DigestFromWire<codec::CalibrationId>(request.getId(), "calibration id");
  if (!id.ok()) return Malformed(id.status());
  auto expected = loop_.Expect<Bytes>();
  shared_.service->ReadCalibration(*id, std::move(expected.done));
  return ByDeadline(loop_, kj::mv(expected.promise),
                    CallDeadline::After(timeout).at, "reading a calibration")
      .then([this](Bytes bytes) {
        auto message = kj::heap<capnp::MallocMessageBuilder>();
        auto item = message->initRoot<peer::CalibrationItem>();
        ToWire(bytes.status(), item.initStatus());
        if (bytes.ok()) item.setBytes((*bytes)->size());
        auto writing = WriteFrame(*stream_, *message);
        return writing.attach(kj::mv(message))
            .then([this, bytes = std::move(bytes)]() -> kj::Promise<void> {
              if (!bytes.ok()) return kj::READY_NOW;
              return SendBytes(*bytes, 0);
            });
      });
}

kj::Promise<void> BulkSession::SendBytes(delivery::PeerService::FileBytes bytes,
                                         size_t begin) {
  if (begin == bytes->size()) return kj::READY_NOW;
  const size_t count = std::min(kBulkBlockBytes, bytes->size() - begin);
  shared_.options.meters->Add("peer_bytes_out", count);
  auto writing = stream_->write(bytes->data() + begin, count);
  return Within(loop_, shared_.options.stall_timeout, kj::mv(writing))
      .then([this, bytes, begin, count] {
        return SendBytes(bytes, begin + count);
      });
}

kj::Promise<void> BulkSession::ServePush(peer::Push::Reader request,
                                         absl::Duration timeout) {
  const absl::StatusOr<ChunkRef> ref = RefOf(request.getChunk());
  if (!ref.ok()) return Malformed(ref.status());
  if (request.getDurability() > static_cast<uint8_t>(Durability::kDurable)) {
    return Refuse(absl::UnimplementedError(
        absl::StrCat("node ", shared_.options.self.name(),
                     " does not know durability ", request.getDurability())));
  }
  const CallDeadline deadline = CallDeadline::After(timeout);
  auto push = std::make_shared<Pushing>();
  push->ref = *ref;
  push->bytes = request.getObjectBytes();
  push->durability = static_cast<Durability>(request.getDurability());
  push->expires =
      request.getTtlMs() == 0
          ? absl::InfinitePast()
          : SteadyNow() +
                absl::Milliseconds(static_cast<int64_t>(
                    std::min<uint64_t>(request.getTtlMs(), kTtlMsMax)));
  push->deadline = deadline;
  return Reserve(push).then([this, push](Block block) {
    const absl::Status status = block.status();
    if (status.ok()) push->block = *std::move(block);
    return Go(push, status);
  });
}

kj::Promise<BulkSession::Block> BulkSession::Reserve(
    std::shared_ptr<Pushing> push) {
  const uint64_t least = codec::ObjectIndex::kFixedPrefixBytes;
  const uint64_t most = shared_.options.push_bytes_max;
  if (push->bytes < least || push->bytes > most) {
    return Block(absl::InvalidArgumentError(
        absl::StrCat("an object of ", push->bytes, " bytes, expected ", least,
                     " to ", most)));
  }
  using Pass = absl::StatusOr<std::unique_ptr<PushRoom::Pass>>;
  auto room = shared_.unreceived->Acquire(push->bytes, requester_)
                  .then([](std::unique_ptr<PushRoom::Pass> pass) -> Pass {
                    return pass;
                  });
  return ByDeadline<Pass>(loop_, kj::mv(room), push->deadline.at,
                          "waiting for other pushes")
      .then([this, push](Pass pass) -> kj::Promise<Block> {
        if (!pass.ok()) return Block(pass.status());
        push->unreceived = *std::move(pass);
        auto expected = loop_.Expect<Block>();
        shared_.service->ReserveLocal(push->ref, push->bytes,
                                      push->deadline.of_node,
                                      std::move(expected.done));
        return ByDeadline(loop_, kj::mv(expected.promise), push->deadline.at,
                          "reserving room");
      });
}

kj::Promise<void> BulkSession::Go(std::shared_ptr<Pushing> push,
                                  const absl::Status& status) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  ToWire(status, message->initRoot<peer::PushGo>().initStatus());
  auto writing = WriteFrame(*stream_, *message);
  return writing.attach(kj::mv(message))
      .then([this, push]() -> kj::Promise<void> {
        if (push->block == nullptr) return kj::READY_NOW;
        return Receive(push, 0).then([this, push] { return Commit(push); });
      });
}

kj::Promise<void> BulkSession::Receive(std::shared_ptr<Pushing> push,
                                       uint64_t done) {
  if (done == push->bytes) {
    push->unreceived = nullptr;
    return kj::READY_NOW;
  }
  const bool first = done == 0;
  const size_t count = std::min<uint64_t>(
      first ? kFirstPushBytes : kBulkBlockBytes, push->bytes - done);
  const absl::Duration limit =
      first ? std::min(shared_.options.push_begin_timeout,
                       shared_.options.stall_timeout)
            : shared_.options.stall_timeout;
  return Within(loop_, limit,
                stream_->read(push->block->bytes().data() + done, count))
      .then([this, push, done, count] {
        shared_.options.meters->Add("peer_bytes_in", count);
        push->unreceived->Shrink(push->bytes - done - count);
        return Receive(push, done + count);
      });
}

kj::Promise<void> BulkSession::Commit(std::shared_ptr<Pushing> push) {
  using Receipt = absl::StatusOr<delivery::PushReceipt>;
  auto expected = loop_.Expect<Receipt>();
  shared_.service->CommitLocal(
      push->ref, std::move(push->block), push->durability, push->expires,
      push->deadline.of_node, std::move(expected.done));
  return ByDeadline(loop_, kj::mv(expected.promise), push->deadline.at,
                    "committing a push")
      .then([this](Receipt receipt) {
        auto message = kj::heap<capnp::MallocMessageBuilder>();
        auto done = message->initRoot<peer::PushDone>();
        ToWire(receipt.status(), done.initStatus());
        if (receipt.ok()) {
          done.setVersion(receipt->version.value());
          done.setExisted(receipt->existed);
        }
        auto writing = WriteFrame(*stream_, *message);
        return writing.attach(kj::mv(message));
      });
}

}  // namespace kdn::rpc
