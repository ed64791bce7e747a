// What waits for a peer ends when the peer dies, and reads do not wait for a
// peer that hangs twice.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "tests/integration/cluster_fixture.h"

namespace kdn::integration {
namespace {

constexpr int kChunks = 12;
// The calls may last this long; the tests expect that they do not.
constexpr absl::Duration kDeadline = absl::Seconds(30);
constexpr absl::Duration kSoon = absl::Seconds(5);

// What has come for the TCP sockets of a process, and the process has not read:
// bytes, and connections that it has not accepted.
uint64_t Unread(pid_t pid) {
  const std::string proc = absl::StrCat("/proc/", pid);
  std::set<std::string> sockets;  // "socket:[INODE]"
  std::error_code error;
  for (const auto& fd :
       std::filesystem::directory_iterator(proc + "/fd", error)) {
    sockets.insert(std::filesystem::read_symlink(fd.path(), error).string());
  }
  uint64_t unread = 0;
  for (const char* table : {"/net/tcp", "/net/tcp6"}) {
    std::ifstream file(proc + table);
    std::string line;
    std::getline(file, line);  // the names of the columns
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, queues, timer, retransmits;
      std::string user, timeout, inode;
      fields >> slot >> local >> remote >> state >> queues >> timer >>
          retransmits >> user >> timeout >> inode;
      if (!sockets.contains(absl::StrCat("socket:[", inode, "]"))) continue;
      // Hexadecimal numbers: bytes to send, a colon, bytes to read. A socket
      // that listens has the connections to accept in the second place.
      unread += std::stoull(queues.substr(queues.find(':') + 1), nullptr, 16);
    }
  }
  return unread;
}

class PeerDeathTest : public ClusterTest {
 protected:
  PeerDeathTest() {
    cli::LocalClusterOptions options;
    // Longer than the test, so that a hung peer stays a member.
    options.peer_timeout = absl::Minutes(2);
    Configure(options);
    StartAll();
    for (int i = 0; i < kChunks; ++i) {
      chunks_.push_back(Make(i));
      refs_.push_back(chunks_.back().ref);
      EXPECT_TRUE(Put(chunks_.back()).ok());
    }
  }

  // Stops all threads of n2.
  void Hang() {
    cluster_->Signal(1, SIGSTOP);
    int status = 0;
    ASSERT_EQ(waitpid(cluster_->pid(1), &status, WUNTRACED), cluster_->pid(1));
    ASSERT_TRUE(WIFSTOPPED(status));
  }

  // Stops n2, makes `call`, and kills n2 when something has come for n2.
  // Expects that the call waited for n2 and ended soon after the death.
  void ExpectToEndWithThePeer(const std::function<void()>& call) {
    Hang();
    const pid_t peer = cluster_->pid(1);
    const uint64_t before = Unread(peer);
    std::atomic<bool> ended = false;
    absl::Time death;
    std::thread killing([&] {
      // This may also be a heartbeat of a member. Then the call finds n2 gone,
      // and ends after the death as well.
      while (!ended && Unread(peer) <= before) std::this_thread::yield();
      death = SteadyNow();
      cluster_->Kill(1, SIGKILL);
    });
    call();
    const absl::Time end = SteadyNow();
    ended = true;
    killing.join();
    EXPECT_GT(end, death) << "it did not wait for n2";
    EXPECT_LT(end - death, kSoon);
  }

  std::vector<Chunk> chunks_;
  std::vector<ChunkRef> refs_;
};

TEST_F(PeerDeathTest, EndsAStatus) {
  absl::StatusOr<std::vector<NodeStatus>> nodes;
  ExpectToEndWithThePeer([&] { nodes = client().Status(kDeadline); });
  ASSERT_TRUE(nodes.ok()) << nodes.status();
  EXPECT_EQ(nodes->size(), 3u);
}

TEST_F(PeerDeathTest, EndsAPin) {
  absl::StatusOr<std::vector<absl::Status>> pins;
  ExpectToEndWithThePeer(
      [&] { pins = knowledge().Pin(refs_, absl::Minutes(1), kDeadline); });
  ASSERT_TRUE(pins.ok()) << pins.status();
  for (const absl::Status& pin : *pins) EXPECT_TRUE(pin.ok()) << pin;
}

TEST_F(PeerDeathTest, EndsARemoval) {
  absl::StatusOr<std::vector<absl::Status>> removed;
  ExpectToEndWithThePeer(
      [&] { removed = knowledge().Remove(refs_, kDeadline); });
  ASSERT_TRUE(removed.ok()) << removed.status();
  int unsure = 0;
  for (const absl::Status& one : *removed) {
    EXPECT_TRUE(one.ok() || absl::IsUnavailable(one)) << one;
    unsure += absl::IsUnavailable(one) ? 1 : 0;
  }
  EXPECT_GT(unsure, 0) << "n2 was an owner of some chunks";
}

TEST_F(PeerDeathTest, EndsStores) {
  std::vector<absl::Status> stored;
  ExpectToEndWithThePeer([&] {
    for (int i = kChunks; i < 2 * kChunks; ++i) {
      stored.push_back(Put(Make(i)).status());
    }
  });
  for (const absl::Status& one : stored) EXPECT_TRUE(one.ok()) << one;
}

TEST_F(PeerDeathTest, EndsALookupAndReads) {
  absl::StatusOr<std::vector<LookupResult>> found;
  int hits = 0;
  ExpectToEndWithThePeer([&] {
    found = knowledge().Lookup(refs_, kDeadline);
    for (const Chunk& chunk : chunks_) {
      std::vector<std::byte> kv;
      hits += Get(chunk, &kv, kDeadline).kind == OutcomeKind::kHit;
    }
  });
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(hits, kChunks);
}

// The first reads may wait for n2 to answer. Then its silence is known.
TEST_F(PeerDeathTest, APeerThatHangsIsLearntOnce) {
  Hang();
  const auto read_all = [&] {
    const absl::Time begin = SteadyNow();
    for (const Chunk& chunk : chunks_) {
      std::vector<std::byte> kv;
      const ChunkOutcome outcome = Get(chunk, &kv, absl::Seconds(4));
      EXPECT_EQ(outcome.kind, OutcomeKind::kHit) << outcome.why;
    }
    return SteadyNow() - begin;
  };
  const absl::Duration first = read_all();
  const absl::Duration second = read_all();
  cluster_->Signal(1, SIGCONT);
  EXPECT_LT(second, kSoon);
  EXPECT_LT(first, 4 * kSoon) << "every read waited";
}

}  // namespace
}  // namespace kdn::integration
