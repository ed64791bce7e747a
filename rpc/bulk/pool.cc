#include "rpc/bulk/pool.h"

#include <kj/debug.h>

#include "absl/strings/str_cat.h"
#include "rpc/bulk/frame.h"
#include "rpc/listener.h"
#include "rpc/tls/stream.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

// False when the peer has closed the connection, or has sent bytes that no
// request asked for. A read sees both at once, and all that follows from what
// it sees comes before evalLast. Under TLS, it also takes messages of TLS
// itself, which are no reason to close the connection.
kj::Promise<bool> StillQuiet(kj::AsyncIoStream& stream) {
  auto byte = kj::heapArray<kj::byte>(1);
  auto reading = stream.tryRead(byte.begin(), 1, 1);
  return reading
      .then([](size_t) { return false; }, [](kj::Exception&&) { return false; })
      .attach(kj::mv(byte))
      .exclusiveJoin(kj::evalLast([] { return true; }));
}

// The exception as an error of the connection, with `what` before its text: no
// copy of the peer is damaged.
kj::Exception OfConnection(const kj::Exception& broken, const char* what) {
  return ExceptionOf(kj::Exception::Type::DISCONNECTED,
                     absl::StrCat(what, ": ", broken.getDescription().cStr()));
}

Admission::Options AdmissionOptions(const BulkTransport::Options& options) {
  Admission::Options out;
  out.waiting_max = static_cast<size_t>(options.waiting_max);
  for (const WorkClass work_class : kWorkClasses) {
    const auto connections =
        static_cast<uint64_t>(options.connections_per_peer_max[work_class]);
    out.budget += connections;
    out.shares[work_class].guaranteed = connections;
  }
  return out;
}

}  // namespace

BulkPool::BulkPool(EventLoop& loop, const BulkTransport::Options& options,
                   SSL_CTX* tls, NodeId peer)
    : loop_(loop),
      options_(options),
      tls_(tls),
      peer_(std::move(peer)),
      admission_(AdmissionOptions(options)) {}

kj::Promise<kj::Own<BulkPool::Lease>> BulkPool::Acquire(WorkClass work_class,
                                                        RequesterId requester) {
  const AdmissionId id(next_id_++);
  const absl::Status status = admission_.Request({.id = id,
                                                  .amount = 1,
                                                  .work_class = work_class,
                                                  .requester = requester});
  if (!status.ok()) {
    return ExceptionOf(kj::Exception::Type::OVERLOADED,
                       absl::StrCat("no connection: ", status.message()));
  }
  auto paf = kj::newPromiseAndFulfiller<kj::Own<Lease>>();
  waiters_.emplace(id.value(), kj::mv(paf.fulfiller));
  Serve();
  return paf.promise.attach(
      kj::defer([self = shared_from_this(), id] { self->GiveUp(id); }));
}

kj::Promise<kj::Own<BulkPool::Lease>> BulkPool::Connect(kj::Own<Lease> lease) {
  BulkPool& pool = *lease->pool_;
  if (lease->stream_.get() == nullptr) return pool.Dial(kj::mv(lease));
  auto looking = StillQuiet(*lease->stream_);
  return looking.then([&pool, lease = kj::mv(lease)](
                          bool quiet) mutable -> kj::Promise<kj::Own<Lease>> {
    if (quiet) return kj::mv(lease);
    return pool.Dial(kj::mv(lease));
  });
}

kj::Promise<kj::Own<BulkPool::Lease>> BulkPool::Dial(kj::Own<Lease> lease) {
  const absl::StatusOr<std::string> address = options_.resolve(peer_);
  if (!address.ok()) {
    return ExceptionOf(
        kj::Exception::Type::DISCONNECTED,
        absl::StrCat("no address: ", address.status().message()));
  }
  kj::Promise<kj::Own<kj::AsyncIoStream>> connecting =
      DialAddress(loop_.io().getNetwork(), *address)
          .then([this](kj::Own<kj::AsyncIoStream> stream) {
            TuneTcp(*stream);
            return Secure(kj::mv(stream));
          });
  auto ready = connecting.then(
      [this, lease = kj::mv(lease)](kj::Own<kj::AsyncIoStream> stream) mutable {
        lease->stream_ = kj::mv(stream);
        auto greeting = Greet(*lease->stream_);
        return greeting.then(
            [lease = kj::mv(lease)]() mutable { return kj::mv(lease); });
      });
  return Within(loop_, options_.connect_timeout, kj::mv(ready));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> BulkPool::Secure(
    kj::Own<kj::AsyncIoStream> stream) {
  using Stream = kj::Own<kj::AsyncIoStream>;
  if (tls_ == nullptr) return kj::mv(stream);
  return TlsIoStream::Connect(kj::mv(stream), *tls_, peer_.name())
      .then([this](kj::Own<TlsIoStream> secure) -> Stream {
        // The DNS names, which Connect has checked, have the host too, and that
        // may be the name of another node.
        if (secure->peer_name() != peer_.name()) {
          kj::throwFatalException(ExceptionOf(
              kj::Exception::Type::FAILED,
              absl::StrCat("the certificate of the other side is refused: it "
                           "is not that of node ",
                           peer_.name())));
        }
        return kj::mv(secure);
      })
      .catch_([](kj::Exception&& broken) -> kj::Promise<Stream> {
        return OfConnection(broken,
                            "no TLS (see `security` in the configurations of "
                            "both nodes)");
      });
}

kj::Promise<void> BulkPool::Greet(kj::AsyncIoStream& stream) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto hello = message->initRoot<peer::Hello>();
  ToWire(options_.introduce(peer_), hello.initIntroduction());
  hello.setTo(peer_.name());
  auto writing = WriteFrame(stream, *message);
  return writing.attach(kj::mv(message))
      .then([&stream] { return ReadFrame(stream, kHelloBytesMax); })
      .catch_([this](kj::Exception&& broken) -> kj::Promise<kj::Own<Frame>> {
        return OfConnection(
            broken, tls_ == nullptr
                        ? "no answer to hello (the peer may accept only TLS: "
                          "see `security` in the configurations of both nodes)"
                        : "no answer to hello");
      })
      .then([this](kj::Own<Frame> frame) {
        const absl::Status status = Judge(frame->As<peer::Hello>());
        if (status.ok()) return;
        // Not FAILED, which is DATA_LOSS: no copy of the peer is damaged.
        kj::throwFatalException(
            ExceptionOf(kj::Exception::Type::DISCONNECTED,
                        absl::StrCat("hello refused: ", status.message())));
      });
}

absl::Status BulkPool::Judge(peer::Hello::Reader answer) const {
  if (absl::Status status = FromWire(answer.getStatus()); !status.ok()) {
    return status;
  }
  const auto from = answer.getIntroduction().getNode();
  if (from != peer_.name().c_str()) {
    return absl::FailedPreconditionError(
        absl::StrCat("node ", from.cStr(), " answers at the address of node ",
                     peer_.name()));
  }
  return JudgeHello(options_.introduce(peer_), answer);
}

void BulkPool::TakeBack(AdmissionId id, kj::Own<kj::AsyncIoStream> stream) {
  if (stream.get() != nullptr) idle_.push_back(kj::mv(stream));
  admission_.GiveBack(id);
  Serve();
}

void BulkPool::GiveUp(AdmissionId id) {
  if (waiters_.erase(id.value()) == 0) return;  // the request has its lease
  admission_.Withdraw(id);
  Serve();
}

void BulkPool::Serve() {
  while (const auto grant = admission_.TakeGrant()) {
    auto waiter = waiters_.extract(grant->id.value());
    KDN_CHECK(!waiter.empty(), "a grant without a waiter");
    auto lease = kj::heap<Lease>(shared_from_this(), grant->id);
    if (!idle_.empty()) {
      lease->stream_ = kj::mv(idle_.back());
      idle_.pop_back();
    }
    waiter.mapped()->fulfill(kj::mv(lease));
  }
}

void BulkPool::CloseIdle() { idle_.clear(); }

}  // namespace kdn::rpc
