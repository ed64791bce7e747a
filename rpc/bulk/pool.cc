#include "rpc/bulk/pool.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "rpc/bulk/frame.h"
#include "rpc/listener.h"

namespace kdn::rpc {
namespace {

// False once the peer has closed it, or has said something nobody asked for.
bool StillQuiet(const kj::AsyncIoStream& stream) {
  KJ_IF_MAYBE (fd, stream.getFd()) {
    char byte;
    const ssize_t got = recv(*fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }
  return false;
}

}  // namespace

kj::Promise<kj::Own<BulkPool::Lease>> BulkPool::Acquire() {
  if (leased_ < options_.connections_per_peer_max) {
    ++leased_;
    auto lease = kj::heap<Lease>(shared_from_this());
    if (!idle_.empty()) {
      lease->stream_ = kj::mv(idle_.back());
      idle_.pop_back();
    }
    return Ready(kj::mv(lease));
  }
  auto paf = kj::newPromiseAndFulfiller<kj::Own<Lease>>();
  waiters_.push_back(kj::mv(paf.fulfiller));
  return paf.promise.then([self = shared_from_this()](kj::Own<Lease> lease) {
    return self->Ready(kj::mv(lease));
  });
}

kj::Promise<kj::Own<BulkPool::Lease>> BulkPool::Ready(kj::Own<Lease> lease) {
  if (lease->stream_.get() != nullptr && StillQuiet(*lease->stream_)) {
    return kj::mv(lease);
  }
  const absl::StatusOr<std::string> address = options_.resolve(peer_);
  if (!address.ok()) {
    return KJ_EXCEPTION(DISCONNECTED, "no address of a peer",
                        address.status().ToString().c_str());
  }
  kj::Promise<kj::Own<kj::AsyncIoStream>> connecting =
      loop_.io()
          .getNetwork()
          .parseAddress(address->c_str())
          .then([](kj::Own<kj::NetworkAddress> parsed) {
            auto made = parsed->connect();
            return made.attach(kj::mv(parsed));
          });
  auto ready = connecting.then(
      [this, lease = kj::mv(lease)](kj::Own<kj::AsyncIoStream> stream) mutable {
        TuneTcp(*stream);
        lease->stream_ = kj::mv(stream);
        auto greeting = Greet(*lease->stream_);
        return greeting.then(
            [lease = kj::mv(lease)]() mutable { return kj::mv(lease); });
      });
  return Within(loop_, options_.connect_timeout, kj::mv(ready));
}

kj::Promise<void> BulkPool::Greet(kj::AsyncIoStream& stream) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto hello = message->initRoot<peer::Hello>();
  hello.setProtocolVersion(peer::PROTOCOL_VERSION);
  hello.setFrom(options_.self.name());
  hello.setTo(peer_.name());
  auto writing = WriteFrame(stream, *message);
  return writing.attach(kj::mv(message))
      .then([&stream] { return ReadFrame(stream); })
      .then([this](kj::Own<Frame> frame) {
        const auto answer = frame->As<peer::Hello>();
        const absl::Status status = FromWire(answer.getStatus());
        // Whoever it is, it is not the peer: nothing is said of its copies.
        if (!status.ok()) {
          kj::throwFatalException(KJ_EXCEPTION(
              DISCONNECTED, "refused by a peer", status.ToString().c_str()));
        }
        if (answer.getFrom() != peer_.name().c_str()) {
          kj::throwFatalException(KJ_EXCEPTION(
              DISCONNECTED, "another node answered", answer.getFrom()));
        }
      });
}

void BulkPool::TakeBack(kj::Own<kj::AsyncIoStream> stream) {
  KDN_CHECK(leased_ > 0, "a connection came back that was never lent");
  --leased_;
  while (!waiters_.empty() && !waiters_.front()->isWaiting()) {
    waiters_.pop_front();
  }
  if (waiters_.empty()) {
    if (stream.get() != nullptr) idle_.push_back(kj::mv(stream));
    return;
  }
  auto waiter = kj::mv(waiters_.front());
  waiters_.pop_front();
  ++leased_;
  auto lease = kj::heap<Lease>(shared_from_this());
  lease->stream_ = kj::mv(stream);
  waiter->fulfill(kj::mv(lease));
}

int BulkPool::waiting() {
  return static_cast<int>(
      std::count_if(waiters_.begin(), waiters_.end(),
                    [](auto& waiter) { return waiter->isWaiting(); }));
}

void BulkPool::CloseIdle() { idle_.clear(); }

}  // namespace kdn::rpc
