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
    // A message of at most so many bytes needs no room in the budget, so that
    // large messages of others do not hold up calls. Clients send data that is
    // larger only with StoreStream.layer.
    uint64_t free_bytes = 64u << 10;
    // A block of a message that takes longer to arrive ends the connection.
    absl::Duration stall_max = absl::Seconds(10);
    // While more bytes than these wait to be sent, no message is read.
    uint64_t queued_pause = 4u << 20;
    // When more bytes than these wait to be sent, beside the message that is
    // being sent, the connection ends.
    uint64_t queued_max = 64u << 20;
    // Calls whose answers the client has not released with a Finish.
    int questions_max = 1 << 17;
  };

  // `inner` writes the messages, and `bytes` are read from `stream`. `greeted`:
  // the client has said hello. `received` is the gateway's budget.
  EngineMessages(EventLoop& loop, kj::AsyncIoStream& stream,
                 kj::Own<capnp::MessageStream> inner, Limits limits,
                 std::shared_ptr<ByteBudget> received, RequesterId requester,
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
    ByteBudget::Pass pass;
  };
  kj::Promise<Read> ReadNext(capnp::ReaderOptions options);
  kj::Promise<void> ReadSizes(std::shared_ptr<Incoming> message);
  kj::Promise<void> Reserve(std::shared_ptr<Incoming> message);
  kj::Promise<void> ReadBody(std::shared_ptr<Incoming> message, uint64_t done);
  // Counts the calls that are not finished, and refuses a message that would
  // make the RPC system take much memory.
  void Account(capnp::MessageReader& message);
  // Reads exactly `bytes`, within the time limit.
  kj::Promise<void> ReadExactly(void* to, uint64_t bytes);
  void OnWritten();

  EventLoop& loop_;
  kj::AsyncIoStream& stream_;
  kj::Own<capnp::MessageStream> inner_;
  const Limits limits_;
  const std::shared_ptr<ByteBudget> received_;
  const RequesterId requester_;
  const std::shared_ptr<const bool> greeted_;
  capnp::TwoPartyVatNetwork* network_ = nullptr;
  uint64_t writing_bytes_ = 0;  // of the message that is being sent
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> write_waiters_;
  int64_t questions_ = 0;
  kj::Own<kj::PromiseFulfiller<void>> break_;
  kj::Promise<void> broken_ = nullptr;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_GATEWAY_ENGINE_MESSAGES_H_
