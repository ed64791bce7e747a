#include "rpc/event_loop.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numeric>

#include "absl/synchronization/notification.h"
#include "rpc/gateway/scratch_pool.h"
#include "rpc/listener.h"

namespace kdn::rpc {
namespace {

TEST(EventLoopTest, TasksOfEachThreadRunInOrder) {
  EventLoop loop;
  std::vector<std::vector<int>> seen(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        EXPECT_TRUE(loop.Post([&, t, i] { seen[t].push_back(i); }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  loop.Run([] {});
  std::vector<int> all(500);
  std::iota(all.begin(), all.end(), 0);
  for (const auto& one : seen) EXPECT_EQ(one, all);
}

TEST(EventLoopTest, AnswersArriveOnTheLoop) {
  EventLoop loop;
  absl::StatusOr<int> got = absl::UnknownError("none");
  std::thread answering;
  loop.RunAsync([&] {
    auto expected = loop.Expect<absl::StatusOr<int>>();
    answering =
        std::thread([done = std::move(expected.done)]() mutable { done(42); });
    return expected.promise.then(
        [&](absl::StatusOr<int> value) { got = std::move(value); });
  });
  answering.join();
  EXPECT_EQ(*got, 42);
  EXPECT_EQ(loop.expected(), 0u);
}

TEST(EventLoopTest, DroppedQuestionIsUnavailable) {
  EventLoop loop;
  absl::Status got;
  loop.RunAsync([&] {
    auto expected = loop.Expect<absl::Status>();
    expected.done = nullptr;
    return ByDeadline(loop, kj::mv(expected.promise),
                      EventLoop::Now() + 10 * kj::SECONDS, "asking")
        .then([&](absl::Status status) { got = std::move(status); });
  });
  EXPECT_TRUE(absl::IsUnavailable(got)) << got;
}

TEST(EventLoopTest, WhatIsLentIsKeptUntilTheAnswerEvenWhenNobodyWaits) {
  EventLoop loop;
  absl::AnyInvocable<void(absl::Status)> done;
  auto kept = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = kept;
  absl::Status got;
  loop.RunAsync([&] {
    auto expected = loop.Expect<absl::Status>(std::move(kept), /*lent=*/true);
    done = std::move(expected.done);
    return ByDeadline(loop, kj::mv(expected.promise),
                      EventLoop::Now() + 5 * kj::MILLISECONDS, "asking")
        .then([&](absl::Status status) { got = std::move(status); });
  });
  EXPECT_TRUE(absl::IsDeadlineExceeded(got)) << got;
  EXPECT_FALSE(watch.expired());
  std::thread late([&] { done(absl::OkStatus()); });
  loop.RunAsync([&] { return loop.WhenNothingLent(); });
  late.join();
  EXPECT_TRUE(watch.expired());
}

TEST(EventLoopTest, AnswerAfterTheLoopIsGoneIsDropped) {
  absl::AnyInvocable<void(absl::Status)> done;
  {
    EventLoop loop;
    loop.Run([&] { done = loop.Expect<absl::Status>().done; });
  }
  done(absl::OkStatus());
}

TEST(ScratchPoolTest, WaitersAreServedInOrder) {
  EventLoop loop;
  std::shared_ptr<ScratchPool> pool;
  std::shared_ptr<Scratch> first;
  std::vector<int> order;
  loop.RunAsync([&] {
    pool = ScratchPool::Create(loop, 100);
    return pool->Acquire(80).then(
        [&](absl::StatusOr<std::shared_ptr<Scratch>> got) {
          first = *std::move(got);
        });
  });
  EXPECT_EQ(pool->used(), 80u);
  absl::Notification both;
  kj::Own<kj::Promise<void>> second, third;
  loop.Run([&] {
    auto wait = [&](size_t bytes, int name) {
      return kj::heap(
          pool->Acquire(bytes)
              .then([&, name](absl::StatusOr<std::shared_ptr<Scratch>> got) {
                EXPECT_TRUE(got.ok());
                order.push_back(name);
                if (order.size() == 2) both.Notify();
              })
              .eagerlyEvaluate(nullptr));
    };
    second = wait(90, 2);
    third = wait(10, 3);  // would fit, but it is not its turn
  });
  EXPECT_TRUE(order.empty());
  first = nullptr;  // given back on this thread
  both.WaitForNotification();
  EXPECT_EQ(order, std::vector<int>({2, 3}));
  loop.RunAsync([&] {
    return pool->Acquire(101).then(
        [](absl::StatusOr<std::shared_ptr<Scratch>> got) {
          EXPECT_TRUE(absl::IsResourceExhausted(got.status()));
        });
  });
  loop.Run([&] {
    second = nullptr;
    third = nullptr;
  });
}

TEST(ListenerTest, SocketFileIsPrivateAndAStaleOneIsReplaced) {
  char name[] = "/tmp/kdn-listener-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string path = std::string(name) + "/s";
  absl::StatusOr<int> first = ListenUnix(path);
  ASSERT_TRUE(first.ok()) << first.status();
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_TRUE(absl::IsAlreadyExists(ListenUnix(path).status()));
  close(*first);  // the file stays, as after kill -9
  absl::StatusOr<int> second = ListenUnix(path);
  EXPECT_TRUE(second.ok()) << second.status();
  close(*second);
  unlink(path.c_str());
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  EXPECT_TRUE(absl::IsAlreadyExists(ListenUnix(path).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      ListenUnix(std::string(name) + "/none/s").status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(ListenUnix(std::string(200, 'x')).status()));
  rmdir(path.c_str());
  rmdir(name);
}

TEST(ListenerTest, AddressesThatAreNotOursAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(ListenTcp("203.0.113.7", 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ListenTcp("no such host", 0).status()));
}

}  // namespace
}  // namespace kdn::rpc
