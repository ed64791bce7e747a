#ifndef KDN_RPC_BULK_FRAME_H_
#define KDN_RPC_BULK_FRAME_H_

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/async-io.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "codec/format/object.h"
#include "rpc/event_loop.h"
#include "rpc/peer.capnp.h"

// Frames of the bulk plane (peer.capnp), and the raw bytes between them. Errors
// are KJ exceptions. BulkTransport turns them into statuses; a BulkSession ends
// with them.
namespace kdn::rpc {

// The most bytes that one read or write moves; between two of them, the stall
// timeout starts again.
inline constexpr size_t kBulkBlockBytes = 4u << 20;
// The most bytes of header and index of an object that is received: 24 bytes
// per stream, up to 2^21 streams per level.
inline constexpr uint32_t kPrefixBytesMax = 256u << 20;

// A hello has two introductions' worth of names.
inline constexpr uint32_t kHelloBytesMax = 64u << 10;

// A received frame: one message, which can be read while the frame lives.
class Frame {
 public:
  explicit Frame(kj::Array<capnp::word> words)
      : words_(kj::mv(words)), reader_(words_) {}
  template <typename T>
  typename T::Reader As() {
    return reader_.getRoot<T>();
  }

 private:
  kj::Array<capnp::word> words_;
  capnp::FlatArrayMessageReader reader_;
};

// Fails with DISCONNECTED at the end of the stream, and with FAILED for a
// length that no frame can have, or that is above `bytes_max`.
kj::Promise<kj::Own<Frame>> ReadFrame(
    kj::AsyncInputStream& stream, uint32_t bytes_max = peer::FRAME_BYTES_MAX);
// The two halves of ReadFrame, for a caller with a time limit for the second
// half only.
kj::Promise<uint32_t> ReadFrameLength(
    kj::AsyncInputStream& stream, uint32_t bytes_max = peer::FRAME_BYTES_MAX);
kj::Promise<kj::Own<Frame>> ReadFrameBody(kj::AsyncInputStream& stream,
                                          uint32_t length);

// The bytes of a message's frame.
kj::Array<kj::byte> FrameOf(capnp::MessageBuilder& message);
kj::Promise<void> WriteFrame(kj::AsyncOutputStream& stream,
                             capnp::MessageBuilder& message);

// An exception whose description is `what` alone.
kj::Exception ExceptionOf(kj::Exception::Type type, absl::string_view what);
// The exception that ends the connection of a peer that sent something
// malformed.
kj::Exception Malformed(const absl::Status& why);

void ToWire(const absl::Status& status, peer::Status::Builder out);
absl::Status FromWire(peer::Status::Reader status);

// Where the layers of one chunk's slice lie in its object.
struct SliceLayout {
  KvSlice slice;
  std::vector<Level> levels;  // of each of its layers

  uint64_t LayerBytes(const codec::ObjectIndex& index, int layer) const;
  uint64_t AllBytes(const codec::ObjectIndex& index) const;
};
// OK when objects of this shape have the slice.
absl::Status CheckSlice(const KvShape& shape, const KvSlice& slice);
// OK when the object has the slice and the levels.
absl::Status CheckSlice(const codec::ObjectIndex& index,
                        const SliceLayout& layout);

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_FRAME_H_
