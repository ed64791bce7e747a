#include "rpc/gateway/engine_messages.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::rpc {
namespace {

constexpr uint64_t kWordBytes = sizeof(capnp::word);
// As in Cap'n Proto itself.
constexpr uint64_t kSegmentsMax = 512;
constexpr uint64_t kBlockBytes = 1u << 20;
// Cap'n Proto gives each message that it sends a first segment of 8 KiB.
constexpr uint64_t kMessageOverhead = 8u << 10;
// A message names the capabilities that it carries: one, or none.
constexpr unsigned kCapabilitiesMax = 16;
// A reader may read a message so many times as large as it is, and this much
// more. A list may point many times at the same bytes, or have elements of no
// size; without this limit, 100 bytes could keep the loop busy for seconds.
constexpr uint64_t kReadsPerByte = 8;
constexpr uint64_t kReadsWords = 8192;
// How long until the size of the send queue is looked at again when no write
// ends.
constexpr auto kQueueLook = 20 * kj::MILLISECONDS;

uint32_t Number(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) |
         static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 |
         static_cast<uint32_t>(bytes[3]) << 24;
}

kj::Exception Broken(const std::string& why) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                       kj::heapString(why.data(), why.size()));
}

kj::Exception CutOff() {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::str("the connection ended inside a message"));
}

// A message that has been read, and its room in the budgets.
class ReceivedMessage final : public capnp::MessageReader {
 public:
  ReceivedMessage(kj::Array<capnp::word> words, std::vector<uint32_t> sizes,
                  ByteBudget::Pass pass, std::shared_ptr<const void> small,
                  capnp::ReaderOptions options)
      : MessageReader(options),
        words_(kj::mv(words)),
        sizes_(std::move(sizes)),
        pass_(std::move(pass)),
        small_(std::move(small)) {}
  kj::ArrayPtr<const capnp::word> getSegment(uint id) override {
    if (id >= sizes_.size()) return nullptr;
    size_t begin = 0;
    for (uint i = 0; i < id; ++i) begin += sizes_[i];
    return words_.slice(begin, begin + sizes_[id]);
  }

 private:
  kj::Array<capnp::word> words_;
  std::vector<uint32_t> sizes_;
  ByteBudget::Pass pass_;
  std::shared_ptr<const void> small_;
};

uint64_t WordsOf(const std::vector<uint32_t>& sizes) {
  uint64_t words = 0;
  for (const uint32_t size : sizes) words += size;
  return words;
}

}  // namespace

EngineMessages::EngineMessages(EventLoop& loop, kj::AsyncIoStream& stream,
                               kj::Own<capnp::MessageStream> inner,
                               Limits limits, Budgets budgets,
                               RequesterId requester,
                               std::shared_ptr<const bool> greeted)
    : loop_(loop),
      stream_(stream),
      inner_(kj::mv(inner)),
      limits_(limits),
      budgets_(std::move(budgets)),
      requester_(requester),
      greeted_(std::move(greeted)) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  break_ = kj::mv(paf.fulfiller);
  broken_ = kj::mv(paf.promise);
}

uint64_t EngineMessages::queued_bytes() const {
  return network_->getCurrentQueueSize() +
         network_->getCurrentQueueCount() * kMessageOverhead;
}

bool EngineMessages::overdrawn() const {
  return queued_bytes() > limits_.queued_max + writing_bytes_;
}

kj::Promise<void> EngineMessages::WhenWritable() {
  if (queued_bytes() <= limits_.queued_pause) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  write_waiters_.push_back(kj::mv(paf.fulfiller));
  // The network counts a message as sent after its write has ended, in an event
  // of its own: evalLast lets that event run first.
  return paf.promise.then([] { return kj::evalLast([] {}); })
      .exclusiveJoin(loop_.At(EventLoop::Now() + kQueueLook))
      .then([this] { return WhenWritable(); });
}

void EngineMessages::OnWritten() {
  writing_bytes_ = 0;
  for (auto& waiter : write_waiters_) waiter->fulfill();
  write_waiters_.clear();
}

kj::Promise<void> EngineMessages::writeMessage(
    kj::ArrayPtr<const int> fds,
    kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  writing_bytes_ = kMessageOverhead;
  for (const auto segment : segments) {
    writing_bytes_ += segment.size() * kWordBytes;
  }
  return inner_->writeMessage(fds, segments).then([this] { OnWritten(); });
}

kj::Promise<void> EngineMessages::writeMessages(
    kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>>
        messages) {
  return inner_->writeMessages(messages).then([this] { OnWritten(); });
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>>
EngineMessages::tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd>,
                               capnp::ReaderOptions options,
                               kj::ArrayPtr<capnp::word>) {
  if (queued_bytes() <= limits_.queued_pause) return ReadNext(options);
  return WhenWritable().then([this, options] { return ReadNext(options); });
}

kj::Promise<EngineMessages::Read> EngineMessages::ReadNext(
    capnp::ReaderOptions options) {
  auto message = std::make_shared<Incoming>();
  message->options = options;
  // A connection may be idle: no time limit for the first byte.
  return stream_.tryRead(message->first_word, 1, kWordBytes)
      .then([this, message](size_t got) -> kj::Promise<Read> {
        if (got == 0) return Read(nullptr);
        kj::Promise<void> rest = kj::READY_NOW;
        if (got < kWordBytes) {
          rest = ReadExactly(message->first_word + got, kWordBytes - got);
        }
        return rest.then([this, message] { return ReadSizes(message); })
            .then([this, message] { return Reserve(message); })
            .then([this, message] { return ReadBody(message, 0); })
            .then([this, message]() -> Read {
              auto reader = kj::heap<ReceivedMessage>(
                  kj::mv(message->words), std::move(message->sizes),
                  std::move(message->pass), std::move(message->small),
                  message->options);
              Account(*reader);
              return capnp::MessageReaderAndFds{kj::mv(reader), nullptr};
            });
      })
      .catch_([this](kj::Exception&& broken) -> kj::Promise<Read> {
        if (broken.getType() == kj::Exception::Type::DISCONNECTED) {
          return kj::mv(broken);
        }
        break_->fulfill();
        // The RPC system tells a client the error, but not one that it does not
        // know: that one would keep the connection for as long as it reads.
        if (!*greeted_) return kj::NEVER_DONE;
        return kj::mv(broken);
      });
}

kj::Promise<size_t> EngineMessages::FailWhenSlow(kj::TimePoint since,
                                                 const ByteBudget* budget) {
  const absl::Duration look =
      std::min(limits_.stall_max, limits_.stall_contended_max);
  return loop_.At(EventLoop::In(look))
      .then([this, since, budget]() -> kj::Promise<size_t> {
        const absl::Duration taken =
            absl::Microseconds((EventLoop::Now() - since) / kj::MICROSECONDS);
        if (budget != nullptr && budget->waiting() > 0) {
          return Broken(
              "a message arrives too slowly while others wait for its room");
        }
        if (taken < limits_.stall_max) return FailWhenSlow(since, budget);
        return Broken("a message arrives too slowly");
      });
}

kj::Promise<void> EngineMessages::ReadExactly(void* to, uint64_t bytes,
                                              const ByteBudget* budget) {
  return stream_.tryRead(to, bytes, bytes)
      .exclusiveJoin(FailWhenSlow(EventLoop::Now(), budget))
      .then([bytes](size_t got) -> kj::Promise<void> {
        if (got < bytes) return CutOff();
        return kj::READY_NOW;
      });
}

kj::Promise<void> EngineMessages::ReadSizes(std::shared_ptr<Incoming> message) {
  const uint64_t segments = uint64_t{Number(message->first_word)} + 1;
  message->sizes.push_back(Number(message->first_word + 4));
  if (segments > kSegmentsMax) {
    return Broken(absl::StrCat("a message of ", segments,
                               " segments, expected at most ", kSegmentsMax));
  }
  if (segments == 1) return kj::READY_NOW;
  // The table has a number for each segment, and is padded to whole words.
  auto more = kj::heapArray<uint8_t>((segments & ~uint64_t{1}) * 4);
  auto reading = ReadExactly(more.begin(), more.size());
  return reading.then([message, segments, more = kj::mv(more)] {
    for (uint64_t i = 0; i + 1 < segments; ++i) {
      message->sizes.push_back(Number(more.begin() + 4 * i));
    }
  });
}

kj::Promise<void> EngineMessages::Reserve(std::shared_ptr<Incoming> message) {
  const uint64_t words = WordsOf(message->sizes);
  const uint64_t most = *greeted_ ? limits_.bytes_max : limits_.first_bytes_max;
  if (words > most / kWordBytes) {
    return Broken(absl::StrCat("a message of ", words,
                               " words, expected at most ", most, " bytes",
                               *greeted_ ? "" : " before the answer to hello"));
  }
  message->options.traversalLimitInWords =
      std::min(message->options.traversalLimitInWords,
               words * kReadsPerByte + kReadsWords);
  const uint64_t bytes = words * kWordBytes;
  if (bytes > limits_.small_bytes) {
    message->budget = budgets_.large.get();
  } else {
    message->small = HoldSmall(bytes);
    if (*small_held_ > limits_.small_free) {
      message->budget = budgets_.small.get();
    }
  }
  kj::Promise<void> room = kj::READY_NOW;
  if (message->budget != nullptr) room = AcquireRoom(message, bytes);
  return room.then(
      [message, words] { message->words = kj::heapArray<capnp::word>(words); });
}

std::shared_ptr<const void> EngineMessages::HoldSmall(uint64_t bytes) const {
  *small_held_ += bytes;
  return {small_held_.get(),
          [held = small_held_, bytes](const void*) { *held -= bytes; }};
}

kj::Promise<void> EngineMessages::AcquireRoom(std::shared_ptr<Incoming> message,
                                              uint64_t bytes) {
  using Result = absl::StatusOr<ByteBudget::Pass>;
  auto late = loop_.At(EventLoop::In(limits_.room_wait_max))
                  .then([bytes, most = limits_.room_wait_max]() -> Result {
                    return absl::DeadlineExceededError(absl::StrCat(
                        "the gateway had no room for a message of ", bytes,
                        " bytes for ", absl::FormatDuration(most),
                        ": connect again, or connect to another node"));
                  });
  return message->budget->Acquire(bytes, requester_)
      .exclusiveJoin(kj::mv(late))
      .then([message](Result pass) -> kj::Promise<void> {
        if (!pass.ok()) return Broken(std::string(pass.status().message()));
        message->pass = *std::move(pass);
        return kj::READY_NOW;
      });
}

kj::Promise<void> EngineMessages::ReadBody(std::shared_ptr<Incoming> message,
                                           uint64_t done) {
  const uint64_t bytes = message->words.size() * kWordBytes;
  if (done == bytes) return kj::READY_NOW;
  const uint64_t count = std::min(bytes - done, kBlockBytes);
  return ReadExactly(message->words.asBytes().begin() + done, count,
                     message->budget)
      .then([this, message, done, count] {
        return ReadBody(message, done + count);
      });
}

void EngineMessages::Account(capnp::MessageReader& message) {
  const auto root = message.getRoot<capnp::rpc::Message>();
  unsigned capabilities = 0;
  switch (root.which()) {
    case capnp::rpc::Message::BOOTSTRAP:
      ++questions_;
      break;
    case capnp::rpc::Message::CALL:
      ++questions_;
      capabilities = root.getCall().getParams().getCapTable().size();
      break;
    case capnp::rpc::Message::FINISH:
      --questions_;
      break;
    case capnp::rpc::Message::RETURN:
      if (root.getReturn().isResults()) {
        capabilities = root.getReturn().getResults().getCapTable().size();
      }
      break;
    default:
      break;
  }
  if (capabilities > kCapabilitiesMax) {
    kj::throwFatalException(Broken(
        absl::StrCat("a message with ", capabilities,
                     " capabilities, expected at most ", kCapabilitiesMax)));
  }
  if (questions_ > limits_.questions_max) {
    kj::throwFatalException(
        Broken(absl::StrCat("more than ", limits_.questions_max,
                            " calls that the client has not finished")));
  }
}

}  // namespace kdn::rpc
