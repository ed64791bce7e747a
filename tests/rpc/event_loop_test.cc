#include "rpc/event_loop.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <numeric>

#include "absl/synchronization/notification.h"
#include "rpc/gateway/scratch_pool.h"
#include "rpc/listener.h"
#include "tests/rpc/gateway/fixture.h"

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
  for (const auto& tasks : seen) EXPECT_EQ(tasks, all);
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

TEST(EventLoopTest, DroppedCallbackIsUnavailable) {
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

TEST(EventLoopTest, LentMemoryIsKeptUntilTheAnswerEvenWhenNobodyWaits) {
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

class ScratchPoolTest : public testing::Test {
 protected:
  using Got = absl::StatusOr<std::shared_ptr<Scratch>>;
  ScratchPoolTest() {
    loop_.Run([&] { pool_ = ScratchPool::Create(loop_, 100); });
  }
  ~ScratchPoolTest() noexcept override {
    loop_.Run([&] { waits_.clear(); });
  }

  std::shared_ptr<Scratch> Take(size_t bytes) {
    std::shared_ptr<Scratch> scratch;
    loop_.RunAsync([&] {
      return pool_->Acquire(bytes, RequesterId(1)).then([&](Got got) {
        scratch = *std::move(got);
      });
    });
    return scratch;
  }
  // Requests scratch. When the request is granted, adds `name` to order_ and
  // gives the scratch back. `of`: the number of grants that the test expects.
  void Wait(size_t bytes, int name, uint64_t requester, int of) {
    loop_.Run([&] {
      waits_.push_back(kj::heap(pool_->Acquire(bytes, RequesterId(requester))
                                    .then([this, name, of](Got got) {
                                      EXPECT_TRUE(got.ok()) << got.status();
                                      order_.push_back(name);
                                      if (static_cast<int>(order_.size()) == of)
                                        all_.Notify();
                                    })
                                    .eagerlyEvaluate(nullptr)));
    });
  }

  EventLoop loop_;
  std::shared_ptr<ScratchPool> pool_;
  std::vector<kj::Own<kj::Promise<void>>> waits_;  // loop thread only
  std::vector<int> order_;
  absl::Notification all_;
};

TEST_F(ScratchPoolTest, WaitersAreServedInOrder) {
  std::shared_ptr<Scratch> first = Take(80);
  EXPECT_EQ(pool_->used(), 80u);
  Wait(90, 2, /*requester=*/1, /*of=*/2);
  Wait(10, 3, /*requester=*/1, /*of=*/2);  // fits, but has to wait
  EXPECT_TRUE(order_.empty());
  first = nullptr;  // given back on this thread
  all_.WaitForNotification();
  EXPECT_EQ(order_, std::vector<int>({2, 3}));
  loop_.RunAsync([&] {
    return pool_->Acquire(101, RequesterId(1)).then([](Got got) {
      EXPECT_TRUE(absl::IsResourceExhausted(got.status()));
    });
  });
}

TEST_F(ScratchPoolTest, RequestersTakeTurns) {
  std::shared_ptr<Scratch> first = Take(100);
  for (int i = 0; i < 5; ++i) Wait(100, i, /*requester=*/1, /*of=*/6);
  Wait(1, 9, /*requester=*/2, /*of=*/6);
  first = nullptr;
  all_.WaitForNotification();
  EXPECT_EQ(order_, std::vector<int>({0, 9, 1, 2, 3, 4}));
}

TEST_F(ScratchPoolTest, AWithdrawnRequestLetsTheNextOneIn) {
  const std::shared_ptr<Scratch> first = Take(80);
  Wait(90, 2, /*requester=*/1, /*of=*/1);
  Wait(20, 3, /*requester=*/1, /*of=*/1);
  loop_.Run([&] { waits_.erase(waits_.begin()); });
  all_.WaitForNotification();
  EXPECT_EQ(order_, std::vector<int>{3});
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

// While it lives, the process has no free file descriptor.
class NoDescriptorLeft {
 public:
  NoDescriptorLeft() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest_free = dup(0);
    close(lowest_free);
    rlimit none = before_;
    none.rlim_cur = static_cast<rlim_t>(lowest_free);
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptorLeft() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

// True once the peer has closed the connection; false when it sends a byte, or
// does nothing for 10 s.
bool HungUp(int fd) {
  pollfd waiting{fd, POLLIN, 0};
  char byte;
  return poll(&waiting, 1, 10000) == 1 && recv(fd, &byte, 1, 0) <= 0;
}

TEST(ListenerTest, AcceptingGoesOnAfterDescriptorsHaveRunOut) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer opens descriptors to look at objects";
#endif
  EventLoop loop;
  const int listening = *ListenTcp("127.0.0.1", 0);
  sockaddr_in at{};
  socklen_t length = sizeof(at);
  ASSERT_EQ(getsockname(listening, reinterpret_cast<sockaddr*>(&at), &length),
            0);
  std::atomic<int> accepted{0};
  kj::Own<kj::Promise<void>> accepting;
  std::vector<kj::Own<kj::AsyncIoStream>> streams;
  loop.Run([&] {
    accepting = kj::heap(
        AcceptAll(loop, listening, [&](kj::Own<kj::AsyncIoStream> stream) {
          streams.push_back(kj::mv(stream));
          ++accepted;
        }).eagerlyEvaluate(nullptr));
  });
  const auto dial = [&](int fd) {
    return connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at));
  };
  const int refused = socket(AF_INET, SOCK_STREAM, 0);
  const int served = socket(AF_INET, SOCK_STREAM, 0);
  {
    const NoDescriptorLeft none;
    ASSERT_EQ(dial(refused), 0);
    EXPECT_TRUE(HungUp(refused)) << "a client waits in vain";
  }
  EXPECT_EQ(accepted, 0);
  ASSERT_EQ(dial(served), 0);
  EXPECT_TRUE(Eventually([&] { return accepted == 1; }));
  loop.Run([&] {
    accepting = nullptr;
    streams.clear();
  });
  close(refused);
  close(served);
}

// The address that a socket is bound to.
std::string BoundTo(int fd) {
  sockaddr_storage at{};
  socklen_t length = sizeof(at);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length), 0);
  char text[NI_MAXHOST];
  EXPECT_EQ(getnameinfo(reinterpret_cast<sockaddr*>(&at), length, text,
                        sizeof(text), nullptr, 0, NI_NUMERICHOST),
            0);
  return text;
}

TEST(ListenerTest, ListensAtTheAddressThatItIsGiven) {
  for (const char* address : {"127.0.0.1", "127.0.0.2", "::1", "0.0.0.0"}) {
    const absl::StatusOr<int> fd = ListenTcp(address, 0);
    ASSERT_TRUE(fd.ok()) << fd.status();
    EXPECT_EQ(BoundTo(*fd), address);
    EXPECT_NE(PortOf(*fd), 0);
    close(*fd);
  }
}

TEST(ListenerTest, AHostHasANumericAddressIPv4First) {
  EXPECT_EQ(*NumericAddress("localhost"), "127.0.0.1");
  EXPECT_EQ(*NumericAddress("::1"), "::1");
  EXPECT_EQ(*NumericAddress("127.0.0.2"), "127.0.0.2");
  EXPECT_TRUE(absl::IsInvalidArgument(NumericAddress("no such host").status()));
  EXPECT_TRUE(IsLoopback("127.0.1.1") && IsLoopback("::1"));
  EXPECT_FALSE(IsLoopback("0.0.0.0") || IsLoopback("10.127.0.1"));
}

TEST(ListenerTest, ASocketHasTheModeAndTheGroupThatItIsGiven) {
  char name[] = "/tmp/kdn-listener-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string path = std::string(name) + "/s";
  const group* const own = getgrgid(getegid());
  ASSERT_NE(own, nullptr);
  const absl::StatusOr<int> fd =
      ListenUnix(path, {.mode = 0660, .group = own->gr_name});
  ASSERT_TRUE(fd.ok()) << fd.status();
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
  EXPECT_EQ(info.st_gid, own->gr_gid);
  close(*fd);
  const absl::Status none =
      ListenUnix(path, {.mode = 0660, .group = "no-such-group"}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(none)) << none;
  unlink(path.c_str());
  rmdir(name);
}

TEST(ListenerTest, AddressesThatAreNotOursAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(ListenTcp("203.0.113.7", 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ListenTcp("no such host", 0).status()));
}

}  // namespace
}  // namespace kdn::rpc
