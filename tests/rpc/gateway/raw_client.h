#ifndef KDN_TESTS_RPC_GATEWAY_RAW_CLIENT_H_
#define KDN_TESTS_RPC_GATEWAY_RAW_CLIENT_H_

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rpc/client/loop.h"
#include "rpc/wire.h"

namespace kdn::rpc {

// A client that sends what a test wants, without the checks of the library.
class RawClient {
 public:
  using MakeStream = kj::Own<capnp::MessageStream> (*)(kj::AsyncIoStream&);
  // `make_stream` makes the stream of messages over the connection.
  explicit RawClient(
      const std::string& address,
      MakeStream make_stream =
          [](kj::AsyncIoStream& stream) -> kj::Own<capnp::MessageStream> {
        return kj::heap<capnp::AsyncIoMessageStream>(stream);
      })
      : loop_(ClientLoop::OfThisThread()),
        stream_(*loop_->Wait(loop_->io()
                                 .getNetwork()
                                 .parseAddress(address.c_str())
                                 .then([](kj::Own<kj::NetworkAddress> parsed) {
                                   auto made = parsed->connect();
                                   return made.attach(kj::mv(parsed));
                                 }),
                             absl::Seconds(5))),
        messages_(make_stream(*stream_)),
        network_(*messages_, capnp::rpc::twoparty::Side::CLIENT),
        rpc_(capnp::makeRpcClient(network_)) {}

  wire::Kdn::Client kdn() {
    capnp::MallocMessageBuilder message;
    auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
    vat.setSide(capnp::rpc::twoparty::Side::SERVER);
    return rpc_.bootstrap(vat).castAs<wire::Kdn>();
  }
  // The session. The first call says hello.
  wire::Session::Client& Session() {
    if (!session_) {
      auto hello = kdn().helloRequest();
      FillHello(hello);
      session_ = Send(kj::mv(hello))->getSession();
    }
    return *session_;
  }
  void EndSession() { session_.reset(); }
  wire::Knowledge::Client Open(const Namespace& ns, const ModelSpec& model) {
    auto open = Session().openRequest();
    open.setNamespace(ns.name());
    ToWire(model, open.initModel());
    open.setFingerprint(ToWire(FingerprintOf(model)));
    return Send(kj::mv(open))->getKnowledge();
  }
  template <typename Hello>
  static void FillHello(Hello& hello) {
    hello.setProtocolVersion(wire::PROTOCOL_VERSION);
    const auto golden = GoldenVectors();
    auto list = hello.initGoldenVectors(static_cast<unsigned>(golden.size()));
    for (unsigned i = 0; i < golden.size(); ++i) {
      list[i].setLabel(golden[i].label);
      list[i].setKey(ToWire(golden[i].key));
    }
  }
  template <typename Params, typename Results>
  absl::StatusOr<capnp::Response<Results>> Send(
      capnp::Request<Params, Results> request) {
    return loop_->Wait(kj::Promise<capnp::Response<Results>>(request.send()),
                       absl::Seconds(20));
  }
  // The status of the answer, or of the transport if there is no answer.
  template <typename Params, typename Results>
  absl::Status StatusOf(capnp::Request<Params, Results> request) {
    auto answer = Send(kj::mv(request));
    return answer.ok() ? FromWire(answer->getStatus()) : answer.status();
  }
  ClientLoop& loop() { return *loop_; }
  template <typename T>
  T& stream() {
    return kj::downcast<T>(*messages_);
  }
  // Sends bytes that need not be a message.
  void SendBytes(const std::vector<uint8_t>& bytes) {
    EXPECT_TRUE(loop_
                    ->WaitVoid(stream_->write(bytes.data(), bytes.size()),
                               absl::Seconds(20))
                    .ok());
  }
  // Lets the loop send what is queued, as far as the gateway reads it.
  void Flush() { (void)loop_->WaitVoid(kj::NEVER_DONE, absl::Milliseconds(5)); }

 private:
  std::shared_ptr<ClientLoop> loop_;
  kj::Own<kj::AsyncIoStream> stream_;
  kj::Own<capnp::MessageStream> messages_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
  std::optional<wire::Session::Client> session_;
};

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_GATEWAY_RAW_CLIENT_H_
