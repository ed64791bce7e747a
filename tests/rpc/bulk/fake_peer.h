#ifndef KDN_TESTS_RPC_BULK_FAKE_PEER_H_
#define KDN_TESTS_RPC_BULK_FAKE_PEER_H_

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "delivery/peer_transport.h"
#include "storage/arena.h"
#include "tests/rpc/gateway/fixture.h"

namespace kdn::rpc {

// The node of a bulk server. It has real objects of the codec in a real arena,
// and answers on the calling thread. Thread-safe.
class FakePeer final : public delivery::PeerService {
 public:
  explicit FakePeer(size_t arena_bytes = 64u << 20);

  // Encodes and holds a chunk.
  void Hold(const TestChunk& chunk, LevelSet levels);
  // Holds bytes that are not an object.
  void HoldJunk(const ChunkKey& key);
  // The version that its storage reports for every copy.
  static constexpr ObjectVersion kVersion{7};
  void set_failure(const ChunkKey& key, absl::Status status);
  // At most `room` objects are lent at a time. A further read waits until an
  // object is returned, as on a node with little memory.
  void set_room(int room);
  // While true, ReadLocal is never answered.
  void set_silent(bool silent);
  // While false, ReserveLocal is not answered.
  void set_reserving(bool reserving);
  storage::ObjectRef object(const ChunkKey& key) const;
  size_t arena_used() const { return arena_->used_bytes(); }
  int commits() const;
  absl::Time last_expires() const;

  // Has one calibration: that of `bytes`.
  void HoldCalibration(std::vector<std::byte> bytes);
  void ReadCalibration(const codec::CalibrationId& id,
                       delivery::Done<absl::StatusOr<FileBytes>> done) override;
  void ReadLocal(const ChunkRef& ref, const Namespace& ns, absl::Time deadline,
                 delivery::Done<absl::StatusOr<Held>> done) override;
  void ReserveLocal(
      const ChunkRef& ref, size_t bytes, absl::Time deadline,
      delivery::Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>> done)
      override;
  void CommitLocal(
      const ChunkRef& ref, std::shared_ptr<storage::ArenaBlock> block,
      Durability durability, absl::Time expires, absl::Time deadline,
      delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) override;

 private:
  using ReadDone = delivery::Done<absl::StatusOr<Held>>;
  void Lend(storage::ObjectRef object, ReadDone done);
  void TakeBack();

  std::shared_ptr<storage::Arena> arena_;
  mutable absl::Mutex mutex_;
  std::map<ChunkKey, storage::ObjectRef> objects_ ABSL_GUARDED_BY(mutex_);
  std::map<ChunkKey, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::map<codec::CalibrationId, FileBytes> calibrations_
      ABSL_GUARDED_BY(mutex_);
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;
  int commits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_expires_ ABSL_GUARDED_BY(mutex_);
  std::vector<ReadDone> unanswered_ ABSL_GUARDED_BY(mutex_);
  bool reserving_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<
      delivery::Done<absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>>>
      waiting_for_room_ ABSL_GUARDED_BY(mutex_);
  int room_ ABSL_GUARDED_BY(mutex_) = 1 << 20;
  std::deque<std::pair<storage::ObjectRef, ReadDone>> waiting_
      ABSL_GUARDED_BY(mutex_);
};

// Records the results of one fetch, and verifies them as a node would.
class RecordingSink final : public delivery::FetchSink {
 public:
  struct Item {
    std::optional<codec::ObjectIndex> index;
    absl::Status why;
    ObjectVersion damaged;
    std::vector<Level> levels;  // by layer
    bool recompute = false;
    std::vector<std::byte> streams;
    int layers = 0;
    absl::Status verified;
  };
  struct Record {
    std::vector<Item> items;
    std::vector<std::pair<int, int>> order;  // (layer, item), as they came
    absl::Status status;
    absl::Notification begun;
    absl::Notification done;
    absl::Notification first_layer;
    bool refuse_all = false;
  };
  RecordingSink(std::shared_ptr<Record> record, const KvSlice& slice,
                size_t items)
      : record_(std::move(record)), slice_(slice) {
    record_->items.resize(items);
  }

  void OnBegin() override { record_->begun.Notify(); }
  absl::StatusOr<absl::Span<std::byte>> OnHit(int i, codec::ObjectIndex index,
                                              std::vector<Level> levels,
                                              Tier tier,
                                              uint64_t stream_bytes) override;
  void OnRecompute(int i) override;
  void OnNoHit(int i, const absl::Status& why, ObjectVersion version) override;
  void OnLayer(int i, int layer, absl::Span<const std::byte> streams) override;
  void OnDone(const absl::Status& status) override;

 private:
  std::shared_ptr<Record> record_;
  KvSlice slice_;
};

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_BULK_FAKE_PEER_H_
