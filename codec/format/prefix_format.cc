#include "codec/format/prefix_format.h"

#include <xxhash.h>

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/format/byte_io.h"
#include "codec/format/fixed_fields.h"
#include "codec/format/header_check.h"
#include "codec/format/rope_fields.h"
#include "codec/format/sections.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

constexpr size_t kFixedBytes = ObjectIndex::kFixedPrefixBytes;
constexpr size_t kDigestBytes = ChunkKey::kSize;

void WriteIdentity(const ObjectHeader& header, ByteWriter* out) {
  const ChunkIdentity& identity = header.identity;
  out->Bytes(identity.fingerprint.bytes().data(), kDigestBytes);
  out->Bytes(identity.condition.bytes().data(), kDigestBytes);
  const std::array<std::byte, kDigestBytes> unread{};
  out->Bytes(unread.data(), unread.size());
  out->Bytes(header.calibration.bytes().data(), kDigestBytes);
  WriteRopeTable(RopeTableOf(header), out);
  out->Bytes(identity.ns.name().data(), identity.ns.name().size());
  out->Bytes(identity.variant.data(), identity.variant.size());
  out->Bytes(identity.tokens.data(), identity.tokens.size() * sizeof(int32_t));
  out->Bytes(header.positions.data(),
             header.positions.size() * sizeof(int32_t));
}

template <typename D>
D ReadDigest(ByteReader* in) {
  const absl::Span<const std::byte> bytes = in->Bytes(kDigestBytes);
  const auto digest = D::FromBytes(
      {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  return digest.value_or(D());
}

// One RopeSpec for all layers, or one for each layer.
absl::StatusOr<std::vector<RopeSpec>> ReadRopes(const FixedFields& fixed,
                                                ByteReader* in) {
  if (fixed.version != 2) {
    return ReadRopeTable(fixed.ropes, fixed.shape.layers, in);
  }
  RopeSpec rope = fixed.rope;
  ReadRopeDoubles(in, &rope);
  return std::vector<RopeSpec>{rope};
}

std::vector<int32_t> ReadInts(size_t count, ByteReader* in) {
  const absl::Span<const std::byte> bytes = in->Bytes(count * sizeof(int32_t));
  std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

absl::StatusOr<ObjectHeader> ReadHeader(const FixedFields& fixed,
                                        ByteReader* in) {
  const auto fingerprint = ReadDigest<ModelFingerprint>(in);
  const auto condition = ReadDigest<ChunkKey>(in);
  in->Bytes(kDigestBytes);  // earlier builds wrote a placement key
  const auto calibration = ReadDigest<CalibrationId>(in);
  absl::StatusOr<std::vector<RopeSpec>> ropes = ReadRopes(fixed, in);
  if (!ropes.ok()) return ropes.status();
  auto ns = Namespace::Parse(in->Text(fixed.ns_bytes));
  if (!ns.ok()) return ns.status();
  std::string variant(in->Text(fixed.variant_bytes));
  std::vector<int32_t> tokens = ReadInts(fixed.shape.tokens, in);
  std::vector<int32_t> positions = ReadInts(fixed.shape.tokens, in);
  ObjectHeader header{.identity = {fingerprint, *std::move(ns), condition,
                                   std::move(variant), std::move(tokens)},
                      .shape = fixed.shape,
                      .rope = ropes->front(),
                      .positions = std::move(positions),
                      .levels = fixed.levels,
                      .calibration = calibration};
  header.depth = fixed.depth;
  header.joint_heads = fixed.joint_heads;
  if (ropes->size() > 1) header.layer_ropes = *std::move(ropes);
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  return header;
}

bool IsError(float value) { return std::isfinite(value) && value >= 0.0f; }

// Checks the errors of all entries. The entries of lossless come first.
absl::Status CheckErrors(const FixedFields& fixed,
                         absl::Span<const StreamEntry> entries) {
  for (const StreamEntry& entry : entries) {
    if (!IsError(entry.error_max) || !IsError(entry.error_rms)) {
      return absl::DataLossError(
          "object index: an error is not finite or is below 0");
    }
  }
  if (!fixed.levels.Has(Level::kLossless)) return absl::OkStatus();
  const size_t exact = StreamCount(fixed.shape, LevelSet::Of(Level::kLossless));
  for (const StreamEntry& entry : entries.first(exact)) {
    if (entry.error_max != 0.0f || entry.error_rms != 0.0f) {
      return absl::DataLossError(
          "object index: an error of a lossless stream is not 0");
    }
  }
  return absl::OkStatus();
}

std::vector<StreamEntry> ReadEntries(size_t count, ByteReader* in) {
  std::vector<StreamEntry> entries(count);
  for (StreamEntry& entry : entries) {
    entry.offset = in->Read<uint64_t>();
    entry.bytes = in->Read<uint32_t>();
    entry.crc32c = in->Read<uint32_t>();
    entry.error_max = in->Read<float>();
    entry.error_rms = in->Read<float>();
  }
  return entries;
}

}  // namespace

uint64_t PrefixBytesFor(const ObjectHeader& header) {
  return FixedFieldsOf(header).prefix_bytes;
}

ObjectVersion VersionOf(absl::Span<const std::byte> prefix) {
  return ObjectVersion(XXH3_64bits(prefix.data(), prefix.size()));
}

void WritePrefix(const ObjectHeader& header,
                 absl::Span<const StreamEntry> entries,
                 absl::Span<std::byte> out) {
  KDN_CHECK(out.size() == PrefixBytesFor(header), "prefix of another size");
  KDN_CHECK(entries.size() == StreamCount(GridOf(header), header.levels),
            "one entry per stream");
  ByteWriter writer(out);
  WriteFixed(FixedFieldsOf(header), &writer);  // without the CRC
  WriteIdentity(header, &writer);
  for (const StreamEntry& entry : entries) {
    writer.Write<uint64_t>(entry.offset);
    writer.Write<uint32_t>(entry.bytes);
    writer.Write<uint32_t>(entry.crc32c);
    writer.Write<float>(entry.error_max);
    writer.Write<float>(entry.error_rms);
  }
  WriteSections(header.sections, &writer);
  KDN_CHECK(AlignUp(writer.written()) == out.size(), "prefix size is exact");
  writer.ZeroRest();
  ByteWriter(out.subspan(kCrcOffset)).Write<uint32_t>(PrefixCrc(out));
}

absl::StatusOr<uint64_t> ReadPrefixBytes(
    absl::Span<const std::byte> fixed_prefix) {
  const auto fixed = ReadFixed(fixed_prefix);
  if (!fixed.ok()) return fixed.status();
  return fixed->prefix_bytes;
}

absl::StatusOr<ParsedPrefix> ReadPrefix(absl::Span<const std::byte> prefix) {
  const auto fixed = ReadFixed(prefix);
  if (!fixed.ok()) return fixed.status();
  KDN_CHECK(prefix.size() == fixed->prefix_bytes, "prefix of another size");
  const uint32_t crc = PrefixCrc(prefix);
  if (crc != fixed->crc) {
    return absl::DataLossError(
        absl::StrCat("object header and index have CRC32C ", absl::Hex(crc),
                     ", expected ", absl::Hex(fixed->crc)));
  }
  ByteReader in(prefix.subspan(kFixedBytes));
  auto header = ReadHeader(*fixed, &in);
  if (!header.ok()) {
    return absl::DataLossError(
        absl::StrCat("object header: ", header.status().message()));
  }
  std::vector<StreamEntry> entries =
      ReadEntries(StreamCount(fixed->grid(), fixed->levels), &in);
  const absl::Status errors = CheckErrors(*fixed, entries);
  if (!errors.ok()) return errors;
  const absl::Status sections =
      ReadSections(fixed->sections_bytes, &in, &header->sections);
  if (!sections.ok() && !absl::IsUnimplemented(sections)) return sections;
  if (!in.ok() || !AllZero(in.Bytes(in.remaining()))) {
    return absl::DataLossError("object header is not padded with zeros");
  }
  if (!sections.ok()) return sections;
  return ParsedPrefix{*std::move(header), std::move(entries)};
}

}  // namespace kdn::codec
