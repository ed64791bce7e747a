#ifndef KDN_CODEC_FORMAT_STREAM_READER_H_
#define KDN_CODEC_FORMAT_STREAM_READER_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {

// Hands out the bytes of one stream in order and adds them to a CRC32C on the
// way, so that memory is read once and the codec finds the bytes in the cache.
// A codec may thus work on damaged bytes: the caller of the codec compares
// crc32c() when all bytes are read. Does not own the bytes. Thread-compatible.
class StreamReader {
 public:
  explicit StreamReader(absl::Span<const std::byte> stream) : stream_(stream) {}

  // The next `bytes` bytes of the stream. REQUIRES: bytes <= remaining().
  absl::Span<const std::byte> Next(size_t bytes) {
    KDN_CHECK(bytes <= remaining(), "past the end of the stream");
    const absl::Span<const std::byte> next = stream_.subspan(at_, bytes);
    crc_ = ExtendCrc32c(crc_, next);
    at_ += bytes;
    return next;
  }

  size_t size() const { return stream_.size(); }
  size_t remaining() const { return stream_.size() - at_; }
  // The CRC32C of the bytes handed out so far.
  uint32_t crc32c() const { return crc_; }

 private:
  absl::Span<const std::byte> stream_;
  size_t at_ = 0;
  uint32_t crc_ = 0;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_STREAM_READER_H_
