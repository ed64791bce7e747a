#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "kv/log.h"
#include "tests/actors/actors_fixture.h"

namespace kdn::actors {
namespace {

using Held = delivery::PeerService::Held;
using Block = std::shared_ptr<storage::ArenaBlock>;

// A disk tier that keeps every request until the test answers it.
class HeldDisk final : public storage::DiskTier {
 public:
  void Write(const storage::ObjectInfo&, storage::ObjectRef, bool,
             Done done) override {
    asked.push_back(std::move(done));
  }
  void Read(const storage::ObjectInfo&, std::shared_ptr<storage::ArenaBlock>,
            Done done) override {
    asked.push_back(std::move(done));
  }
  void Remove(ShardId, const ChunkKey&, Done done) override {
    asked.push_back(std::move(done));
  }
  void Touch(ShardId, const ChunkKey&) override { ++touches; }
  void HeldChanged(ShardId, const ChunkKey&) override { ++held_changes; }
  void ConfirmHeld(ShardId, const ChunkKey&, Done done) override {
    done(absl::OkStatus());
  }
  void Amend(const storage::ObjectInfo& info, bool, Done done) override {
    amended.push_back(info);
    asked.push_back(std::move(done));
  }
  absl::Status ForEach(
      absl::FunctionRef<void(const storage::ObjectInfo&)>) override {
    return absl::OkStatus();
  }
  absl::Status Flush() override { return absl::OkStatus(); }
  MetricValues counters() const override { return {}; }

  std::vector<Done> asked;
  std::vector<storage::ObjectInfo> amended;
  int touches = 0;
  int held_changes = 0;
};

class StorageActorTest : public ActorsTest {
 protected:
  // The options of a disk tier in a directory, which is emptied.
  storage::DiskTier::Options EmptyDisk(const std::string& directory) const {
    std::filesystem::remove_all(directory);
    storage::DiskTier::Options options;
    options.directory = directory;
    options.clock = &clock_;
    options.capacity_bytes = 64u << 20;
    return options;
  }
  void Read(const StorageActor& storage, int i, Answer<Held>* answer) {
    caf::anon_send(storage, ReadCall{RefOf(i).key, "t", In(absl::Seconds(1)),
                                     answer->AsReply()});
    Run();
  }
  absl::Status Lease(LeaseOp op, int i, uint64_t session) {
    absl::Status result = absl::UnknownError("not answered");
    caf::scoped_actor self(system_);
    auto asked = self->request(
        storage_, caf::infinite, LeaseAtom::value,
        LeaseQuery{static_cast<uint8_t>(op), "t", PackKeys({RefOf(i).key}),
                   session, absl::ToInt64Microseconds(absl::Seconds(10))});
    Run();
    asked.receive(
        [&](const std::vector<StatusItem>& items) {
          ASSERT_EQ(items.size(), 1u);
          result = FromWire(items[0]);
        },
        [&](const caf::error& error) { FAIL() << system_.render(error); });
    return result;
  }

  static constexpr size_t kArenaBytes = 256u << 10;
  void ReserveAll(Answer<Block>* answer) {
    caf::anon_send(storage_, ReserveCall{kArenaBytes, In(absl::Seconds(1)),
                                         answer->AsReply()});
  }

  StorageActor storage_ = SpawnStorage(kArenaBytes);
};

TEST_F(StorageActorTest, ACommittedObjectIsReadAndMissedInAnotherNamespace) {
  Put(storage_, 1, 5000);
  Answer<Held> found;
  Read(storage_, 1, &found);
  ASSERT_EQ(found.times, 1);
  ASSERT_TRUE(found.value.ok()) << found.value.status();
  EXPECT_EQ(found.value->object->size(), 5000u);
  EXPECT_EQ(found.value->object->bytes()[4999], std::byte{1});
  Answer<Held> missed;
  caf::anon_send(storage_, ReadCall{RefOf(1).key, "other", In(absl::Seconds(1)),
                                    missed.AsReply()});
  Run();
  EXPECT_EQ(missed.times, 1);
  EXPECT_TRUE(absl::IsNotFound(missed.value.status()));
}

// A node that stops must not lose the objects that wait in line behind the few
// that the disk takes at a time.
TEST_F(StorageActorTest, AFlushIsDoneWhenEveryWaitingObjectIsWritten) {
  HeldDisk disk;
  const StorageActor storage = SpawnStorage(kArenaBytes, &disk);
  constexpr int kObjects = 20;
  for (int i = 0; i < kObjects; ++i) Put(storage, i, 4096);
  ASSERT_LT(disk.asked.size(), size_t{kObjects}) << "some wait in line";
  bool flushed = false;
  system_.spawn([&](caf::event_based_actor* self) {
    self->request(storage, caf::infinite, FlushAtom::value).then([&](bool) {
      flushed = true;
    });
  });
  Run();
  for (int written = 0; written < kObjects; ++written) {
    EXPECT_FALSE(flushed) << written;
    ASSERT_FALSE(disk.asked.empty());
    auto done = std::move(disk.asked.front());
    disk.asked.erase(disk.asked.begin());
    done(absl::OkStatus());
    Run();
  }
  EXPECT_TRUE(disk.asked.empty());
  EXPECT_TRUE(flushed);
}

TEST_F(StorageActorTest, AReservationWithoutRoomEndsAtItsDeadlineOnce) {
  Answer<Block> all;
  ReserveAll(&all);
  Answer<Block> late;
  caf::anon_send(
      storage_, ReserveCall{4096, In(absl::Milliseconds(100)), late.AsReply()});
  Advance(absl::Milliseconds(80));
  EXPECT_EQ(late.times, 0);
  Advance(absl::Milliseconds(60));
  EXPECT_EQ(late.times, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(late.value.status()))
      << late.value.status();
  all.value = absl::UnknownError("given back");
  Advance(absl::Milliseconds(60));
  EXPECT_EQ(late.times, 1) << "answered again when there was room";
}

TEST_F(StorageActorTest, AWaitingReservationIsGrantedWhenRoomComesBack) {
  Answer<Block> all;
  ReserveAll(&all);
  Answer<Block> waits;
  caf::anon_send(storage_,
                 ReserveCall{4096, In(absl::Seconds(5)), waits.AsReply()});
  Advance(absl::Milliseconds(40));
  EXPECT_EQ(waits.times, 0);
  all.value = absl::UnknownError("given back");
  Advance(absl::Milliseconds(40));
  EXPECT_EQ(waits.times, 1);
  EXPECT_TRUE(waits.value.ok()) << waits.value.status();
}

TEST_F(StorageActorTest, AReservationLeavesTheLineWhenItsCallerGivesUp) {
  Answer<Block> some;
  caf::anon_send(storage_, ReserveCall{kArenaBytes / 2, In(absl::Seconds(5)),
                                       some.AsReply()});
  Answer<Block> large;
  const auto cancellation = std::make_shared<Cancellation>();
  caf::anon_send(storage_, ReserveCall{kArenaBytes, In(absl::Seconds(5)),
                                       large.AsReply(), cancellation});
  Answer<Block> small;
  caf::anon_send(storage_,
                 ReserveCall{4096, In(absl::Seconds(5)), small.AsReply()});
  Run();
  EXPECT_EQ(large.times, 0);
  EXPECT_EQ(small.times, 0) << "stands behind the large one";
  cancellation->Cancel();
  Run();
  EXPECT_EQ(large.times, 1);
  EXPECT_TRUE(absl::IsCancelled(large.value.status())) << large.value.status();
  EXPECT_TRUE(small.value.ok()) << small.value.status();
  Answer<Block> late;
  caf::anon_send(storage_, ReserveCall{kArenaBytes, In(absl::Seconds(5)),
                                       late.AsReply(), cancellation});
  Run();
  EXPECT_TRUE(absl::IsCancelled(late.value.status())) << late.value.status();
}

TEST_F(StorageActorTest, ADeadSessionLosesItsPins) {
  Put(storage_, 1, 4096);
  ASSERT_TRUE(Lease(LeaseOp::kPin, 1, 11).ok());
  EXPECT_TRUE(held_.Has(RefOf(1).key));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(Lease(LeaseOp::kRemove, 1, /*session=*/22)));
  caf::anon_send(storage_, ReleaseAtom::value, uint64_t{11});
  Run();
  EXPECT_FALSE(held_.Has(RefOf(1).key));
  EXPECT_TRUE(Lease(LeaseOp::kRemove, 1, 22).ok());
}

TEST_F(StorageActorTest, ARemovalIsAnsweredByTheDisk) {
  HeldDisk disk;
  const StorageActor storage = SpawnStorage(kArenaBytes, &disk);
  Put(storage, 1, 4096);
  Put(storage, 2, 4096);
  ASSERT_EQ(disk.asked.size(), 2u);
  for (auto& done : disk.asked) done(absl::OkStatus());
  Run();
  disk.asked.clear();
  std::vector<StatusItem> items;
  caf::scoped_actor self(system_);
  auto asked = self->request(
      storage, caf::infinite, LeaseAtom::value,
      LeaseQuery{static_cast<uint8_t>(LeaseOp::kRemove), "t",
                 PackKeys({RefOf(1).key, RefOf(3).key, RefOf(2).key}), 11, 0});
  Run();
  ASSERT_EQ(disk.asked.size(), 2u);
  disk.asked[0](absl::UnavailableError("broken"));
  Run();
  EXPECT_TRUE(self->mailbox().empty())
      << "one removal has not reached the disk";
  disk.asked[1](absl::OkStatus());
  Run();
  asked.receive([&](const std::vector<StatusItem>& all) { items = all; },
                [&](const caf::error& why) { FAIL() << system_.render(why); });
  ASSERT_EQ(items.size(), 3u);
  EXPECT_TRUE(absl::IsUnavailable(FromWire(items[0]))) << items[0].message;
  EXPECT_TRUE(absl::IsNotFound(FromWire(items[1]))) << items[1].message;
  EXPECT_TRUE(FromWire(items[2]).ok()) << items[2].message;
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
}

TEST_F(StorageActorTest, AnActorThatStopsWithRemovalsOpenSaysSo) {
  HeldDisk disk;
  const StorageActor storage = SpawnStorage(kArenaBytes, &disk);
  Put(storage, 1, 4096);
  caf::scoped_actor self(system_);
  auto asked = self->request(storage, caf::infinite, LeaseAtom::value,
                             LeaseQuery{static_cast<uint8_t>(LeaseOp::kRemove),
                                        "t", PackKeys({RefOf(1).key}), 11, 0});
  Run();
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
  ASSERT_FALSE(self->mailbox().empty()) << "the caller still waits";
  asked.receive([](const std::vector<StatusItem>&) { FAIL() << "not removed"; },
                [](const caf::error&) {});
}

TEST_F(StorageActorTest, ALeaseRunsOut) {
  Put(storage_, 1, 4096);
  ASSERT_TRUE(Lease(LeaseOp::kPin, 1, 11).ok());
  Advance(absl::Seconds(9));
  EXPECT_TRUE(held_.Has(RefOf(1).key));
  Advance(absl::Seconds(3));
  EXPECT_FALSE(held_.Has(RefOf(1).key));
}

TEST_F(StorageActorTest, AnObjectIsHeldNoLongerThanATickBeyondItsLease) {
  Put(storage_, 1, 4096);
  ASSERT_TRUE(Lease(LeaseOp::kPin, 1, 11).ok());
  Advance(absl::Seconds(10) + absl::Milliseconds(20));
  EXPECT_FALSE(held_.Has(RefOf(1).key));
  EXPECT_TRUE(absl::IsNotFound(Lease(LeaseOp::kUnpin, 1, 11)));
}

TEST_F(StorageActorTest, AnObjectOnLoanIsNotEvictedUntilItIsReturned) {
  Put(storage_, 1, kArenaBytes);
  Answer<Held> reader;
  Read(storage_, 1, &reader);
  ASSERT_TRUE(reader.value.ok()) << reader.value.status();
  Answer<Block> waits;
  caf::anon_send(storage_,
                 ReserveCall{4096, In(absl::Seconds(5)), waits.AsReply()});
  Advance(absl::Milliseconds(40));
  EXPECT_EQ(waits.times, 0);
  EXPECT_EQ(reader.value->object->bytes()[kArenaBytes - 1], std::byte{1});
  reader.value = absl::UnknownError("let go");
  Advance(absl::Milliseconds(40));
  EXPECT_EQ(waits.times, 1);
  EXPECT_TRUE(waits.value.ok()) << waits.value.status();
}

TEST_F(StorageActorTest, AWriteThatFailsIsLoggedAndTriedAgain) {
  std::vector<std::string> lines;
  SetLogSink([&](LogSeverity, absl::string_view, absl::string_view message) {
    lines.emplace_back(message);
  });
  HeldDisk disk;
  const StorageActor storage = SpawnStorage(kArenaBytes, &disk);
  Put(storage, 1, 4096);
  ASSERT_EQ(disk.asked.size(), 1u);
  disk.asked[0](absl::UnavailableError("cable pulled"));
  Run();
  EXPECT_EQ(disk.asked.size(), 1u) << "not at once";
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find("cable pulled"), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find(ShortHex(RefOf(1).key)), std::string::npos)
      << lines[0];
  Advance(absl::Seconds(1));
  ASSERT_EQ(disk.asked.size(), 2u);
  disk.asked[1](absl::OkStatus());
  Run();
  caf::anon_send(storage, DiskEviction{RefOf(1).key, ObjectVersion(7)});
  Run();
  EXPECT_EQ(disk.asked.size(), 2u) << "not read since";
  Answer<Held> reader;
  Read(storage, 1, &reader);
  caf::anon_send(storage, DiskEviction{RefOf(1).key, ObjectVersion(7)});
  Run();
  EXPECT_EQ(disk.asked.size(), 3u) << "hot: written again";
  SetLogSink(nullptr);
}

TEST_F(StorageActorTest, UnknownOperationsAreRefusedNotPerformed) {
  Put(storage_, 1, 4096);
  EXPECT_TRUE(absl::IsInvalidArgument(Lease(static_cast<LeaseOp>(9), 1, 11)));
  Answer<Held> found;
  Read(storage_, 1, &found);
  EXPECT_TRUE(found.value.ok());
}

TEST_F(StorageActorTest, AnActorThatStopsAnswersItsOpenRequests) {
  Answer<Block> all;
  ReserveAll(&all);
  Answer<Block> waits;
  caf::anon_send(storage_,
                 ReserveCall{4096, In(absl::Seconds(5)), waits.AsReply()});
  Run();
  caf::anon_send_exit(storage_, caf::exit_reason::user_shutdown);
  Run();
  EXPECT_EQ(waits.times, 1);
  EXPECT_TRUE(absl::IsUnavailable(waits.value.status()));
}

TEST_F(StorageActorTest, ARestoredObjectIsHeldUntilItsTtlRunsOut) {
  HeldDisk disk;
  std::vector<storage::ObjectInfo> restored;
  for (int i = 0; i < 3; ++i) restored.push_back(InfoOf(i, 4096));
  restored[0].expires = clock_.Now() + absl::Seconds(10);
  restored[1].expires = clock_.Now() - absl::Seconds(10);
  // The node sets the holds before the actor begins.
  held_.Set(restored[0].key, true);
  const StorageActor storage = system_.spawn(
      MakeStorageActor,
      StorageActorDeps{*storage::Arena::Create(kArenaBytes), &disk, &held_,
                       &clock_, &meters_, clock_.Now()},
      restored);
  Run();
  EXPECT_TRUE(held_.Has(restored[0].key));
  EXPECT_FALSE(held_.Has(restored[1].key));
  EXPECT_FALSE(held_.Has(restored[2].key));
  EXPECT_EQ(disk.held_changes, 0) << "the disk knows the TTLs";
  Advance(absl::Seconds(12));
  EXPECT_FALSE(held_.Has(restored[0].key));
  EXPECT_EQ(disk.held_changes, 1) << "no longer held";
  Answer<Held> answer;
  Read(storage, 0, &answer);
  EXPECT_EQ(disk.asked.size(), 1u) << "no longer held, but not dropped";
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
}

// The start may take long: a TTL may run out after the disk tier was opened.
TEST_F(StorageActorTest, ATtlThatEndsDuringTheStartHoldsNoLonger) {
  HeldDisk disk;
  storage::ObjectInfo info = InfoOf(0, 4096);
  info.expires = clock_.Now() + absl::Seconds(1);
  held_.Set(info.key, true);
  StorageActorDeps deps{*storage::Arena::Create(kArenaBytes),
                        &disk,
                        &held_,
                        &clock_,
                        &meters_,
                        clock_.Now()};
  clock_.Advance(absl::Seconds(2));
  const StorageActor storage = system_.spawn(
      MakeStorageActor, deps, std::vector<storage::ObjectInfo>{info});
  Run();
  Advance(absl::Milliseconds(40));
  EXPECT_FALSE(held_.Has(info.key));
  EXPECT_EQ(disk.held_changes, 1) << "the disk holds it, too";
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
}

TEST_F(StorageActorTest, TheDiskAmendsAnObjectWhoseTtlALaterStoreExtends) {
  HeldDisk disk;
  const StorageActor storage = SpawnStorage(kArenaBytes, &disk);
  Put(storage, 1, 4096);
  disk.asked[0](absl::OkStatus());
  disk.asked.clear();
  Run();
  ASSERT_TRUE(disk.amended.empty());
  const absl::Time expires = In(absl::Hours(1));
  Put(storage, 1, 4096, expires);
  ASSERT_EQ(disk.amended.size(), 1u);
  EXPECT_EQ(disk.amended[0].key, RefOf(1).key);
  EXPECT_EQ(disk.amended[0].expires, expires);
  bool flushed = false;
  system_.spawn([&](caf::event_based_actor* self) {
    self->request(storage, caf::infinite, FlushAtom::value).then([&](bool) {
      flushed = true;
    });
  });
  Run();
  EXPECT_FALSE(flushed) << "the node stops, and the TTL is not on disk";
  disk.asked[0](absl::OkStatus());
  disk.asked.clear();
  Run();
  EXPECT_TRUE(flushed);
  EXPECT_EQ(disk.amended.size(), 1u);
}

TEST_F(StorageActorTest, ALaterTtlSurvivesARestart) {
  const std::string directory = testing::TempDir() + "/kdn-actors-ttl";
  const storage::DiskTier::Options options = EmptyDisk(directory);
  auto disk = storage::DiskTier::Open(options);
  ASSERT_TRUE(disk.ok()) << disk.status();
  const StorageActor storage = SpawnStorage(kArenaBytes, disk->get());
  const absl::Time expires = In(absl::Hours(1));
  for (const absl::Time time : {absl::InfinitePast(), expires}) {
    Put(storage, 1, 64000, time);
    ASSERT_TRUE((*disk)->Flush().ok());
    Run();
  }
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
  disk->reset();
  disk = storage::DiskTier::Open(options);
  ASSERT_TRUE(disk.ok()) << disk.status();
  int seen = 0;
  ASSERT_TRUE((*disk)
                  ->ForEach([&](const storage::ObjectInfo& info) {
                    ++seen;
                    EXPECT_EQ(info.expires, expires);
                  })
                  .ok());
  EXPECT_EQ(seen, 1);
  disk->reset();
  std::filesystem::remove_all(directory);
}

// The disk tier has real threads here. Flush waits for them.
TEST_F(StorageActorTest, AnEvictedObjectComesBackFromDisk) {
  const std::string directory = testing::TempDir() + "/kdn-actors-disk";
  const storage::DiskTier::Options options = EmptyDisk(directory);
  auto disk = storage::DiskTier::Open(options);
  ASSERT_TRUE(disk.ok()) << disk.status();
  const StorageActor storage = SpawnStorage(kArenaBytes, disk->get());
  for (int i = 0; i < 8; ++i) {  // twice what memory holds
    Put(storage, i, 64000);
    ASSERT_TRUE((*disk)->Flush().ok());
    Run();
  }
  Answer<Held> first;
  Read(storage, 0, &first);
  EXPECT_EQ(first.times, 0) << "it is on disk";
  ASSERT_TRUE((*disk)->Flush().ok());
  Run();
  ASSERT_EQ(first.times, 1);
  ASSERT_TRUE(first.value.ok()) << first.value.status();
  EXPECT_EQ(first.value->info.tier, Tier::kDisk);
  EXPECT_EQ(first.value->object->bytes()[63999], std::byte{0});
  caf::anon_send_exit(storage, caf::exit_reason::user_shutdown);
  Run();
  disk->reset();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace kdn::actors
