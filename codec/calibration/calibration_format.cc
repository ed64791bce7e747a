#include "codec/calibration/calibration_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/calibration/left_inverse.h"
#include "codec/calibration/transform_sizes.h"
#include "codec/format/byte_io.h"
#include "codec/format/header_check.h"
#include "kv/check.h"
#include "kv/crc32c.h"

namespace kdn::codec {
namespace {

constexpr std::string_view kMagic = "KDNCAL";
constexpr size_t kCrcOffset = 8;
constexpr size_t kCrcEnd = kCrcOffset + sizeof(uint32_t);
constexpr size_t kTablesMax = 256;
// The versions of files without joint streams: without information, and with
// information.
constexpr uint16_t kPlainFormat = 1;
constexpr uint16_t kApartFormat = 2;
constexpr size_t kEntriesMax = 64;
constexpr size_t kEntryNameMax = 64;
constexpr size_t kEntryValueMax = 4096;
constexpr char kCreated[] = "created";
// The latest creation time: the year 36812. Later times do not fit a time of
// every library.
constexpr uint64_t kCreatedMax = uint64_t{1} << 40;

absl::Status Bad(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("calibration ", what));
}

uint32_t CrcOf(absl::Span<const std::byte> bytes) {
  return ExtendCrc32c(Crc32c(bytes.first(kCrcOffset)), bytes.subspan(kCrcEnd));
}

void WriteTable(const std::array<uint16_t, FormatCoder::kSymbols>& table,
                ByteWriter* out) {
  uint16_t used = 0;
  for (const uint16_t frequency : table) used += frequency > 0 ? 1 : 0;
  out->Write<uint16_t>(used);
  for (size_t symbol = 0; symbol < table.size(); ++symbol) {
    if (table[symbol] == 0) continue;
    out->Write<uint8_t>(static_cast<uint8_t>(symbol));
    out->Write<uint16_t>(table[symbol]);
  }
}

absl::StatusOr<std::array<uint16_t, FormatCoder::kSymbols>> ReadTable(
    ByteReader* in) {
  std::array<uint16_t, FormatCoder::kSymbols> table{};
  const size_t used = in->Read<uint16_t>();
  int last = -1;
  uint32_t sum = 0;
  for (size_t i = 0; i < used && in->ok(); ++i) {
    const int symbol = in->Read<uint8_t>();
    const uint16_t frequency = in->Read<uint16_t>();
    if (symbol <= last || frequency == 0) {
      return Bad("table has symbols out of order or frequencies of 0");
    }
    table[symbol] = frequency;
    sum += frequency;
    last = symbol;
  }
  if (!in->ok() || sum != FormatCoder::kTotal) {
    return Bad("table has the wrong sum of frequencies");
  }
  return table;
}

// The fields that a file of joint streams has before its tables.
struct Joint {
  int heads = 0;
  std::vector<int> exponents = {0};  // of the token classes
};

absl::StatusOr<Joint> ReadJoint(const KvShape& shape, ByteReader* in) {
  Joint joint;
  joint.heads = in->Read<uint8_t>();
  joint.exponents.resize(in->Read<uint8_t>());
  for (int& exponent : joint.exponents) exponent = in->Read<int8_t>();
  const auto levels = LevelSet::Of(Level::kBase);
  if (!in->ok() || joint.heads == 0 ||
      !CheckJoint({shape, joint.heads}, levels).ok()) {
    return Bad(absl::StrCat("joins K and V of ", joint.heads, " heads"));
  }
  const size_t classes = joint.exponents.size();
  if (classes <= kCoarserMax || classes > kTokenClassesMax) {
    return Bad(absl::StrCat("has ", classes, " token classes"));
  }
  return joint;
}

std::vector<float> ReadFloats(size_t count, ByteReader* in) {
  const auto bytes = in->Bytes(count * sizeof(float));
  std::vector<float> floats(in->ok() ? count : 0);
  if (in->ok()) std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

bool AreFinite(absl::Span<const float> floats) {
  return std::all_of(floats.begin(), floats.end(),
                     [](float x) { return std::isfinite(x); });
}

absl::Status ReadBands(int values, ByteReader* in, TokenClass* token_class) {
  token_class->bands.resize(values / kBandComponents);
  for (auto& band : token_class->bands) {
    for (BandStep& step : band) {
      const uint8_t mode = in->Read<uint8_t>();
      if (mode > static_cast<uint8_t>(BandMode::kQuad)) {
        return Bad(absl::StrCat("has a band of mode ", mode));
      }
      step.mode = static_cast<BandMode>(mode);
      step.tables = {in->Read<uint8_t>(), in->Read<uint8_t>()};
      step.shrink = in->Read<uint8_t>();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StepPredictor> ReadPredictor(int dim, ByteReader* in) {
  StepPredictor predictor;
  predictor.linear = ReadFloats(dim, in);
  predictor.square = ReadFloats(dim, in);
  predictor.constant = in->Read<float>();
  if (!AreFinite(predictor.linear) || !AreFinite(predictor.square) ||
      !std::isfinite(predictor.constant)) {
    return Bad("predicts steps that are not finite");
  }
  return predictor;
}

absl::StatusOr<StoredTransform> ReadTransform(const TransformSizes& sizes,
                                              const Joint& joint,
                                              ByteReader* in) {
  StoredTransform stored;
  std::vector<float> scales = ReadFloats(std::max(1, 2 * joint.heads), in);
  if (!std::all_of(scales.begin(), scales.end(),
                   [](float x) { return std::isfinite(x) && x > 0; })) {
    return Bad("has a scale that is not above 0");
  }
  if (joint.heads > 0) {
    stored.head_scales = std::move(scales);
  } else if (in->ok()) {
    stored.scale = scales.front();
  }
  stored.mean = ReadFloats(sizes.dim, in);
  const auto synthesis =
      in->Bytes(static_cast<size_t>(sizes.dim) * sizes.components());
  if (!in->ok()) return Bad("ends within a transform");
  if (!AreFinite(stored.mean)) return Bad("has a mean that is not finite");
  stored.synthesis.resize(synthesis.size());
  std::memcpy(stored.synthesis.data(), synthesis.data(), synthesis.size());
  if (joint.heads > 0) {
    stored.wide_bands = in->Read<uint8_t>();
    if (stored.wide_bands * kBandComponents > sizes.components()) {
      return Bad("has more wide bands than bands");
    }
  }
  stored.classes.resize(joint.exponents.size());
  const int values = sizes.components() + stored.wide_bands * kBandComponents;
  for (size_t i = 0; i < stored.classes.size(); ++i) {
    stored.classes[i].exponent = joint.exponents[i];
    if (absl::Status s = ReadBands(values, in, &stored.classes[i]); !s.ok()) {
      return s;
    }
  }
  if (joint.heads == 0) return stored;
  auto predictor = ReadPredictor(sizes.dim, in);
  if (!predictor.ok()) return predictor.status();
  stored.predictor = *std::move(predictor);
  return stored;
}

using Entries = std::map<std::string, std::string>;

std::string TextOf(uint64_t number) {
  std::string text(sizeof(number), '\0');
  std::memcpy(text.data(), &number, sizeof(number));
  return text;
}

// The number in an entry, or 0, which no entry has.
uint64_t NumberIn(std::string_view text) {
  uint64_t number = 0;
  if (text.size() == sizeof(number)) {
    std::memcpy(&number, text.data(), sizeof(number));
  }
  return number;
}

Entries EntriesOf(const CalibrationInfo& info) {
  Entries entries = info.others;
  const int64_t created = absl::ToUnixSeconds(info.created);
  if (created > 0) entries[kCreated] = TextOf(static_cast<uint64_t>(created));
  return entries;
}

absl::StatusOr<CalibrationInfo> InfoOf(Entries entries) {
  CalibrationInfo info;
  if (const auto created = entries.find(kCreated); created != entries.end()) {
    const uint64_t seconds = NumberIn(created->second);
    if (seconds == 0 || seconds > kCreatedMax) {
      return Bad("has a creation time that is not 1 to 2^40 seconds");
    }
    info.created = absl::FromUnixSeconds(static_cast<int64_t>(seconds));
    entries.erase(created);
  }
  info.others = std::move(entries);
  return info;
}

bool IsEntryName(std::string_view name) {
  return !name.empty() && name.size() <= kEntryNameMax &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") ==
             std::string_view::npos;
}

absl::StatusOr<CalibrationInfo> ReadInfo(size_t count_min, ByteReader* in) {
  const size_t count = in->Read<uint16_t>();
  if (count < count_min || count > kEntriesMax) {
    return Bad(absl::StrCat("has ", count, " entries of information, expected ",
                            count_min, " to ", kEntriesMax));
  }
  Entries entries;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view name = in->Text(in->Read<uint8_t>());
    const size_t bytes = in->Read<uint32_t>();
    if (bytes > kEntryValueMax) return Bad("has an entry that is too long");
    const std::string_view value = in->Text(bytes);
    if (!in->ok() || !IsEntryName(name)) {
      return Bad("has an entry that is cut off, or that has no name");
    }
    if (!entries.empty() && name <= entries.rbegin()->first) {
      return Bad("has entries that are not in the order of their names");
    }
    entries.emplace(name, value);
  }
  return InfoOf(std::move(entries));
}

void WriteInfo(const Entries& entries, ByteWriter* out) {
  KDN_CHECK(entries.size() <= kEntriesMax, "too many entries");
  out->Write<uint16_t>(static_cast<uint16_t>(entries.size()));
  for (const auto& [name, value] : entries) {
    KDN_CHECK(IsEntryName(name) && value.size() <= kEntryValueMax,
              "such an entry cannot be read");
    out->Write<uint8_t>(static_cast<uint8_t>(name.size()));
    out->Bytes(name.data(), name.size());
    out->Write<uint32_t>(static_cast<uint32_t>(value.size()));
    out->Bytes(value.data(), value.size());
  }
}

size_t BytesOf(const Entries& entries) {
  size_t bytes = sizeof(uint16_t);
  for (const auto& [name, value] : entries) {
    bytes += sizeof(uint8_t) + name.size() + sizeof(uint32_t) + value.size();
  }
  return bytes;
}

bool IsJoint(const StoredCalibration& stored) { return stored.joint_heads > 0; }

uint16_t FormatOf(const StoredCalibration& stored, const Entries& entries) {
  if (IsJoint(stored)) return kCalibrationFormat;
  return entries.empty() ? kPlainFormat : kApartFormat;
}

size_t BytesOf(const StoredTransform& stream) {
  const size_t scales = std::max<size_t>(1, stream.head_scales.size());
  size_t bytes =
      sizeof(float) * (scales + stream.mean.size()) + stream.synthesis.size();
  for (const TokenClass& token_class : stream.classes) {
    bytes += token_class.bands.size() * kLadderSteps * 4;
  }
  return bytes;
}

size_t BytesOf(const StoredCalibration& stored) {
  size_t bytes = kCrcEnd + 4 * sizeof(uint32_t) + ModelFingerprint::kSize;
  if (IsJoint(stored)) bytes += 2 + stored.streams.front().classes.size();
  for (const auto& table : stored.tables) {
    bytes += sizeof(uint16_t);
    for (const uint16_t frequency : table) bytes += frequency > 0 ? 3 : 0;
  }
  for (const StoredTransform& stream : stored.streams) {
    bytes += BytesOf(stream);
    if (IsJoint(stored)) {
      bytes += 1 + sizeof(float) * (2 * stream.mean.size() + 1);
    }
  }
  return bytes;
}

void WriteFloats(const std::vector<float>& floats, ByteWriter* out) {
  out->Bytes(floats.data(), floats.size() * sizeof(float));
}

void WriteTransform(const StoredTransform& stream, bool joint,
                    ByteWriter* out) {
  if (joint) {
    WriteFloats(stream.head_scales, out);
  } else {
    out->Write<float>(stream.scale);
  }
  WriteFloats(stream.mean, out);
  out->Bytes(stream.synthesis.data(), stream.synthesis.size());
  if (joint) out->Write<uint8_t>(static_cast<uint8_t>(stream.wide_bands));
  for (const TokenClass& token_class : stream.classes) {
    for (const auto& band : token_class.bands) {
      for (const BandStep& step : band) {
        out->Write<uint8_t>(static_cast<uint8_t>(step.mode));
        out->Write<uint8_t>(step.tables[0]);
        out->Write<uint8_t>(step.tables[1]);
        out->Write<uint8_t>(step.shrink);
      }
    }
  }
  if (!joint) return;
  WriteFloats(stream.predictor.linear, out);
  WriteFloats(stream.predictor.square, out);
  out->Write<float>(stream.predictor.constant);
}

}  // namespace

absl::StatusOr<StoredCalibration> ReadCalibration(
    absl::Span<const std::byte> bytes) {
  ByteReader in(bytes);
  if (in.Text(kMagic.size()) != kMagic) {
    return Bad("file does not begin with KDNCAL");
  }
  const uint16_t format = in.Read<uint16_t>();
  if (format < kPlainFormat || format > kCalibrationFormat) {
    return Bad(absl::StrCat("format ", format, ", expected ", kPlainFormat,
                            " to ", kCalibrationFormat));
  }
  const uint32_t crc = in.Read<uint32_t>();
  if (!in.ok() || crc != CrcOf(bytes)) return Bad("has a wrong checksum");
  StoredCalibration stored;
  const auto model = in.Bytes(ModelFingerprint::kSize);
  if (!in.ok()) return Bad("ends within its header");
  stored.model = *ModelFingerprint::FromBytes(
      {reinterpret_cast<const uint8_t*>(model.data()), model.size()});
  stored.geometry.layers = in.Read<int32_t>();
  stored.geometry.kv_heads = in.Read<int32_t>();
  stored.geometry.head_dim = in.Read<int32_t>();
  const size_t tables = in.Read<uint32_t>();
  const KvShape shape = {stored.geometry.layers, stored.geometry.kv_heads, 1,
                         stored.geometry.head_dim, Dtype::kBf16};
  if (absl::Status s = CheckShape(shape); !s.ok()) return Bad(s.message());
  if (shape.head_dim > kTransformDimMax || tables > kTablesMax) {
    return Bad("has too many dimensions or tables");
  }
  Joint joint;
  if (format == kCalibrationFormat) {
    auto read = ReadJoint(shape, &in);
    if (!read.ok()) return read.status();
    joint = *std::move(read);
  }
  stored.joint_heads = joint.heads;
  for (size_t i = 0; i < tables; ++i) {
    auto table = ReadTable(&in);
    if (!table.ok()) return table.status();
    stored.tables.push_back(*table);
  }
  const TransformSizes sizes = SizesOf(stored.geometry, joint.heads);
  for (size_t i = 0; i < sizes.count; ++i) {
    auto stream = ReadTransform(sizes, joint, &in);
    if (!stream.ok()) return stream.status();
    stored.streams.push_back(*std::move(stream));
  }
  if (format > kPlainFormat && in.ok()) {
    absl::StatusOr<CalibrationInfo> info =
        ReadInfo(format == kApartFormat ? 1 : 0, &in);
    if (!info.ok()) return info.status();
    stored.info = *std::move(info);
  }
  if (!in.ok() || in.remaining() > 0) return Bad("has the wrong length");
  return stored;
}

std::vector<std::byte> WriteCalibration(const StoredCalibration& stored) {
  const Entries entries = EntriesOf(stored.info);
  const uint16_t format = FormatOf(stored, entries);
  const size_t info = format == kPlainFormat ? 0 : BytesOf(entries);
  std::vector<std::byte> bytes(BytesOf(stored) + info);
  ByteWriter out(absl::MakeSpan(bytes));
  out.Bytes(kMagic.data(), kMagic.size());
  out.Write<uint16_t>(format);
  out.Write<uint32_t>(0);  // the CRC is written last
  out.Bytes(stored.model.bytes().data(), ModelFingerprint::kSize);
  out.Write<int32_t>(stored.geometry.layers);
  out.Write<int32_t>(stored.geometry.kv_heads);
  out.Write<int32_t>(stored.geometry.head_dim);
  out.Write<uint32_t>(static_cast<uint32_t>(stored.tables.size()));
  if (IsJoint(stored)) {
    const auto& classes = stored.streams.front().classes;
    out.Write<uint8_t>(static_cast<uint8_t>(stored.joint_heads));
    out.Write<uint8_t>(static_cast<uint8_t>(classes.size()));
    for (const TokenClass& token_class : classes) {
      out.Write<int8_t>(static_cast<int8_t>(token_class.exponent));
    }
  }
  for (const auto& table : stored.tables) WriteTable(table, &out);
  for (const StoredTransform& stream : stored.streams) {
    WriteTransform(stream, IsJoint(stored), &out);
  }
  if (format != kPlainFormat) WriteInfo(entries, &out);
  KDN_CHECK(out.written() == bytes.size(), "the file's size is known");
  ByteWriter(absl::MakeSpan(bytes).subspan(kCrcOffset))
      .Write<uint32_t>(CrcOf(bytes));
  return bytes;
}

absl::StatusOr<StreamTransform> MakeTransform(const StoredTransform& stored) {
  const int dim = static_cast<int>(stored.mean.size());
  const int components =
      (dim + kBandComponents - 1) / kBandComponents * kBandComponents;
  const absl::Span<const float> scales =
      stored.head_scales.empty() ? absl::MakeConstSpan(&stored.scale, 1)
                                 : absl::MakeConstSpan(stored.head_scales);
  auto inverse = LeftInverse(stored.synthesis, dim, components, scales);
  if (!inverse.ok()) return inverse.status();
  StreamTransform transform;
  transform.mean = stored.mean;
  transform.scale = stored.scale;
  transform.head_scales = stored.head_scales;
  transform.synthesis = SynthesisMatrix(dim, components, stored.synthesis);
  transform.analysis = AnalysisMatrix(components, dim, *inverse);
  transform.wide_bands = stored.wide_bands;
  transform.classes = stored.classes;
  transform.predictor = stored.predictor;
  return transform;
}

absl::StatusOr<std::shared_ptr<const Calibration>> MakeCalibration(
    const CalibrationId& id, const StoredCalibration& stored) {
  std::vector<FormatCoder::Table> tables;
  tables.reserve(stored.tables.size());
  for (const auto& frequencies : stored.tables) {
    auto table = FormatCoder::Table::Create(frequencies);
    if (!table.ok()) return table.status();
    tables.push_back(*std::move(table));
  }
  std::vector<StreamTransform> streams;
  streams.reserve(stored.streams.size());
  for (const StoredTransform& stream : stored.streams) {
    auto transform = MakeTransform(stream);
    if (!transform.ok()) return transform.status();
    streams.push_back(*std::move(transform));
  }
  return Calibration::Create(id, stored.model, stored.geometry,
                             std::move(tables), std::move(streams),
                             stored.info.created, stored.joint_heads);
}

absl::StatusOr<std::shared_ptr<const Calibration>> ParseCalibration(
    absl::Span<const std::byte> bytes) {
  const auto stored = ReadCalibration(bytes);
  if (!stored.ok()) return stored.status();
  const CalibrationId id(
      Sha256Of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  return MakeCalibration(id, *stored);
}

}  // namespace kdn::codec
