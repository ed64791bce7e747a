// Reads any page as the header of a record, as it is and with a correct
// checksum.

#include <algorithm>
#include <array>
#include <cstring>

#include "kv/check.h"
#include "kv/crc32c.h"
#include "storage/record.h"
#include "tests/fuzz/allocated_bytes.h"
#include "tests/fuzz/fuzz_target.h"

namespace kdn::storage {
namespace {

using Page = std::array<std::byte, kRecordPage>;
// docs/formats.md, "Segments and index".
constexpr size_t kVersionAt = 7;
constexpr size_t kCrcAt = 8;
constexpr size_t kCrcBegin = 12;
constexpr size_t kDurabilityAt = 99;
constexpr size_t kUnreadAt = 240;
constexpr size_t kUnreadBytes = 32;

void Consume(const Page& page) {
  const size_t before = fuzz::AllocatedBytes();
  const auto header = DecodeRecordHeader(page);
  KDN_CHECK(fuzz::AllocatedBytes() - before <= kRecordPage,
            "a header takes no more memory than its page");
  if (!header.ok()) {
    KDN_CHECK(absl::IsDataLoss(header.status()), "bad bytes are DATA_LOSS");
    return;
  }
  KDN_CHECK(RecordBytes(header->payload_bytes) > header->payload_bytes,
            "a record is longer than its payload");
  Page again;
  EncodeRecordHeader(*header, absl::MakeSpan(again));
  const auto reread = DecodeRecordHeader(again);
  KDN_CHECK(reread.ok() && *reread == *header,
            "a header keeps its meaning when it is written in version 2");
  if (again[kVersionAt] != page[kVersionAt]) return;
  // Apart from the field that readers ignore.
  std::copy_n(page.begin() + kCrcAt, sizeof(uint32_t), again.begin() + kCrcAt);
  std::copy_n(page.begin() + kUnreadAt, kUnreadBytes,
              again.begin() + kUnreadAt);
  KDN_CHECK(again == page,
            "writing a header of version 2 gives the bytes that were read");
}

// Makes the page one of version 1, as far as the fields are the same.
void ToVersion1(Page& page) {
  page[kVersionAt] = std::byte{'1'};
  page[kDurabilityAt] = std::byte{0};
}

}  // namespace
}  // namespace kdn::storage

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kdn::storage;
  Page page{};
  if (size > 0) std::memcpy(page.data(), data, std::min(size, page.size()));
  Consume(page);
  const uint32_t crc =
      kdn::Crc32c(absl::MakeConstSpan(page).subspan(kCrcBegin));
  std::memcpy(page.data() + kCrcAt, &crc, sizeof(crc));
  Consume(page);
  return 0;
}

namespace kdn::fuzz {

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const auto kind : {storage::RecordHeader::Kind::kObject,
                          storage::RecordHeader::Kind::kTombstone}) {
    storage::RecordHeader header;
    header.kind = kind;
    header.store_id = 7;
    header.segment = 3;
    header.offset = 8192;
    header.ns = "tenant";
    header.payload_bytes = 100000;
    storage::Page page;
    storage::EncodeRecordHeader(header, absl::MakeSpan(page));
    storage::ToVersion1(page);
    // Only the fields, because mutations of the zeros behind them find little.
    seeds.emplace_back(reinterpret_cast<const char*>(page.data()), 272);
    header.durability = Durability::kDurable;
    header.depth = 3;
    header.expiry_unix_us = 1790000000000000;
    storage::EncodeRecordHeader(header, absl::MakeSpan(page));
    seeds.emplace_back(reinterpret_cast<const char*>(page.data()), 272);
  }
  return seeds;
}

}  // namespace kdn::fuzz
