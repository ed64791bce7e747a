#include "codec/format/object.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/format/byte_io.h"
#include "codec/format/prefix_format.h"
#include "codec/format/stream_layout.h"
#include "codec/stream_codec.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

// Walks the streams in file order. Each must begin where the one before it
// ends, or at the next multiple of kGroupAlignment for the first of a group,
// and have a length that its codec can write. The last must end the object.
absl::Status CheckStreams(const ParsedPrefix& parsed, uint64_t prefix_bytes,
                          uint64_t object_bytes) {
  const ObjectHeader& header = parsed.header;
  uint64_t cursor = prefix_bytes;
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    cursor = AlignUp(cursor);
    const StreamCodec& codec = CodecOf(group.level);
    for (const StreamId& id : StreamsOf(GridOf(header), group)) {
      const StreamEntry& entry =
          parsed.entries[SlotOf(GridOf(header), header.levels, id)];
      const StreamShape shape = StreamShapeOf(GridOf(header), id);
      const bool whole = entry.bytes > 0 || entry.crc32c == 0;
      if (entry.offset != cursor || !whole ||
          !codec.MayHaveBytes(shape, id.level, entry.bytes)) {
        return absl::DataLossError(
            absl::StrCat("object index: ", Name(id), " has ", entry.bytes,
                         " bytes at ", entry.offset, ", expected at ", cursor));
      }
      cursor += entry.bytes;
    }
  }
  if (cursor == object_bytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "object has ", object_bytes, " bytes, its streams end at ", cursor));
}

// No checksum covers the gaps between groups, so they must be zeros.
absl::Status VerifyPadding(const ObjectIndex& index,
                           absl::Span<const std::byte> object) {
  const ObjectHeader& header = index.header();
  uint64_t end = index.prefix_bytes();
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    const auto streams = StreamsOf(GridOf(header), group);
    const StreamEntry& first = index.Entry(streams.front());
    if (!AllZero(object.subspan(end, first.offset - end))) {
      return absl::DataLossError(
          absl::StrCat("chunk ", ShortHex(index.key()), ": padding before ",
                       Name(streams.front()), " is not zero"));
    }
    const StreamEntry& last = index.Entry(streams.back());
    end = last.offset + last.bytes;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> ObjectIndex::PrefixBytes(
    absl::Span<const std::byte> fixed_prefix) {
  return ReadPrefixBytes(fixed_prefix);
}

absl::StatusOr<ObjectIndex> ObjectIndex::Parse(
    absl::Span<const std::byte> prefix, uint64_t object_bytes) {
  const auto prefix_bytes = ReadPrefixBytes(prefix);
  if (!prefix_bytes.ok()) return prefix_bytes.status();
  if (*prefix_bytes > std::min<uint64_t>(prefix.size(), object_bytes)) {
    return absl::DataLossError(absl::StrCat(
        "object has ", *prefix_bytes, " bytes of header and index, but ",
        prefix.size(), " of its ", object_bytes, " bytes are here"));
  }
  prefix = prefix.subspan(0, *prefix_bytes);
  auto parsed = ReadPrefix(prefix);
  if (!parsed.ok()) return parsed.status();
  if (absl::Status s = CheckStreams(*parsed, *prefix_bytes, object_bytes);
      !s.ok()) {
    return s;
  }
  ObjectIndex index(std::move(parsed->header), std::move(parsed->entries));
  index.key_ = KeyOf(index.header_);
  index.version_ = VersionOf(prefix);
  index.prefix_bytes_ = *prefix_bytes;
  index.object_bytes_ = object_bytes;
  return index;
}

ObjectIndex::ObjectIndex(ObjectHeader header, std::vector<StreamEntry> entries)
    : header_(std::move(header)), entries_(std::move(entries)) {
  KDN_CHECK(entries_.size() == StreamCount(GridOf(header_), header_.levels),
            "one entry per stream");
}

const StreamEntry& ObjectIndex::Entry(const StreamId& id) const {
  return entries_[SlotOf(GridOf(header_), header_.levels, id)];
}

std::vector<ByteRange> ObjectIndex::LayerRanges(Level level, int layer,
                                                int head_begin,
                                                int head_end) const {
  std::vector<ByteRange> ranges;
  for (const Level step : LadderTo(level)) {
    for (const StreamId& id :
         StreamsOf(GridOf(header_), {layer, step}, head_begin, head_end)) {
      const StreamEntry& entry = Entry(id);
      if (entry.bytes == 0) continue;
      if (!ranges.empty() &&
          ranges.back().offset + ranges.back().bytes == entry.offset) {
        ranges.back().bytes += entry.bytes;
      } else {
        ranges.push_back({entry.offset, entry.bytes});
      }
    }
  }
  return ranges;
}

uint64_t ObjectIndex::LayerBytes(Level level, int layer, int head_begin,
                                 int head_end) const {
  uint64_t bytes = 0;
  for (const ByteRange& range :
       LayerRanges(level, layer, head_begin, head_end)) {
    bytes += range.bytes;
  }
  return bytes;
}

absl::Status VerifyChecksum(const ObjectIndex& index, const StreamId& id,
                            size_t bytes, uint32_t crc32c) {
  const StreamEntry& entry = index.Entry(id);
  if (bytes == entry.bytes && crc32c == entry.crc32c) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("chunk ", ShortHex(index.key()), " ", Name(id), ": ", bytes,
                   " bytes with CRC32C ", absl::Hex(crc32c), ", expected ",
                   entry.bytes, " with ", absl::Hex(entry.crc32c)));
}

absl::Status VerifyStream(const ObjectIndex& index, const StreamId& id,
                          absl::Span<const std::byte> bytes) {
  return VerifyChecksum(index, id, bytes.size(), Crc32c(bytes));
}

absl::Status VerifyObject(const ObjectIndex& index,
                          absl::Span<const std::byte> object) {
  if (object.size() != index.object_bytes() ||
      VersionOf(object.subspan(0, index.prefix_bytes())) != index.version()) {
    return absl::DataLossError(
        absl::StrCat("chunk ", ShortHex(index.key()), ": object of ",
                     object.size(), " bytes is not the object of this index"));
  }
  const ObjectHeader& header = index.header();
  for (const StreamGroup& group : GroupsOf(header.shape, header.levels)) {
    for (const StreamId& id : StreamsOf(GridOf(header), group)) {
      const StreamEntry& entry = index.Entry(id);
      if (absl::Status s = VerifyStream(
              index, id, object.subspan(entry.offset, entry.bytes));
          !s.ok()) {
        return s;
      }
    }
  }
  return VerifyPadding(index, object);
}

}  // namespace kdn::codec
