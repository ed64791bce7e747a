#include "storage/record.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the on-disk structure is little-endian");

constexpr char kMagicV1[8] = {'K', 'D', 'N', 'R', 'E', 'C', '0', '1'};
constexpr char kMagicV2[8] = {'K', 'D', 'N', 'R', 'E', 'C', '0', '2'};
constexpr size_t kNsMax = 128;
// Far more than a segment can hold, and sums of it do not overflow.
constexpr uint64_t kPayloadMax = uint64_t{1} << 48;

// The page on disk. The rest of the page is zero. In version 1, the fields that
// are marked "version 2" are zero.
struct PageLayout {
  char magic[8];
  uint32_t crc32c;  // of the bytes from behind this field to the page's end
  uint32_t payload_crc32c;
  uint64_t store_id;
  uint64_t offset;
  uint64_t sequence;
  uint64_t version;
  uint64_t payload_bytes;
  uint32_t segment;
  uint32_t shard;
  uint8_t key[32];
  uint8_t kind;
  uint8_t levels;
  uint8_t ns_bytes;
  uint8_t durability;  // version 2
  char ns[kNsMax];
  uint32_t depth;          // version 2
  int64_t expiry_unix_us;  // version 2
  uint8_t unread[32];      // version 2: earlier builds wrote something here
};
static_assert(sizeof(PageLayout) == 272, "the layout has no hidden padding");

constexpr size_t kCrcBegin = offsetof(PageLayout, payload_crc32c);

bool HasMagic(const PageLayout& layout, const char (&magic)[8]) {
  return std::memcmp(layout.magic, magic, sizeof(magic)) == 0;
}

PageLayout LayoutOf(const RecordHeader& header) {
  PageLayout layout{};
  std::memcpy(layout.magic, kMagicV2, sizeof(kMagicV2));
  layout.payload_crc32c = header.payload_crc32c;
  layout.store_id = header.store_id;
  layout.offset = header.offset;
  layout.sequence = header.sequence;
  layout.version = header.version.value();
  layout.payload_bytes = header.payload_bytes;
  layout.segment = header.segment;
  layout.shard = header.shard.value();
  std::copy(header.key.bytes().begin(), header.key.bytes().end(), layout.key);
  layout.kind = static_cast<uint8_t>(header.kind);
  layout.levels = header.levels;
  layout.ns_bytes = static_cast<uint8_t>(header.ns.size());
  layout.durability = static_cast<uint8_t>(header.durability);
  std::copy(header.ns.begin(), header.ns.end(), layout.ns);
  layout.depth = header.depth;
  layout.expiry_unix_us = header.expiry_unix_us;
  return layout;
}

// REQUIRES: the fields are in their bounds.
RecordHeader HeaderIn(const PageLayout& layout) {
  RecordHeader header;
  header.kind = static_cast<RecordHeader::Kind>(layout.kind);
  header.store_id = layout.store_id;
  header.segment = layout.segment;
  header.offset = layout.offset;
  header.sequence = layout.sequence;
  header.shard = ShardId(layout.shard);
  header.key = *ChunkKey::FromBytes(layout.key);
  header.ns.assign(layout.ns, layout.ns_bytes);
  header.version = ObjectVersion(layout.version);
  header.levels = layout.levels;
  header.payload_bytes = layout.payload_bytes;
  header.payload_crc32c = layout.payload_crc32c;
  if (HasMagic(layout, kMagicV1)) return header;
  header.durability = static_cast<Durability>(layout.durability);
  header.depth = layout.depth;
  header.expiry_unix_us = layout.expiry_unix_us;
  return header;
}

bool FieldsAreInBounds(const PageLayout& layout) {
  const auto kind = static_cast<RecordHeader::Kind>(layout.kind);
  return (kind == RecordHeader::Kind::kObject ||
          kind == RecordHeader::Kind::kTombstone) &&
         layout.ns_bytes <= kNsMax && layout.payload_bytes <= kPayloadMax &&
         layout.durability <= static_cast<uint8_t>(Durability::kDurable) &&
         layout.expiry_unix_us >= 0;
}

// The layout that a writer of the same version makes for this header.
PageLayout CanonicalOf(const PageLayout& layout, const RecordHeader& header) {
  PageLayout canonical = LayoutOf(header);
  std::memcpy(canonical.magic, layout.magic, sizeof(layout.magic));
  if (HasMagic(layout, kMagicV1)) {
    canonical.durability = 0;
  } else {
    std::memcpy(canonical.unread, layout.unread, sizeof(layout.unread));
  }
  canonical.crc32c = layout.crc32c;
  return canonical;
}

}  // namespace

uint64_t RecordBytes(uint64_t payload_bytes) {
  return kRecordPage +
         (payload_bytes + kRecordPage - 1) / kRecordPage * kRecordPage;
}

void EncodeRecordHeader(const RecordHeader& header,
                        absl::Span<std::byte> page) {
  KDN_CHECK(page.size() == kRecordPage, "a record header is one page");
  KDN_CHECK(header.ns.size() <= kNsMax, "namespaces are bounded");
  KDN_CHECK(header.expiry_unix_us >= 0, "an expiry lies after 1970");
  PageLayout layout = LayoutOf(header);
  std::fill(page.begin(), page.end(), std::byte{0});
  std::memcpy(page.data(), &layout, sizeof(layout));
  layout.crc32c = Crc32c(page.subspan(kCrcBegin));
  std::memcpy(page.data(), &layout, sizeof(layout));
}

absl::StatusOr<RecordHeader> DecodeRecordHeader(
    absl::Span<const std::byte> page) {
  if (page.size() != kRecordPage) {
    return absl::DataLossError("a record header is one page");
  }
  PageLayout layout;
  std::memcpy(&layout, page.data(), sizeof(layout));
  if (!HasMagic(layout, kMagicV1) && !HasMagic(layout, kMagicV2)) {
    return absl::DataLossError("no record begins here");
  }
  if (layout.crc32c != Crc32c(page.subspan(kCrcBegin))) {
    return absl::DataLossError("a record header fails its checksum");
  }
  if (!FieldsAreInBounds(layout)) {
    return absl::DataLossError("a record header has impossible fields");
  }
  RecordHeader header = HeaderIn(layout);
  const PageLayout canonical = CanonicalOf(layout, header);
  const absl::Span<const std::byte> rest = page.subspan(sizeof(layout));
  if (std::memcmp(&canonical, &layout, sizeof(layout)) != 0 ||
      std::any_of(rest.begin(), rest.end(),
                  [](std::byte b) { return b != std::byte{0}; })) {
    return absl::DataLossError("a record header has stray bytes");
  }
  return header;
}

ObjectInfo InfoOf(const RecordHeader& header, absl::Duration wall_offset) {
  ObjectInfo info;
  info.key = header.key;
  info.shard = header.shard;
  info.ns = header.ns;
  info.version = header.version;
  info.bytes = header.payload_bytes;
  info.levels = header.levels;
  info.tier = Tier::kDisk;
  info.durability = header.durability;
  info.depth = header.depth;
  if (header.expiry_unix_us > 0) {
    info.expires = absl::FromUnixMicros(header.expiry_unix_us) - wall_offset;
  }
  return info;
}

RecordHeader HeaderOf(const ObjectInfo& info, absl::Duration wall_offset) {
  RecordHeader header;
  header.shard = info.shard;
  header.key = info.key;
  header.ns = info.ns;
  header.version = info.version;
  header.levels = info.levels;
  header.payload_bytes = info.bytes;
  header.durability = info.durability;
  header.depth = info.depth;
  if (info.expires > absl::InfinitePast()) {
    header.expiry_unix_us =
        std::max<int64_t>(1, absl::ToUnixMicros(info.expires + wall_offset));
  }
  return header;
}

}  // namespace kdn::storage
