#include "storage/disk_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "storage/eviction_s3fifo.h"
#include "storage/record.h"

namespace kdn::storage {
namespace {

constexpr uint64_t kPage = kRecordPage;
constexpr uint64_t kSegmentPages = 16;
constexpr uint64_t kSegments = 8;

// A segment log without a disk: it performs the decisions of the policy and
// keeps a list of its own of all objects and their places.
template <typename Policy>
class Driver {
 public:
  using Job = typename Policy::Job;
  using Purpose = typename Policy::Purpose;
  using Kind = typename Policy::Placement::Kind;

  struct Object {
    RecordPlace place;
    uint64_t bytes = 0;
    bool held = false;
  };

  explicit Driver(double clean_below_live = 0.5)
      : policy(Options(clean_below_live)) {}

  static typename Policy::Options Options(double clean_below_live) {
    typename Policy::Options options;
    options.capacity_bytes = kSegments * kSegmentPages * kPage;
    options.segment_bytes = kSegmentPages * kPage;
    options.clean_below_live = clean_below_live;
    return options;
  }

  // The place of a new record. Nullopt: the policy refuses the record.
  std::optional<RecordPlace> Place(uint64_t bytes, Purpose purpose) {
    for (;;) {
      const auto placement = policy.Place(bytes, purpose);
      if (placement.kind == Kind::kPlaced) {
        ends[placement.place.segment] += bytes;
        return placement.place;
      }
      if (placement.kind == Kind::kRollOver) {
        ends[next_segment] = 0;
        policy.OnOpened(next_segment++);
        continue;
      }
      if (placement.kind == Kind::kTooLarge || purpose != Purpose::kObject) {
        return std::nullopt;
      }
      while (!policy.MarkForEviction(bytes)) {
      }
      const std::optional<Job> job = policy.NextEviction();
      if (!job || !Perform(*job)) return std::nullopt;
    }
  }

  // At the start: a segment with four objects. Their numbers begin at 100 times
  // the segment's number. The first `held` objects are held.
  void AddFullSegment(uint32_t segment, int held) {
    policy.AddSegment(segment, kSegmentPages * kPage);
    policy.OnTombstonesCounted(segment, 0, /*all=*/true);
    ends[segment] = kSegmentPages * kPage;
    next_segment = segment + 1;
    for (int i = 0; i < 4; ++i) {
      const Object object{
          {segment, static_cast<uint64_t>(4 * i) * kPage}, 4 * kPage, i < held};
      const int id = static_cast<int>(segment) * 100 + i;
      policy.OnLive(
          {object.place, object.bytes, static_cast<uint64_t>(id), object.held});
      objects[id] = object;
    }
    limit_for_moves = std::max(
        limit_for_moves, policy.totals().segment_bytes + kSegmentPages * kPage);
  }

  bool Append(int id, uint64_t pages, bool held = false) {
    const std::optional<RecordPlace> place =
        Place(pages * kPage, Purpose::kObject);
    if (!place) return false;
    if (objects.contains(id)) policy.OnDead(objects[id].place);
    policy.OnLive({*place, pages * kPage, static_cast<uint64_t>(id), held});
    policy.OnWritten(*place);
    objects[id] = {*place, pages * kPage, held};
    Check();
    EXPECT_LE(policy.totals().segment_bytes + policy.reserve_bytes(),
              kSegments * kSegmentPages * kPage);
    return true;
  }

  // Two records are placed, and their writers fail in this order.
  void FailToWrite(uint64_t pages) {
    const std::optional<RecordPlace> first =
        Place(pages * kPage, Purpose::kObject);
    if (!first) return;
    const std::optional<RecordPlace> second = Place(kPage, Purpose::kTombstone);
    policy.OnWriteFailed(*first, pages * kPage);
    policy.OnWriteFailed(*second, kPage);
    ends[second->segment] -= kPage;
    ends[first->segment] = first->offset;
    Check();
  }

  void Remove(int id) {
    WriteTombstone();
    policy.OnDead(objects[id].place);
    objects.erase(id);
    Check();
  }

  // Removes the object without a tombstone, as a newer version of it does.
  void Replace(int id) {
    policy.OnDead(objects[id].place);
    objects.erase(id);
  }

  void WriteTombstone() {
    const std::optional<RecordPlace> place = Place(kPage, Purpose::kTombstone);
    ASSERT_TRUE(place.has_value()) << "a removal is never refused";
    policy.OnTombstone(*place, kPage);
    policy.OnWritten(*place);
    ++tombstones[place->segment];
  }

  void Hold(int id, bool held) {
    policy.OnHeld(objects[id].place, held);
    objects[id].held = held;
  }

  // Empties the job's segment. False: the disk failed at the kept record with
  // the number `fails_at`.
  bool Perform(const Job& job) {
    EXPECT_NE(job.segment, policy.open_segment());
    if (policy.KeepsTombstones(job.segment)) {
      for (int i = 0; i < tombstones[job.segment]; ++i) WriteTombstone();
      policy.OnTombstonesKept(job.segment);
    }
    int at = 0;
    for (const PlacedRecord& record : policy.LiveIn(job.segment)) {
      if (!policy.Keeps(record.place)) continue;
      if ((fails_at >= 0 && at++ == fails_at) || !Move(record)) {
        policy.OnEmptyFailed();
        ++failures;
        return false;
      }
    }
    for (const PlacedRecord& record : policy.LiveIn(job.segment)) {
      const auto object = ObjectAt(record.place);
      EXPECT_FALSE(object->second.held) << "a held record is lost";
      policy.OnEvicted(record.place);
      objects.erase(object);
      ++evicted;
    }
    tombstones.erase(job.segment);
    policy.OnEmptied();
    ends.erase(job.segment);
    emptied.push_back(job.segment);
    Check();
    return true;
  }

  bool Move(const PlacedRecord& record) {
    const std::optional<RecordPlace> to = Place(record.bytes, Purpose::kMove);
    if (!to) {
      EXPECT_GT(failures, 0) << "the reserve does not suffice";
      return false;
    }
    policy.OnMoved(record.place, *to);
    policy.OnWritten(*to);
    ObjectAt(record.place)->second.place = *to;
    ++moved;
    return true;
  }

  auto ObjectAt(RecordPlace place) {
    const auto object = std::find_if(
        objects.begin(), objects.end(),
        [place](const auto& o) { return o.second.place == place; });
    EXPECT_NE(object, objects.end()) << "the policy invents a record";
    return object;
  }

  void Clean() {
    while (const std::optional<Job> job = policy.NextCleaning()) {
      if (!Perform(*job)) return;
    }
  }

  void Check() {
    policy.CheckInvariants();
    const auto totals = policy.totals();
    uint64_t live = 0, total = 0;
    for (const auto& [id, object] : objects) live += object.bytes;
    for (const auto& [segment, end] : ends) total += end;
    EXPECT_EQ(totals.live_bytes, live);
    EXPECT_EQ(totals.objects, objects.size());
    EXPECT_EQ(totals.segment_bytes, total);
    EXPECT_LE(totals.segment_bytes - totals.tombstone_bytes, limit_for_moves);
  }

  // Whether some segment has bytes that an eviction could free: neither held
  // records nor tombstones to keep.
  bool SomethingMayGo() const {
    std::map<uint32_t, uint64_t> kept;
    for (const auto& [id, object] : objects) {
      if (object.held) kept[object.place.segment] += object.bytes;
    }
    for (const auto& [segment, count] : tombstones) {
      if (segment != ends.begin()->first) {
        kept[segment] += static_cast<uint64_t>(count) * kPage;
      }
    }
    return std::any_of(ends.begin(), ends.end(), [&](const auto& segment) {
      const auto found = kept.find(segment.first);
      return segment.second > (found == kept.end() ? 0 : found->second);
    });
  }

  Policy policy;
  std::map<int, Object> objects;
  std::map<uint32_t, uint64_t> ends;
  std::map<uint32_t, int> tombstones;
  std::vector<uint32_t> emptied;
  uint32_t next_segment = 1;
  uint64_t limit_for_moves = kSegments * kSegmentPages * kPage;
  int fails_at = -1;
  int failures = 0;
  int evicted = 0;
  int moved = 0;
};

template <typename Policy>
class DiskPolicyTest : public testing::Test {};
using Policies =
    testing::Types<BasicDiskPolicy<LruPolicy>, BasicDiskPolicy<S3FifoPolicy>>;
TYPED_TEST_SUITE(DiskPolicyTest, Policies);

TYPED_TEST(DiskPolicyTest, AHeldRecordInEachSegmentStopsNoWrite) {
  Driver<TypeParam> log;
  for (int i = 0; i < 1000; ++i) {
    const bool held = i < 28 && i % 4 == 0;  // one in each of seven segments
    ASSERT_TRUE(log.Append(i, 4, held)) << i;
  }
  for (int i = 0; i < 28; i += 4) EXPECT_TRUE(log.objects.contains(i)) << i;
}

// The capacity was larger when the segments were written, or the build that
// wrote them kept no reserve.
TYPED_TEST(DiskPolicyTest, SegmentsThatLeaveNoReserveStopNoWrite) {
  for (const uint64_t segments : {kSegments, 3 * kSegments}) {
    SCOPED_TRACE(segments);
    Driver<TypeParam> log;
    for (uint32_t segment = 1; segment <= segments; ++segment) {
      log.AddFullSegment(segment, /*held=*/1);
    }
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(log.Append(10000 + i, 4)) << i;
    for (uint32_t segment = 1; segment <= segments; ++segment) {
      EXPECT_TRUE(log.objects.contains(static_cast<int>(segment) * 100));
    }
  }
}

TYPED_TEST(DiskPolicyTest, RefusesWhenAllIsHeldUntilSomeIsReleased) {
  Driver<TypeParam> log;
  int id = 0;
  while (log.Append(id, 4, true)) ++id;
  EXPECT_EQ(id, static_cast<int>((kSegments - 1) * kSegmentPages / 4));
  EXPECT_FALSE(log.SomethingMayGo());
  log.Hold(9, false);
  EXPECT_TRUE(log.Append(1000, 4));
  EXPECT_FALSE(log.objects.contains(9));
  EXPECT_FALSE(log.Append(1001, 4, true) && log.Append(1002, 4, true));
}

TYPED_TEST(DiskPolicyTest, HotRecordsAreMovedAndColdRecordsAreEvicted) {
  Driver<TypeParam> log;
  const std::vector<int> hot = {0, 4, 8, 12, 16, 20, 24};  // one in a segment
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(log.Append(i, 4));
    for (const int id : hot) {
      if (id > i) continue;
      ASSERT_TRUE(log.objects.contains(id)) << id << " at " << i;
      for (int reads = 0; reads < 3; ++reads) {
        log.policy.OnAccess(log.objects[id].place);
      }
    }
  }
  EXPECT_GT(log.evicted, 300);
  EXPECT_GT(log.moved, 0);
  EXPECT_LT(log.moved, 200) << "cold records are not moved";
}

TYPED_TEST(DiskPolicyTest, WithoutReadsTheOldestSegmentGoesAndNothingMoves) {
  Driver<TypeParam> log;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(log.Append(i, 4));
  EXPECT_EQ(log.moved, 0);
  EXPECT_TRUE(std::is_sorted(log.emptied.begin(), log.emptied.end()));
}

TYPED_TEST(DiskPolicyTest, ManyHeldRecordsDoNotMakeHotRecordsGo) {
  constexpr uint64_t kHeld = 5000;
  constexpr uint64_t kOthers = 200;  // in each of two segments
  typename TypeParam::Options options;
  options.segment_bytes = kHeld * kPage;
  options.capacity_bytes = 4 * options.segment_bytes;
  TypeParam policy(options);
  policy.AddSegment(1, kHeld * kPage);
  policy.AddSegment(2, kOthers * kPage);
  policy.AddSegment(3, kOthers * kPage);
  uint64_t hash = 0;
  const auto add = [&](uint32_t segment, uint64_t records, bool held) {
    for (uint64_t i = 0; i < records; ++i) {
      policy.OnLive({{segment, i * kPage}, kPage, ++hash, held});
    }
  };
  add(1, kHeld, true);
  add(2, kOthers, false);
  add(3, kOthers, false);
  for (uint64_t i = 0; i < 3 * kOthers; ++i) {
    policy.OnAccess({2, i % kOthers * kPage});
  }
  int calls = 1;
  while (!policy.MarkForEviction(kPage)) ++calls;
  EXPECT_LT(calls, 10);
  const auto job = policy.NextEviction();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->segment, 3u);
  EXPECT_FALSE(job->drop_hot);
}

TYPED_TEST(DiskPolicyTest, CleansTheEmptiestSegmentFirst) {
  Driver<TypeParam> log;
  for (int i = 0; i < 13; ++i) ASSERT_TRUE(log.Append(i, 4));
  for (const int i : {0, 1, 2, 4, 5, 6, 7}) log.Replace(i);
  log.Clean();
  ASSERT_EQ(log.emptied.size(), 2u);
  EXPECT_EQ(log.emptied[0], 2u) << "the second segment has no live record";
  EXPECT_EQ(log.emptied[1], 1u);
  EXPECT_EQ(log.moved, 1);
}

TYPED_TEST(DiskPolicyTest,
           AFailedSegmentIsPassedOverUntilAFreshSegmentIsOpened) {
  Driver<TypeParam> log;
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(log.Append(i, 4));
  for (const int i : {0, 1, 2}) log.Replace(i);
  log.fails_at = 0;
  log.Clean();
  log.Clean();
  EXPECT_EQ(log.failures, 1) << "not tried again";
  log.fails_at = -1;
  log.Clean();
  EXPECT_TRUE(log.emptied.empty());
  for (int i = 10; i < 14; ++i) ASSERT_TRUE(log.Append(i, 4));
  log.Clean();
  EXPECT_EQ(log.emptied, std::vector<uint32_t>{1});
}

TYPED_TEST(DiskPolicyTest, AFailureWithNothingToMoveIsNotTriedForEver) {
  Driver<TypeParam> log;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(log.Append(i, 4));
  for (int i = 0; i < 4; ++i) log.Replace(i);
  ASSERT_TRUE(log.policy.NextCleaning().has_value());
  log.policy.OnEmptyFailed();
  EXPECT_FALSE(log.policy.NextCleaning().has_value());
}

TYPED_TEST(DiskPolicyTest, AFullTierTriesItsFailedSegmentsAgain) {
  Driver<TypeParam> log;
  for (int i = 0; i < 28; ++i) ASSERT_TRUE(log.Append(i, 4, i % 4 == 0));
  log.fails_at = 0;
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(log.Append(100, 4)) << i;
  EXPECT_EQ(log.evicted, 0) << "by an append that fails";
  log.fails_at = -1;
  EXPECT_TRUE(log.Append(100, 4) || log.Append(100, 4))
      << "the disk has recovered";
}

TYPED_TEST(DiskPolicyTest, FailedWritesGiveTheirRoomBack) {
  using Purpose = typename TypeParam::Purpose;
  const std::vector<std::vector<size_t>> orders = {
      {0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {1, 0, 2}};
  for (const std::vector<size_t>& order : orders) {
    Driver<TypeParam> log;
    ASSERT_TRUE(log.Append(0, 4));
    const uint64_t before = log.policy.totals().segment_bytes;
    std::vector<RecordPlace> places;
    for (int i = 0; i < 3; ++i) {
      places.push_back(*log.Place(4 * kPage, Purpose::kObject));
    }
    for (const size_t i : order) {
      log.policy.OnWriteFailed(places[i], 4 * kPage);
      log.policy.CheckInvariants();
    }
    EXPECT_EQ(log.policy.totals().segment_bytes, before);
    log.ends[1] = before;
    EXPECT_TRUE(log.Append(1, 4));
  }
}

TYPED_TEST(DiskPolicyTest, AFailedWriteBeforeOthersStaysDead) {
  using Purpose = typename TypeParam::Purpose;
  Driver<TypeParam> log;
  const RecordPlace failed = *log.Place(4 * kPage, Purpose::kObject);
  ASSERT_TRUE(log.Append(0, 4));
  log.policy.OnWriteFailed(failed, 4 * kPage);
  log.Check();
  EXPECT_EQ(log.policy.totals().segment_bytes, 8 * kPage);
  EXPECT_EQ(log.policy.totals().live_bytes, 4 * kPage);
}

TYPED_TEST(DiskPolicyTest, TombstonesAreKeptOnceIfTheirSegmentFails) {
  Driver<TypeParam> log;
  for (int i = 0; i < 7; ++i) ASSERT_TRUE(log.Append(i, 4));
  for (const int i : {4, 5}) log.Remove(i);
  ASSERT_TRUE(log.Append(7, 4));  // opens the third segment
  log.Replace(7);
  log.fails_at = 0;
  for (int i = 0; i < 3; ++i) log.Clean();
  EXPECT_GT(log.failures, 0);
  EXPECT_EQ(log.policy.totals().tombstone_bytes, 4 * kPage);
  EXPECT_FALSE(log.policy.KeepsTombstones(2));
}

TYPED_TEST(DiskPolicyTest, TombstonesGoWithTheOldestSegments) {
  Driver<TypeParam> log(/*clean_below_live=*/0);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(log.Append(i, 4));
  for (int i = 0; i < 10; ++i) log.Remove(i);
  EXPECT_EQ(log.policy.totals().tombstone_bytes, 10 * kPage);
  for (int i = 20; i < 24; ++i) ASSERT_TRUE(log.Append(i, 4));
  log.Clean();
  EXPECT_LE(log.policy.totals().tombstone_bytes, kSegmentPages / 4 * kPage);
  for (int i = 10; i < 24; ++i) EXPECT_TRUE(log.objects.contains(i));
}

TYPED_TEST(DiskPolicyTest, TombstonesOfAnEarlierRunCountOnceTheyAreCounted) {
  typename TypeParam::Options options =
      Driver<TypeParam>::Options(/*clean_below_live=*/0.5);
  TypeParam policy(options);
  policy.AddSegment(3, 8 * kPage);
  policy.AddSegment(7, 8 * kPage);
  for (const uint32_t segment : {3u, 7u}) {
    policy.OnLive({{segment, 0}, 3 * kPage, segment, false});
  }
  EXPECT_TRUE(policy.KeepsTombstones(7)) << "not counted yet";
  EXPECT_EQ(policy.NextToCount(), 3u);
  policy.OnTombstonesCounted(3, 0, /*all=*/true);
  EXPECT_EQ(policy.NextToCount(), 7u);
  policy.OnTombstonesCounted(7, 5 * kPage, /*all=*/true);
  EXPECT_EQ(policy.NextToCount(), std::nullopt);
  EXPECT_EQ(policy.totals().tombstone_bytes, 5 * kPage);
  EXPECT_FALSE(policy.KeepsTombstones(3)) << "the oldest";
  EXPECT_TRUE(policy.KeepsTombstones(7));
  const auto job = policy.NextCleaning();
  ASSERT_TRUE(job.has_value());
  EXPECT_EQ(job->segment, 3u)
      << "the tombstones of segment 7 would be written again";
}

TYPED_TEST(DiskPolicyTest, ACountOfTombstonesMayEndAfterItsSegmentIsDeleted) {
  TypeParam policy(Driver<TypeParam>::Options(/*clean_below_live=*/0.5));
  policy.AddSegment(1, 2 * kPage);
  policy.AddSegment(2, 2 * kPage);
  EXPECT_EQ(policy.NextCleaning(), std::nullopt) << "nothing is counted yet";
  ASSERT_EQ(policy.NextToCount(), 1u);
  const auto job = policy.NextEviction();
  ASSERT_TRUE(job.has_value());
  ASSERT_EQ(job->segment, 1u);
  policy.OnEmptied();
  policy.OnTombstonesCounted(1, kPage, /*all=*/true);
  EXPECT_EQ(policy.totals().tombstone_bytes, 0u);
  EXPECT_EQ(policy.NextToCount(), 2u);
  policy.CheckInvariants();
}

TYPED_TEST(DiskPolicyTest, AFullFileSystemLimitsTheCapacityWhileItIsFull) {
  Driver<TypeParam> log;
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(log.Append(i, 4));
  log.policy.OnFileSystemFull();
  EXPECT_FALSE(log.policy.HasRoom(4 * kPage));
  ASSERT_TRUE(log.Append(100, 4));
  EXPECT_GT(log.evicted, 3) << "the reserve is freed too";
  EXPECT_LE(log.policy.totals().segment_bytes + log.policy.reserve_bytes(),
            12 * 4 * kPage);
  log.policy.OnFileSystemRoom(1u << 30);
  const int evicted = log.evicted;
  ASSERT_TRUE(log.Append(101, 4));
  EXPECT_EQ(log.evicted, evicted);
}

TYPED_TEST(DiskPolicyTest, SegmentsFitAFileSystemThatIsSmallerThanTheCapacity) {
  Driver<TypeParam> log;
  log.policy.OnFileSystemRoom(kSegmentPages * kPage);
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(log.Append(i, 2, i == 0)) << i;
    ASSERT_LE(log.policy.totals().segment_bytes, kSegmentPages * kPage);
  }
  EXPECT_TRUE(log.objects.contains(0));
  EXPECT_GE(log.objects.size(), 5u) << "a quarter stays free";
  EXPECT_FALSE(log.Append(99, kSegmentPages)) << "too large";
  EXPECT_GE(log.objects.size(), 5u) << "no object is evicted for it";
}

TYPED_TEST(DiskPolicyTest, ARecordLargerThanASegmentGetsASegmentOfItsOwn) {
  Driver<TypeParam> log;
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(log.Append(i, kSegmentPages + 10, i == 0));
  }
  EXPECT_TRUE(log.objects.contains(0));
  EXPECT_FALSE(log.Append(99, kSegments * kSegmentPages));
}

// Random events. The policy is compared with the driver's own list.
TYPED_TEST(DiskPolicyTest, RandomEventsKeepHeldRecordsAndTheCapacity) {
  for (const uint32_t seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    Driver<TypeParam> log;
    const bool failing = seed % 3 == 0;
    // Half of the tiers have more segments at the start than the capacity.
    for (uint32_t segment = 1; segment <= 12 && seed % 2 == 0; ++segment) {
      log.AddFullSegment(segment, static_cast<int>(random() % 4));
    }
    const auto some = [&]() {
      return std::next(log.objects.begin(),
                       static_cast<long>(random() % log.objects.size()))
          ->first;
    };
    for (int step = 0; step < 3000; ++step) {
      const uint32_t what = random() % 100;
      log.fails_at = failing && random() % 8 == 0 ? 0 : -1;
      if (what < 50 || log.objects.empty()) {
        const int id = static_cast<int>(random() % 200);
        const bool held = random() % 6 == 0;
        if (!log.Append(id, 2 + random() % 8, held) && !failing) {
          EXPECT_FALSE(log.SomethingMayGo()) << "refused for no reason";
        }
      } else if (what < 55) {
        log.FailToWrite(1 + random() % 8);
      } else if (what < 60) {
        log.Remove(some());
      } else if (what < 70) {
        log.Hold(some(), random() % 3 == 0);
      } else if (what < 95) {
        log.policy.OnAccess(log.objects[some()].place);
      } else {
        log.Clean();
      }
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(log.evicted, 50);
    EXPECT_GT(log.moved, 10);
  }
}

}  // namespace
}  // namespace kdn::storage
