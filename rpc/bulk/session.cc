#include "rpc/bulk/session.h"

#include <kj/debug.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/wire.h"

namespace kdn::rpc {
kj::Promise<void> BulkSession::Run() {
  return Within(loop_, shared_.options.stall_timeout, ReadFrame(*stream_))
      .then([this](kj::Own<Frame> frame) {
        auto greeting = Greet(frame->As<peer::Hello>());
        return greeting.attach(kj::mv(frame));
      })
      .then([this] { return ServeRequests(); });
}

kj::Promise<void> BulkSession::Greet(peer::Hello::Reader hello) {
  absl::Status status;
  if (hello.getProtocolVersion() != peer::PROTOCOL_VERSION) {
    status = absl::FailedPreconditionError(
        absl::StrCat("peer protocol version ", hello.getProtocolVersion(),
                     ", this node speaks ", peer::PROTOCOL_VERSION));
  } else if (hello.getTo() != shared_.options.self.name().c_str()) {
    status = absl::FailedPreconditionError(
        absl::StrCat("this is node ", shared_.options.self.name(), ", not ",
                     hello.getTo().cStr()));
  }
  auto message = kj::heap<capnp::MallocMessageBuilder>();
  auto answer = message->initRoot<peer::Hello>();
  answer.setProtocolVersion(peer::PROTOCOL_VERSION);
  answer.setFrom(shared_.options.self.name());
  answer.setTo(hello.getFrom());
  ToWire(status, answer.initStatus());
  auto writing = WriteFrame(*stream_, *message);
  return writing.attach(kj::mv(message)).then([status]() -> kj::Promise<void> {
    if (!status.ok()) return Nonsense(status);
    return kj::READY_NOW;
  });
}

kj::Promise<void> BulkSession::ServeRequests() {
  // No limit on the wait: pooled connections idle for as long as they like.
  return ReadFrameLength(*stream_)
      .then([this](uint32_t length) {
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
  if (!timeout.ok()) return Nonsense(timeout.status());
  switch (request.which()) {
    case peer::Request::FETCH:
      return ServeFetch(request.getFetch(), *timeout);
    case peer::Request::PUSH:
      return ServePush(request.getPush(), *timeout);
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
