#ifndef KDN_RPC_GATEWAY_ENGINE_MESSAGES_H_
#define KDN_RPC_GATEWAY_ENGINE_MESSAGES_H_

#include <capnp/rpc-twoparty.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize-async.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "kv/work_class.h"
#include "rpc/byte_budget.h"
#include "rpc/event_loop.h"

namespace kdn::rpc {

// The messages of one engine's connection, within budgets. It reads a message
// when the gateway's budget of received bytes has room, and takes the memory
// page by page as the bytes come. It reads no further message while much waits
// to be sent to the engine. A message that is too large, that stalls, or that
// would make the RPC system take much more memory than its own size ends the
// connection. Loop thread only.
class EngineMessages final : public capnp::MessageStream {
 public:
  struct Limits {
    // Of one message: before the client has said hello, and afterwards.
    uint64_t first_bytes_max = 64u << 10;
    uint64_t bytes_max = 0;
    // A message of at most so many bytes is small: it takes no room from the
    // budget of large messages, so that large messages do not hold up calls.
    // Clients send larger messages only with StoreStream.layer.
    uint64_t small_bytes = 64u << 10;
    // A connection may hold so many bytes of small messages without room in the
    // budget of small messages.
    uint64_t small_free = 1u << 20;
    // A block of a message that takes longer to arrive ends the connection: the
    // second limit holds while other messages wait for room.
    absl::Duration stall_max = absl::Seconds(10);
    absl::Duration stall_contended_max = absl::Seconds(1);
    // A message that waits longer for room ends its connection.
    absl::Duration room_wait_max = absl::Seconds(30);
    // While more bytes than these wait to be sent, no message is read.
    uint64_t queued_pause = 4u << 20;
    // When more bytes than these wait to be sent, beside the message that is
    // being sent, the connection ends.
    uint64_t queued_max = 64u << 20;
    // Calls whose answers the client has not released with a Finish.
    int questions_max = 1 << 17;
  };

  // The gateway's budgets of messages that are received and not yet worked off.
  struct Budgets {
    std::shared_ptr<ByteBudget> large;
    std::shared_ptr<ByteBudget> small;
  };

  // `inner` writes the messages, and `bytes` are read from `stream`. `greeted`:
  // the client has said hello.
  EngineMessages(EventLoop& loop, kj::AsyncIoStream& stream,
                 kj::Own<capnp::MessageStream> inner, Limits limits,
                 Budgets budgets, RequesterId requester,
                 std::shared_ptr<const bool> greeted);

  // The network that uses this stream. Set it before the first message.
  void set_network(capnp::TwoPartyVatNetwork* network) { network_ = network; }

  // The memory of the messages that wait to be sent.
  uint64_t queued_bytes() const;
  // Whether the client takes so little that the connection is to end.
  bool overdrawn() const;
  // Resolves when queued_bytes() is at most Limits::queued_pause.
  kj::Promise<void> WhenWritable();
  // Resolves when the connection is to end, because a limit was broken.
  kj::Promise<void> WhenBroken() { return kj::mv(broken_); }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fd_space, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratch) override;
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>>
          messages) override;
  kj::Maybe<int> getSendBufferSize() override {
    return inner_->getSendBufferSize();
  }
  kj::Promise<void> end() override { return inner_->end(); }

 private:
  using Read = kj::Maybe<capnp::MessageReaderAndFds>;
  // A message that is being read.
  struct Incoming {
    capnp::ReaderOptions options;
    uint8_t first_word[sizeof(capnp::word)] = {};
    std::vector<uint32_t> sizes;  // of the segments, in words
    kj::Array<capnp::word> words;
    ByteBudget* budget = nullptr;  // that `pass` is from
    ByteBudget::Pass pass;
    std::shared_ptr<const void> small;  // its part of small_held_
  };
  kj::Promise<Read> ReadNext(capnp::ReaderOptions options);
  kj::Promise<void> ReadSizes(std::shared_ptr<Incoming> message);
  kj::Promise<void> Reserve(std::shared_ptr<Incoming> message);
  // Room for `bytes` in the budget of the message. Fails when no room is free
  // for too long.
  kj::Promise<void> AcquireRoom(std::shared_ptr<Incoming> message,
                                uint64_t bytes);
  // Adds to small_held_ until the result is destroyed.
  std::shared_ptr<const void> HoldSmall(uint64_t bytes) const;
  kj::Promise<void> ReadBody(std::shared_ptr<Incoming> message, uint64_t done);
  // Counts the calls that are not finished, and refuses a message that would
  // make the RPC system take much memory.
  void Account(capnp::MessageReader& message);
  // Reads exactly `bytes`, within the time limit. `budget`: the message holds
  // room in this budget.
  kj::Promise<void> ReadExactly(void* to, uint64_t bytes,
                                const ByteBudget* budget = nullptr);
  // Fails when a read that began at `since` takes too long.
  kj::Promise<size_t> FailWhenSlow(kj::TimePoint since,
                                   const ByteBudget* budget);
  void OnWritten();

  EventLoop& loop_;
  kj::AsyncIoStream& stream_;
  kj::Own<capnp::MessageStream> inner_;
  const Limits limits_;
  const Budgets budgets_;
  const RequesterId requester_;
  const std::shared_ptr<const bool> greeted_;
  capnp::TwoPartyVatNetwork* network_ = nullptr;
  uint64_t writing_bytes_ = 0;  // of the message that is being sent
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> write_waiters_;
  int64_t questions_ = 0;
  // Bytes of small messages that are received and not yet worked off. Messages
  // share it, because they may outlive this object.
  const std::shared_ptr<uint64_t> small_held_ = std::make_shared<uint64_t>(0);
  kj::Own<kj::PromiseFulfiller<void>> break_;
  kj::Promise<void> broken_ = nullptr;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_ENGINE_MESSAGES_H_
