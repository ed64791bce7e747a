#include "codec/format/fixed_fields.h"

#include "absl/strings/str_cat.h"
#include "codec/format/header_check.h"
#include "codec/format/rope_fields.h"
#include "codec/format/stream_layout.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

constexpr size_t kFixedBytes = ObjectIndex::kFixedPrefixBytes;
constexpr size_t kDigests = 4;
// Reserved bytes at the end of the fixed fields of version 2, and of versions 3
// and 4.
constexpr size_t kReserved2 = 16;
constexpr size_t kReserved3 = 12;

// ReadVersion2 and ReadVersion3, which also reads version 4, read the fields
// after the levels. False when a reserved byte is not zero.
bool ReadVersion2(ByteReader* in, FixedFields* fields) {
  fields->rope.pairing = static_cast<RopePairing>(in->Read<uint8_t>());
  fields->rope.scaling = static_cast<RopeScaling>(in->Read<uint8_t>());
  fields->rope.rotary_dim = in->Read<int32_t>();
  fields->rope.original_max_position = in->Read<int32_t>();
  fields->ns_bytes = in->Read<uint16_t>();
  fields->variant_bytes = in->Read<uint16_t>();
  return AllZero(in->Bytes(kReserved2));
}

bool ReadVersion3(ByteReader* in, FixedFields* fields) {
  fields->ropes = in->Read<uint8_t>();
  const uint8_t joint_heads = in->Read<uint8_t>();
  const bool is_joint = fields->version == kFormatVersion;
  if (is_joint) fields->joint_heads = joint_heads;
  const auto v_head_dim = in->Read<int32_t>();
  if (v_head_dim != fields->shape.head_dim) {
    // In a KvShape, 0 means "as K". In the file, 0 is an error, so it becomes
    // -1, which is out of bounds.
    fields->shape.v_head_dim = v_head_dim == 0 ? -1 : v_head_dim;
  }
  fields->depth = in->Read<uint32_t>();
  fields->ns_bytes = in->Read<uint16_t>();
  fields->variant_bytes = in->Read<uint16_t>();
  fields->sections_bytes = in->Read<uint32_t>();
  return AllZero(in->Bytes(kReserved3)) && (joint_heads > 0) == is_joint;
}

absl::Status CheckFixed(const FixedFields& fields) {
  if (const absl::Status shape = CheckShape(fields.shape); !shape.ok()) {
    return absl::DataLossError(absl::StrCat("object ", shape.message()));
  }
  if (fields.ropes < 1 ||
      fields.ropes > static_cast<size_t>(fields.shape.layers) ||
      fields.sections_bytes > kSectionsBytesMax) {
    return absl::DataLossError(absl::StrCat(
        "object of ", fields.shape.layers, " layers has ", fields.ropes,
        " rope descriptors and ", fields.sections_bytes, " bytes of sections"));
  }
  if (absl::Status s = CheckJoint(fields.grid(), fields.levels); !s.ok()) {
    return absl::DataLossError(absl::StrCat("object ", s.message()));
  }
  const uint64_t expected = fields.expected_prefix_bytes();
  if (fields.prefix_bytes == expected) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("object states ", fields.prefix_bytes,
                   " bytes of header and index, its shape needs ", expected));
}

// The error for an object of a version that is not read. An object whose CRC
// is wrong is damaged, whatever its version.
absl::Status RefuseVersion(uint16_t version,
                           absl::Span<const std::byte> bytes) {
  ByteReader in(bytes.subspan(kPrefixBytesOffset));
  const auto prefix_bytes = in.Read<uint32_t>();
  const auto crc = in.Read<uint32_t>();
  const bool whole = prefix_bytes <= bytes.size();
  if (prefix_bytes < kFixedBytes ||
      (whole && PrefixCrc(bytes.subspan(0, prefix_bytes)) != crc)) {
    return absl::DataLossError(absl::StrCat(
        "object format ", version, ", with a header that fails its checksum"));
  }
  return absl::UnimplementedError(
      absl::StrCat("object format ", version, "; this build of KDN reads ",
                   kFormatVersionOldest, " to ", kFormatVersion));
}

}  // namespace

uint64_t FixedFields::entries_offset() const {
  const size_t rope_bytes = version == 2 ? kRopeDoubles * sizeof(double)
                                         : RopeTableBytes(ropes, shape.layers);
  return kFixedBytes + kDigests * ChunkKey::kSize + rope_bytes + ns_bytes +
         variant_bytes + 2 * sizeof(int32_t) * uint64_t{1} * shape.tokens;
}

uint64_t FixedFields::sections_offset() const {
  return entries_offset() + kEntryBytes * StreamCount(grid(), levels);
}

uint64_t FixedFields::expected_prefix_bytes() const {
  return AlignUp(sections_offset() + sections_bytes);
}

FixedFields FixedFieldsOf(const ObjectHeader& header) {
  FixedFields fields;
  fields.shape = header.shape;
  fields.levels = header.levels;
  fields.ns_bytes = header.identity.ns.name().size();
  fields.variant_bytes = header.identity.variant.size();
  fields.ropes = RopeTableOf(header).distinct.size();
  fields.depth = header.depth;
  fields.sections_bytes = SectionsBytes(header.sections);
  fields.joint_heads = header.joint_heads;
  if (fields.joint_heads > 0) fields.version = kFormatVersion;
  fields.prefix_bytes = fields.expected_prefix_bytes();
  return fields;
}

void WriteFixed(const FixedFields& fields, ByteWriter* out) {
  KDN_CHECK(fields.version >= kFormatVersionApart && fields.depth.has_value(),
            "version 2 is not written");
  out->Bytes(kMagic.data(), kMagic.size());
  out->Write<uint16_t>(fields.version);
  out->Write<uint32_t>(static_cast<uint32_t>(fields.prefix_bytes));
  out->Write<uint32_t>(fields.crc);
  out->Write<int32_t>(fields.shape.layers);
  out->Write<int32_t>(fields.shape.kv_heads);
  out->Write<int32_t>(fields.shape.tokens);
  out->Write<int32_t>(fields.shape.head_dim);
  out->Write<uint8_t>(static_cast<uint8_t>(fields.shape.dtype));
  out->Write<uint8_t>(fields.levels.bits());
  out->Write<uint8_t>(static_cast<uint8_t>(fields.ropes));
  out->Write<uint8_t>(static_cast<uint8_t>(fields.joint_heads));
  out->Write<int32_t>(fields.shape.dim(KvPart::kV));
  out->Write<uint32_t>(*fields.depth);
  out->Write<uint16_t>(static_cast<uint16_t>(fields.ns_bytes));
  out->Write<uint16_t>(static_cast<uint16_t>(fields.variant_bytes));
  out->Write<uint32_t>(fields.sections_bytes);
  const std::byte reserved[kReserved3] = {};
  out->Bytes(reserved, kReserved3);
  KDN_CHECK(out->written() == kFixedBytes, "the fixed fields are 64 bytes");
}

uint32_t PrefixCrc(absl::Span<const std::byte> prefix) {
  KDN_CHECK(prefix.size() >= kFixedBytes, "a prefix has its fixed fields");
  const uint32_t before = Crc32c(prefix.subspan(0, kCrcOffset));
  return ExtendCrc32c(before, prefix.subspan(kCrcOffset + sizeof(uint32_t)));
}

absl::StatusOr<FixedFields> ReadFixed(absl::Span<const std::byte> bytes) {
  if (bytes.size() < kFixedBytes) {
    return absl::DataLossError(absl::StrCat("object ends after ", bytes.size(),
                                            " bytes, inside its header"));
  }
  ByteReader in(bytes.subspan(0, kFixedBytes));
  if (in.Text(kMagic.size()) != kMagic) {
    return absl::DataLossError("not a KDN object: wrong magic");
  }
  FixedFields fields;
  fields.version = in.Read<uint16_t>();
  if (fields.version < kFormatVersionOldest ||
      fields.version > kFormatVersion) {
    return RefuseVersion(fields.version, bytes);
  }
  fields.prefix_bytes = in.Read<uint32_t>();
  fields.crc = in.Read<uint32_t>();
  fields.shape.layers = in.Read<int32_t>();
  fields.shape.kv_heads = in.Read<int32_t>();
  fields.shape.tokens = in.Read<int32_t>();
  fields.shape.head_dim = in.Read<int32_t>();
  fields.shape.dtype = static_cast<Dtype>(in.Read<uint8_t>());
  const uint8_t level_bits = in.Read<uint8_t>();
  fields.levels = LevelSet::FromBits(level_bits);
  const bool zeros = fields.version == 2 ? ReadVersion2(&in, &fields)
                                         : ReadVersion3(&in, &fields);
  KDN_CHECK(in.ok() && in.remaining() == 0, "the fixed fields are 64 bytes");
  if (fields.levels.bits() != level_bits || !zeros) {
    return absl::DataLossError(
        "object has unknown levels, or reserved bytes that are not zero");
  }
  if (absl::Status s = CheckFixed(fields); !s.ok()) return s;
  return fields;
}

}  // namespace kdn::codec
