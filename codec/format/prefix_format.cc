#include "codec/format/prefix_format.h"

#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/format/byte_io.h"
#include "codec/format/header_check.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

constexpr size_t kFixedBytes = ObjectIndex::kFixedPrefixBytes;
constexpr size_t kReservedBytes = 16;
constexpr size_t kDigestBytes = ChunkKey::kSize;
constexpr size_t kRopeDoubles = 7;
constexpr size_t kEntryBytes = 24;
constexpr size_t kDigests = 4;

// The first 64 bytes: what the size of the rest follows from.
struct FixedFields {
  uint64_t prefix_bytes = 0;
  uint32_t crc = 0;
  KvShape shape;
  LevelSet levels;
  RopePairing pairing = RopePairing::kNeoX;
  RopeScaling scaling = RopeScaling::kNone;
  int rotary_dim = 0;
  int original_max_position = 0;
  size_t ns_bytes = 0;
  size_t variant_bytes = 0;
};

uint64_t PrefixBytesFor(const KvShape& shape, LevelSet levels, size_t ns_bytes,
                        size_t variant_bytes) {
  const uint64_t bytes = kFixedBytes + kDigests * kDigestBytes +
                         kRopeDoubles * sizeof(double) + ns_bytes +
                         variant_bytes +
                         2 * sizeof(int32_t) * uint64_t{1} * shape.tokens +
                         kEntryBytes * StreamCount(shape, levels);
  return AlignUp(bytes);
}

void WriteFixed(const ObjectHeader& header, uint64_t prefix_bytes,
                ByteWriter* out) {
  out->Bytes(kMagic.data(), kMagic.size());
  out->Write<uint16_t>(kFormatVersion);
  out->Write<uint32_t>(static_cast<uint32_t>(prefix_bytes));
  out->Write<uint32_t>(0);  // the CRC, once all is written
  out->Write<uint32_t>(header.shape.layers);
  out->Write<uint32_t>(header.shape.kv_heads);
  out->Write<uint32_t>(header.shape.tokens);
  out->Write<uint32_t>(header.shape.head_dim);
  out->Write<uint8_t>(static_cast<uint8_t>(header.shape.dtype));
  out->Write<uint8_t>(header.levels.bits());
  out->Write<uint8_t>(static_cast<uint8_t>(header.rope.pairing));
  out->Write<uint8_t>(static_cast<uint8_t>(header.rope.scaling));
  out->Write<int32_t>(header.rope.rotary_dim);
  out->Write<int32_t>(header.rope.original_max_position);
  out->Write<uint16_t>(static_cast<uint16_t>(header.identity.ns.name().size()));
  out->Write<uint16_t>(static_cast<uint16_t>(header.identity.variant.size()));
  const std::byte reserved[kReservedBytes] = {};
  out->Bytes(reserved, kReservedBytes);
  KDN_CHECK(out->written() == kFixedBytes, "the fixed fields are 64 bytes");
}

// DATA_LOSS unless magic, format version and reserved bytes are ours and the
// geometry is within bounds; nothing is allocated before that.
absl::StatusOr<FixedFields> ReadFixed(absl::Span<const std::byte> bytes) {
  if (bytes.size() < kFixedBytes) {
    return absl::DataLossError(absl::StrCat("object ends after ", bytes.size(),
                                            " bytes, inside its header"));
  }
  ByteReader in(bytes.subspan(0, kFixedBytes));
  if (in.Text(kMagic.size()) != kMagic) {
    return absl::DataLossError("no KDN object: wrong magic");
  }
  const uint16_t version = in.Read<uint16_t>();
  if (version != kFormatVersion) {
    return absl::DataLossError(
        absl::StrCat("object format ", version, ", expected ", kFormatVersion));
  }
  FixedFields fields;
  fields.prefix_bytes = in.Read<uint32_t>();
  fields.crc = in.Read<uint32_t>();
  fields.shape.layers = in.Read<int32_t>();
  fields.shape.kv_heads = in.Read<int32_t>();
  fields.shape.tokens = in.Read<int32_t>();
  fields.shape.head_dim = in.Read<int32_t>();
  fields.shape.dtype = static_cast<Dtype>(in.Read<uint8_t>());
  const uint8_t level_bits = in.Read<uint8_t>();
  fields.levels = LevelSet::FromBits(level_bits);
  fields.pairing = static_cast<RopePairing>(in.Read<uint8_t>());
  fields.scaling = static_cast<RopeScaling>(in.Read<uint8_t>());
  fields.rotary_dim = in.Read<int32_t>();
  fields.original_max_position = in.Read<int32_t>();
  fields.ns_bytes = in.Read<uint16_t>();
  fields.variant_bytes = in.Read<uint16_t>();
  const uint64_t reserved = in.Read<uint64_t>() | in.Read<uint64_t>();
  KDN_CHECK(in.ok() && in.remaining() == 0, "the fixed fields are 64 bytes");
  if (const absl::Status shape = CheckShape(fields.shape); !shape.ok()) {
    return absl::DataLossError(absl::StrCat("object ", shape.message()));
  }
  if (fields.levels.bits() != level_bits || reserved != 0) {
    return absl::DataLossError("object has unknown levels or reserved bytes");
  }
  return fields;
}

void WriteIdentity(const ObjectHeader& header, ByteWriter* out) {
  const ChunkIdentity& identity = header.identity;
  out->Bytes(identity.fingerprint.bytes().data(), kDigestBytes);
  out->Bytes(identity.condition.bytes().data(), kDigestBytes);
  out->Bytes(header.placement.bytes().data(), kDigestBytes);
  out->Bytes(header.calibration.bytes().data(), kDigestBytes);
  const RopeSpec& rope = header.rope;
  for (double value :
       {rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
        rope.beta_fast, rope.beta_slow, rope.attention_factor}) {
    out->Write<double>(value);
  }
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

RopeSpec ReadRope(const FixedFields& fixed, ByteReader* in) {
  RopeSpec rope;
  rope.rotary_dim = fixed.rotary_dim;
  rope.pairing = fixed.pairing;
  rope.scaling = fixed.scaling;
  rope.original_max_position = fixed.original_max_position;
  for (double* value : {&rope.theta, &rope.factor, &rope.low_freq_factor,
                        &rope.high_freq_factor, &rope.beta_fast,
                        &rope.beta_slow, &rope.attention_factor}) {
    *value = in->Read<double>();
  }
  return rope;
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
  const auto placement = ReadDigest<PlacementKey>(in);
  const auto calibration = ReadDigest<CalibrationId>(in);
  const RopeSpec rope = ReadRope(fixed, in);
  auto ns = Namespace::Parse(in->Text(fixed.ns_bytes));
  if (!ns.ok()) return ns.status();
  std::string variant(in->Text(fixed.variant_bytes));
  std::vector<int32_t> tokens = ReadInts(fixed.shape.tokens, in);
  std::vector<int32_t> positions = ReadInts(fixed.shape.tokens, in);
  ObjectHeader header{.identity = {fingerprint, *std::move(ns), condition,
                                   std::move(variant), std::move(tokens)},
                      .placement = placement,
                      .shape = fixed.shape,
                      .rope = rope,
                      .positions = std::move(positions),
                      .levels = fixed.levels,
                      .calibration = calibration};
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  return header;
}

bool IsError(float value) { return std::isfinite(value) && value >= 0.0f; }

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

bool AllZero(absl::Span<const std::byte> bytes) {
  for (std::byte byte : bytes) {
    if (byte != std::byte{0}) return false;
  }
  return true;
}

// Sizes follow from the geometry, so a length that differs is a lie.
absl::Status CheckPrefixBytes(const FixedFields& fixed) {
  const uint64_t expected = PrefixBytesFor(fixed.shape, fixed.levels,
                                           fixed.ns_bytes, fixed.variant_bytes);
  if (fixed.prefix_bytes == expected) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("object states ", fixed.prefix_bytes,
                   " bytes of header and index, its shape needs ", expected));
}

}  // namespace

uint64_t PrefixBytesFor(const ObjectHeader& header) {
  return PrefixBytesFor(header.shape, header.levels,
                        header.identity.ns.name().size(),
                        header.identity.variant.size());
}

uint32_t PrefixCrc(absl::Span<const std::byte> prefix) {
  KDN_CHECK(prefix.size() >= kFixedBytes, "a prefix has its fixed fields");
  const uint32_t before = Crc32c(prefix.subspan(0, kCrcOffset));
  return ExtendCrc32c(before, prefix.subspan(kCrcOffset + sizeof(uint32_t)));
}

ObjectVersion VersionOf(absl::Span<const std::byte> prefix) {
  return ObjectVersion(XXH3_64bits(prefix.data(), prefix.size()));
}

void WritePrefix(const ObjectHeader& header,
                 absl::Span<const StreamEntry> entries,
                 absl::Span<std::byte> out) {
  KDN_CHECK(out.size() == PrefixBytesFor(header), "prefix of another size");
  KDN_CHECK(entries.size() == StreamCount(header.shape, header.levels),
            "one entry per stream");
  ByteWriter writer(out);
  WriteFixed(header, out.size(), &writer);
  WriteIdentity(header, &writer);
  for (const StreamEntry& entry : entries) {
    writer.Write<uint64_t>(entry.offset);
    writer.Write<uint32_t>(entry.bytes);
    writer.Write<uint32_t>(entry.crc32c);
    writer.Write<float>(entry.error_max);
    writer.Write<float>(entry.error_rms);
  }
  KDN_CHECK(AlignUp(writer.written()) == out.size(), "prefix size is exact");
  writer.ZeroRest();
  ByteWriter(out.subspan(kCrcOffset)).Write<uint32_t>(PrefixCrc(out));
}

absl::StatusOr<uint64_t> ReadPrefixBytes(
    absl::Span<const std::byte> fixed_prefix) {
  const auto fixed = ReadFixed(fixed_prefix);
  if (!fixed.ok()) return fixed.status();
  if (absl::Status s = CheckPrefixBytes(*fixed); !s.ok()) return s;
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
      ReadEntries(StreamCount(fixed->shape, fixed->levels), &in);
  for (const StreamEntry& entry : entries) {
    if (!IsError(entry.error_max) || !IsError(entry.error_rms)) {
      return absl::DataLossError("object index: an error is not finite");
    }
  }
  if (!in.ok() || !AllZero(in.Bytes(in.remaining()))) {
    return absl::DataLossError("object header is not padded with zeros");
  }
  return ParsedPrefix{*std::move(header), std::move(entries)};
}

}  // namespace kdn::codec
