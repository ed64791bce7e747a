#include "rpc/bulk/frame.h"

#include <kj/debug.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace kdn::rpc {
namespace {

constexpr size_t kLengthBytes = 4;

uint32_t LengthFrom(const kj::byte* bytes) {
  return static_cast<uint32_t>(bytes[0]) |
         static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 |
         static_cast<uint32_t>(bytes[3]) << 24;
}

}  // namespace

kj::Promise<uint32_t> ReadFrameLength(kj::AsyncInputStream& stream,
                                      uint32_t bytes_max) {
  auto length = kj::heapArray<kj::byte>(kLengthBytes);
  auto reading = stream.read(length.begin(), kLengthBytes);
  return reading.then([bytes_max, length = kj::mv(length)] {
    const uint32_t value = LengthFrom(length.begin());
    KJ_REQUIRE(value >= sizeof(capnp::word) && value <= bytes_max &&
                   value % sizeof(capnp::word) == 0,
               "a frame has an impossible length", value, bytes_max);
    return value;
  });
}

kj::Promise<kj::Own<Frame>> ReadFrameBody(kj::AsyncInputStream& stream,
                                          uint32_t length) {
  auto words = kj::heapArray<capnp::word>(length / sizeof(capnp::word));
  auto reading = stream.read(words.begin(), length);
  return reading.then([words = kj::mv(words)]() mutable {
    return kj::heap<Frame>(kj::mv(words));
  });
}

kj::Promise<kj::Own<Frame>> ReadFrame(kj::AsyncInputStream& stream,
                                      uint32_t bytes_max) {
  return ReadFrameLength(stream, bytes_max).then([&stream](uint32_t length) {
    return ReadFrameBody(stream, length);
  });
}

kj::Array<kj::byte> FrameOf(capnp::MessageBuilder& message) {
  const kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  const kj::ArrayPtr<const kj::byte> body = words.asBytes();
  KJ_REQUIRE(body.size() <= peer::FRAME_BYTES_MAX, "a frame is too long",
             body.size());
  auto frame = kj::heapArray<kj::byte>(kLengthBytes + body.size());
  for (size_t i = 0; i < kLengthBytes; ++i) {
    frame[i] = static_cast<kj::byte>(body.size() >> (8 * i));
  }
  std::copy(body.begin(), body.end(), frame.begin() + kLengthBytes);
  return frame;
}

kj::Promise<void> WriteFrame(kj::AsyncOutputStream& stream,
                             capnp::MessageBuilder& message) {
  auto frame = FrameOf(message);
  auto writing = stream.write(frame.begin(), frame.size());
  return writing.attach(kj::mv(frame));
}

kj::Exception ExceptionOf(kj::Exception::Type type, absl::string_view what) {
  return kj::Exception(type, __FILE__, __LINE__,
                       kj::heapString(what.data(), what.size()));
}

kj::Exception Malformed(const absl::Status& why) {
  return ExceptionOf(kj::Exception::Type::FAILED,
                     absl::StrCat("malformed: ", why.ToString()));
}

void ToWire(const absl::Status& status, peer::Status::Builder out) {
  out.setCode(static_cast<uint16_t>(status.code()));
  if (status.ok()) return;
  out.setMessage(std::string(status.message()).c_str());
}

absl::Status FromWire(peer::Status::Reader status) {
  const auto text = status.getMessage();
  const uint16_t code = status.getCode();
  constexpr auto kLast =
      static_cast<uint16_t>(absl::StatusCode::kUnauthenticated);
  return absl::Status(code <= kLast ? static_cast<absl::StatusCode>(code)
                                    : absl::StatusCode::kUnknown,
                      absl::string_view(text.begin(), text.size()));
}

uint64_t SliceLayout::LayerBytes(const codec::ObjectIndex& index,
                                 int layer) const {
  return index.LayerBytes(levels[layer], slice.layer_begin + layer,
                          slice.head_begin, slice.head_end);
}

uint64_t SliceLayout::AllBytes(const codec::ObjectIndex& index) const {
  uint64_t bytes = 0;
  for (int layer = 0; layer < slice.layers(); ++layer) {
    bytes += LayerBytes(index, layer);
  }
  return bytes;
}

absl::Status CheckSlice(const KvShape& shape, const KvSlice& slice) {
  if (slice.layer_begin < 0 || slice.layer_begin >= slice.layer_end ||
      slice.layer_end > shape.layers || slice.head_begin < 0 ||
      slice.head_begin >= slice.head_end || slice.head_end > shape.kv_heads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layers [", slice.layer_begin, ", ", slice.layer_end, "), heads [",
        slice.head_begin, ", ", slice.head_end, ") of an object that has ",
        shape.layers, " layers and ", shape.kv_heads, " heads"));
  }
  return absl::OkStatus();
}

absl::Status CheckSlice(const codec::ObjectIndex& index,
                        const SliceLayout& layout) {
  const KvSlice& slice = layout.slice;
  if (absl::Status s = CheckSlice(index.header().shape, slice); !s.ok()) {
    return s;
  }
  if (layout.levels.size() != static_cast<size_t>(slice.layers())) {
    return absl::InvalidArgumentError(absl::StrCat(
        layout.levels.size(), " levels for ", slice.layers(), " layers"));
  }
  for (const Level level : layout.levels) {
    if (index.header().levels.Has(level)) continue;
    return absl::NotFoundError(absl::StrCat("the object does not have level ",
                                            std::string(Name(level))));
  }
  return absl::OkStatus();
}

}  // namespace kdn::rpc
