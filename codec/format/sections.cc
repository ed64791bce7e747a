#include "codec/format/sections.h"

#include "absl/strings/str_cat.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

constexpr uint16_t kCritical = 1;
// Bytes of a section's id, flags, length and CRC.
constexpr size_t kHeadBytes = 12;

}  // namespace

absl::Status CheckSections(absl::Span<const Section> sections) {
  uint64_t bytes = 0;
  int last = 0;
  for (const Section& section : sections) {
    if (section.id <= last) {
      return absl::InvalidArgumentError(
          absl::StrCat("section ", section.id, " follows section ", last,
                       ", expected ids that ascend from 1"));
    }
    last = section.id;
    bytes += kHeadBytes + section.content.size();
  }
  if (bytes <= kSectionsBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "sections of ", bytes, " bytes, expected at most ", kSectionsBytesMax));
}

absl::Status RefuseCritical(absl::Span<const Section> sections) {
  for (const Section& section : sections) {
    if (!section.critical) continue;
    return absl::UnimplementedError(
        absl::StrCat("section ", section.id,
                     " is critical, and this version does not know it"));
  }
  return absl::OkStatus();
}

uint32_t SectionsBytes(absl::Span<const Section> sections) {
  size_t bytes = 0;
  for (const Section& section : sections) {
    bytes += kHeadBytes + section.content.size();
  }
  return static_cast<uint32_t>(bytes);
}

void WriteSections(absl::Span<const Section> sections, ByteWriter* out) {
  for (const Section& section : sections) {
    out->Write<uint16_t>(section.id);
    out->Write<uint16_t>(section.critical ? kCritical : 0);
    out->Write<uint32_t>(static_cast<uint32_t>(section.content.size()));
    out->Write<uint32_t>(Crc32c(section.content));
    out->Bytes(section.content.data(), section.content.size());
  }
}

namespace {

// The number of sections, up to the first whose length goes past the end.
size_t CountSections(ByteReader in) {
  size_t count = 0;
  for (; in.remaining() > 0 && in.ok(); ++count) {
    in.Bytes(2 * sizeof(uint16_t));  // id and flags
    const auto length = in.Read<uint32_t>();
    in.Bytes(sizeof(uint32_t));  // CRC
    in.Bytes(length);
  }
  return count;
}

}  // namespace

absl::Status ReadSections(uint32_t bytes, ByteReader* in,
                          std::vector<Section>* sections) {
  ByteReader own(in->Bytes(bytes));
  // Growing step by step would allocate more than the bytes justify.
  sections->reserve(CountSections(own));
  while (own.remaining() > 0) {
    const auto id = own.Read<uint16_t>();
    const auto flags = own.Read<uint16_t>();
    const auto length = own.Read<uint32_t>();
    const auto crc = own.Read<uint32_t>();
    const absl::Span<const std::byte> content = own.Bytes(length);
    if (!own.ok() || (flags & ~kCritical) != 0) {
      return absl::DataLossError(
          absl::StrCat("object section ", id, " has unknown flags (", flags,
                       ") or ends past the sections (", length, " bytes)"));
    }
    if (Crc32c(content) != crc) {
      return absl::DataLossError(
          absl::StrCat("object section ", id, " fails its checksum"));
    }
    sections->push_back(
        {id, flags == kCritical, {content.begin(), content.end()}});
  }
  if (absl::Status s = CheckSections(*sections); !s.ok()) {
    return absl::DataLossError(absl::StrCat("object ", s.message()));
  }
  return RefuseCritical(*sections);
}

}  // namespace kdn::codec
