#include "tests/rpc/bulk/fake_peer.h"

#include "codec/encoder.h"
#include "codec/format/stream_layout.h"

namespace kdn::rpc {

FakePeer::FakePeer(size_t arena_bytes)
    : arena_(*storage::Arena::Create(arena_bytes)) {}

void FakePeer::Hold(const TestChunk& chunk, LevelSet levels) {
  codec::ObjectHeader header{.identity = chunk.spec.identity,
                             .shape = chunk.shape,
                             .rope = TestModel().rope,
                             .positions = chunk.spec.positions,
                             .levels = levels,
                             .calibration = {}};
  auto block = *arena_->Allocate(codec::ObjectBytesMax(header));
  auto calibration = codec::CalibrationSet().ForModel(
      header.identity.fingerprint, codec::GeometryOf(header.shape));
  auto encoder = codec::ObjectEncoder::Create(
      std::move(header), std::move(calibration), block->bytes());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  for (int layer = 0; layer < chunk.shape.layers; ++layer) {
    ASSERT_TRUE(encoder->EncodeLayer(chunk.view().Layer(layer)).ok());
  }
  auto finished = encoder->Finish();
  ASSERT_TRUE(finished.ok()) << finished.status();
  block->ShrinkTo(finished->bytes);
  absl::MutexLock lock(&mutex_);
  objects_[chunk.ref.key] = std::move(block);
}

void FakePeer::HoldJunk(const ChunkKey& key) {
  auto block = *arena_->Allocate(4096);
  std::fill(block->bytes().begin(), block->bytes().end(), std::byte{0});
  absl::MutexLock lock(&mutex_);
  objects_[key] = std::move(block);
}

void FakePeer::set_failure(const ChunkKey& key, absl::Status status) {
  absl::MutexLock lock(&mutex_);
  failures_[key] = std::move(status);
}

void FakePeer::set_silent(bool silent) {
  absl::MutexLock lock(&mutex_);
  silent_ = silent;
}

void FakePeer::set_reserving(bool reserving) {
  absl::MutexLock lock(&mutex_);
  reserving_ = reserving;
}

storage::ObjectRef FakePeer::object(const ChunkKey& key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = objects_.find(key);
  return found == objects_.end() ? nullptr : found->second;
}

int FakePeer::commits() const {
  absl::MutexLock lock(&mutex_);
  return commits_;
}

absl::Time FakePeer::last_expires() const {
  absl::MutexLock lock(&mutex_);
  return last_expires_;
}

void FakePeer::set_room(int room) {
  absl::MutexLock lock(&mutex_);
  room_ = room;
}

void FakePeer::Lend(storage::ObjectRef object, ReadDone done) {
  {
    absl::MutexLock lock(&mutex_);
    if (room_ == 0) {
      waiting_.emplace_back(std::move(object), std::move(done));
      return;
    }
    --room_;
  }
  const storage::ArenaBlock* block = object.get();
  storage::ObjectInfo info;
  info.version = kVersion;
  done(Held{std::move(info),
            storage::ObjectRef(
                block, [this, kept = std::move(object)](
                           const storage::ArenaBlock*) { TakeBack(); })});
}

void FakePeer::TakeBack() {
  std::pair<storage::ObjectRef, ReadDone> next;
  {
    absl::MutexLock lock(&mutex_);
    ++room_;
    if (waiting_.empty()) return;
    next = std::move(waiting_.front());
    waiting_.pop_front();
  }
  Lend(std::move(next.first), std::move(next.second));
}

void FakePeer::HoldCalibration(std::vector<std::byte> bytes) {
  const codec::CalibrationId id(
      Sha256Of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  absl::MutexLock lock(&mutex_);
  calibrations_[id] =
      std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

void FakePeer::ReadCalibration(const codec::CalibrationId& id,
                               delivery::Done<absl::StatusOr<FileBytes>> done) {
  FileBytes found;
  {
    absl::MutexLock lock(&mutex_);
    const auto at = calibrations_.find(id);
    if (at != calibrations_.end()) found = at->second;
  }
  if (found == nullptr) return done(absl::NotFoundError("no calibration"));
  done(found);
}

void FakePeer::ReadLocal(const ChunkRef& ref, const Namespace&, absl::Time,
                         ReadDone done) {
  absl::StatusOr<Held> answer = absl::NotFoundError("not here");
  storage::ObjectRef object;
  {
    absl::MutexLock lock(&mutex_);
    if (silent_) {
      unanswered_.push_back(std::move(done));
      return;
    }
    if (auto failed = failures_.find(ref.key); failed != failures_.end()) {
      answer = failed->second;
    } else if (auto held = objects_.find(ref.key); held != objects_.end()) {
      object = held->second;
    }
  }
  if (object != nullptr) return Lend(std::move(object), std::move(done));
  done(std::move(answer));
}

void FakePeer::ReserveLocal(
    const ChunkRef&, size_t bytes, absl::Time,
    delivery::Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done) {
  {
    absl::MutexLock lock(&mutex_);
    if (!reserving_) return waiting_for_room_.push_back(std::move(done));
  }
  done(arena_->Allocate(bytes));
}

void FakePeer::CommitLocal(
    const ChunkRef& ref, std::shared_ptr<storage::ArenaBlock> block, Durability,
    absl::Time expires, absl::Time,
    delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) {
  auto index = codec::ObjectIndex::Parse(block->bytes(), block->size());
  if (!index.ok()) return done(index.status());
  absl::Status verified = codec::VerifyObject(*index, block->bytes());
  if (!verified.ok()) return done(verified);
  delivery::PushReceipt receipt{index->version(), false};
  {
    absl::MutexLock lock(&mutex_);
    ++commits_;
    last_expires_ = expires;
    receipt.existed = !objects_.emplace(ref.key, std::move(block)).second;
  }
  done(receipt);
}

absl::StatusOr<absl::Span<std::byte>> RecordingSink::OnHit(
    int i, codec::ObjectIndex index, std::vector<Level> levels, Tier,
    uint64_t stream_bytes) {
  if (record_->refuse_all) return absl::ResourceExhaustedError("no room");
  Item& item = record_->items[i];
  item.index = std::move(index);
  item.levels = std::move(levels);
  item.streams.resize(stream_bytes);
  return absl::MakeSpan(item.streams);
}

void RecordingSink::OnRecompute(int i) { record_->items[i].recompute = true; }

void RecordingSink::OnNoHit(int i, const absl::Status& why,
                            ObjectVersion version) {
  record_->items[i].damaged = version;
  record_->items[i].why = why;
}

void RecordingSink::OnLayer(int i, int layer,
                            absl::Span<const std::byte> streams) {
  Item& item = record_->items[i];
  EXPECT_EQ(layer, item.layers++);
  record_->order.emplace_back(layer, i);
  size_t offset = 0;
  for (const Level step : codec::LadderTo(item.levels[layer])) {
    for (const codec::StreamId& id : codec::StreamsOf(
             item.index->header().shape, {slice_.layer_begin + layer, step},
             slice_.head_begin, slice_.head_end)) {
      const size_t bytes = item.index->Entry(id).bytes;
      item.verified.Update(
          codec::VerifyStream(*item.index, id, streams.subspan(offset, bytes)));
      offset += bytes;
    }
  }
  EXPECT_EQ(offset, streams.size());
  if (!record_->first_layer.HasBeenNotified()) record_->first_layer.Notify();
}

void RecordingSink::OnDone(const absl::Status& status) {
  record_->status = status;
  record_->done.Notify();
}

}  // namespace kdn::rpc
