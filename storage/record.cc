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

constexpr char kMagic[8] = {'K', 'D', 'N', 'R', 'E', 'C', '0', '1'};
constexpr size_t kNsMax = 128;
// Far more than a segment holds; sums of it do not overflow.
constexpr uint64_t kPayloadMax = uint64_t{1} << 48;

// The page as it lies on disk; zero behind it.
struct PageLayout {
  char magic[8];
  uint32_t crc32c;  // of everything behind this field, to the page's end
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
  uint8_t zero;
  char ns[kNsMax];
};
static_assert(sizeof(PageLayout) == 232, "the format has no hidden padding");

constexpr size_t kCrcBegin = offsetof(PageLayout, payload_crc32c);

}  // namespace

uint64_t RecordBytes(uint64_t payload_bytes) {
  return kRecordPage +
         (payload_bytes + kRecordPage - 1) / kRecordPage * kRecordPage;
}

void EncodeRecordHeader(const RecordHeader& header,
                        absl::Span<std::byte> page) {
  KDN_CHECK(page.size() == kRecordPage, "a record header is one page");
  KDN_CHECK(header.ns.size() <= kNsMax, "namespaces are bounded");
  PageLayout layout{};
  std::memcpy(layout.magic, kMagic, sizeof(kMagic));
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
  std::copy(header.ns.begin(), header.ns.end(), layout.ns);
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
  if (std::memcmp(layout.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("no record begins here");
  }
  if (layout.crc32c != Crc32c(page.subspan(kCrcBegin))) {
    return absl::DataLossError("a record header fails its checksum");
  }
  const auto kind = static_cast<RecordHeader::Kind>(layout.kind);
  if ((kind != RecordHeader::Kind::kObject &&
       kind != RecordHeader::Kind::kTombstone) ||
      layout.ns_bytes > kNsMax || layout.payload_bytes > kPayloadMax) {
    return absl::DataLossError("a record header has impossible fields");
  }
  RecordHeader header;
  header.kind = kind;
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
  std::array<std::byte, kRecordPage> canonical;
  EncodeRecordHeader(header, absl::MakeSpan(canonical));
  if (std::memcmp(canonical.data(), page.data(), kRecordPage) != 0) {
    return absl::DataLossError("a record header has bytes it should not have");
  }
  return header;
}

ObjectInfo InfoOf(const RecordHeader& header) {
  ObjectInfo info;
  info.key = header.key;
  info.shard = header.shard;
  info.ns = header.ns;
  info.version = header.version;
  info.bytes = header.payload_bytes;
  info.levels = header.levels;
  info.tier = Tier::kDisk;
  return info;
}

}  // namespace kdn::storage
