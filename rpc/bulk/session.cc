#include "rpc/bulk/session.h"

#include <kj/debug.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/tls/stream.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

// The frame of the largest request: a fetch of as many chunks as it may name.
uint32_t RequestBytesMax(const BulkServer::Options& options) {
  constexpr uint32_t kBytesPerChunk = 128;
  constexpr uint32_t kFixedBytes = 8192;
  const uint64_t bytes =
      kFixedBytes +
      kBytesPerChunk * static_cast<uint64_t>(options.items_per_fetch_max);
  return static_cast<uint32_t>(
      std::min<uint64_t>(bytes, peer::FRAME_BYTES_MAX));
}

}  // namespace

kj::Promise<void> BulkSession::Run() {
  auto hello =
      Secure().then([this] { return ReadFrame(*stream_, kHelloBytesMax); });
  return Within(loop_, shared_.options.stall_timeout, kj::mv(hello))
      .then([this](kj::Own<Frame> frame) {
        auto greeting = Greet(frame->As<peer::Hello>());
        return greeting.attach(kj::mv(frame));
      })
      .then([this](bool accepted) -> kj::Promise<void> {
        if (!accepted) return kj::READY_NOW;
        return ServeRequests();
      });
}

kj::Promise<void> BulkSession::Secure() {
  if (shared_.tls == nullptr) return kj::READY_NOW;
  return TlsIoStream::Accept(kj::mv(stream_), *shared_.tls)
      .then([this](kj::Own<TlsIoStream> secure) {
        certified_ = secure->peer_name();
        stream_ = kj::mv(secure);
      });
}

absl::Status BulkSession::Judge(const placement::Introduction& ours,
                                peer::Hello::Reader hello) const {
  if (hello.getTo() != ours.node.name().c_str()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this is node ", ours.node.name(), ", not ", hello.getTo().cStr()));
  }
  const std::string caller = hello.getIntroduction().getNode().cStr();
  if (shared_.tls != nullptr && certified_ != caller) {
    return absl::PermissionDeniedError(
        absl::StrCat("the hello is of node ", caller,
                     ", and the certificate of node ", certified_));
  }
  return JudgeHello(ours, hello);
}

kj::Promise<bool> BulkSession::Greet(peer::Hello::Reader hello) {
  const std::string caller = hello.getIntroduction().getNode().cStr();
  const placement::Introduction ours =
      shared_.options.introduce(NodeId(caller));
  requester_ = RequesterId(std::hash<std::string>()(caller));
  absl::Status status = Judge(ours, hello);
  if (status.ok() && !link_.greeted(caller)) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("node ", caller, " has too many connections to node ",
                     shared_.options.self.name(), " in use"));
  }
  if (!status.ok()) {
    shared_.options.meters->Add("peer_refused");
    LogWarning("bulk.hello", absl::StrCat("refused a connection of node ",
                                          caller, ": ", status.message()));
  }
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto answer = message->initRoot<peer::Hello>();
  ToWire(ours, answer.initIntroduction());
  answer.setTo(caller);
  ToWire(status, answer.initStatus());
  auto writing = WriteFrame(*stream_, *message);
  return writing.attach(kj::mv(message)).then([accepted = status.ok()] {
    return accepted;
  });
}

kj::Promise<void> BulkSession::ServeRequests() {
  link_.set_busy(false);
  // No time limit for the length: a connection may be idle in the peer's pool.
  return ReadFrameLength(*stream_, RequestBytesMax(shared_.options))
      .then([this](uint32_t length) {
        link_.set_busy(true);
        return Within(loop_, shared_.options.stall_timeout,
                      ReadFrameBody(*stream_, length));
      })
      .then([this](kj::Own<Frame> frame) {
        auto serving = Serve(frame->As<peer::Request>());
        return serving.attach(kj::mv(frame));
      })
      .then([this] { return ServeRequests(); });
}

kj::Promise<void> BulkSession::Serve(peer::Request::Reader request) {
  absl::StatusOr<absl::Duration> timeout =
      TimeoutFromWire(request.getDeadlineMs());
  if (!timeout.ok()) return Malformed(timeout.status());
  switch (request.which()) {
    case peer::Request::FETCH:
      return ServeFetch(request.getFetch(), *timeout);
    case peer::Request::PUSH:
      return ServePush(request.getPush(), *timeout);
    case peer::Request::CALIBRATION:
      return ServeCalibration(request.getCalibration(), *timeout);
  }
  return Refuse(absl::UnimplementedError(
      absl::StrCat("node ", shared_.options.self.name(),
                   " does not know this kind of request")));
}

kj::Promise<void> BulkSession::Refuse(const absl::Status& why) {
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  ToWire(why, message->initRoot<peer::Refusal>().initStatus());
  auto writing = WriteFrame(*stream_, *message);
  return writing.attach(kj::mv(message));
}

}  // namespace kdn::rpc
