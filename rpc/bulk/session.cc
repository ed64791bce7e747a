#include "rpc/bulk/session.h"

#include <kj/debug.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/wire.h"

namespace kdn::rpc {
kj::Promise<void> BulkSession::Run() {
  return Within(loop_, shared_.options.stall_timeout, ReadFrame(*stream_))
      .then([this](kj::Own<Frame> frame) {
        auto greeting = Greet(frame->As<peer::Hello>());
        return greeting.attach(kj::mv(frame));
      })
      .then([this](bool accepted) -> kj::Promise<void> {
        if (!accepted) return kj::READY_NOW;
        return ServeRequests();
      });
}

absl::Status BulkSession::Judge(const placement::Introduction& ours,
                                peer::Hello::Reader hello) const {
  if (hello.getTo() != ours.node.name().c_str()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this is node ", ours.node.name(), ", not ", hello.getTo().cStr()));
  }
  return JudgeHello(ours, hello);
}

kj::Promise<bool> BulkSession::Greet(peer::Hello::Reader hello) {
  const std::string caller = hello.getIntroduction().getNode().cStr();
  const placement::Introduction ours =
      shared_.options.introduce(NodeId(caller));
  const absl::Status status = Judge(ours, hello);
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
  // No time limit for the length: a connection may be idle in the peer's pool.
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
  if (!timeout.ok()) return Malformed(timeout.status());
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
