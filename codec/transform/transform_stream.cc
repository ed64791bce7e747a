#include "codec/transform/transform_stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/calibration/calibration.h"
#include "codec/format/byte_io.h"

namespace kdn::codec {
namespace {

// Bytes of a patch: a component's number has two where there are more than 256.
size_t PatchBytes(const StreamFrame& frame) {
  return frame.columns > 256 ? 5 : 4;
}

// Tokens of which a byte has the classes.
constexpr int kClassesInByte = 4;
constexpr int kClassBits = 8 / kClassesInByte;
static_assert(1 << kClassBits == kStreamClasses);

// Bytes of the classes of all tokens.
size_t ClassesBytes(const StreamFrame& frame) {
  if (frame.classes == 1) return 0;
  return 1 + (static_cast<size_t>(frame.tokens) + kClassesInByte - 1) /
                 kClassesInByte;
}

absl::Status Bad(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("a transform-coded stream ", what));
}

// Whether bf16 elements are finite: not all bits of an exponent are set.
bool AreFinite(absl::Span<const std::byte> elements) {
  constexpr uint16_t kExponent = 0x7f80;
  bool finite = true;
  for (size_t at = 0; at + 2 <= elements.size(); at += 2) {
    uint16_t bits;
    std::memcpy(&bits, elements.data() + at, 2);
    finite &= (bits & kExponent) != kExponent;
  }
  return finite;
}

absl::Status ReadStatistics(const StreamFrame& frame, ByteReader* in,
                            StreamParts* parts) {
  if (!frame.own_statistics) return absl::OkStatus();
  parts->gain = in->Read<float>();
  parts->mean = in->Bytes(frame.row_bytes());
  if (!(in->ok() && std::isfinite(parts->gain) && parts->gain > 0.0f)) {
    return Bad("has a scale that is not above 0");
  }
  if (!AreFinite(parts->mean)) return Bad("has a mean that is not finite");
  return absl::OkStatus();
}

absl::Status ReadRawTokens(const StreamFrame& frame, ByteReader* in,
                           StreamParts* parts) {
  const size_t count = in->Read<uint16_t>();
  if (count > static_cast<size_t>(frame.tokens)) {
    return Bad("has more raw rows than tokens");
  }
  int last = -1;
  for (size_t i = 0; i < count; ++i) {
    const int token = in->Read<uint16_t>();
    if (token <= last || token >= frame.tokens) {
      return Bad("has raw tokens outside its range or out of order");
    }
    parts->raw_tokens.push_back(static_cast<uint16_t>(token));
    last = token;
  }
  parts->raw_rows = in->Bytes(count * frame.row_bytes());
  return absl::OkStatus();
}

absl::Status ReadClasses(const StreamFrame& frame, ByteReader* in,
                         StreamParts* parts) {
  parts->token_classes.resize(frame.tokens);
  if (frame.classes == 1) return absl::OkStatus();
  const int first = in->Read<uint8_t>();
  const auto packed = in->Bytes(ClassesBytes(frame) - 1);
  if (!in->ok()) return Bad("ends within the classes of its tokens");
  for (int token = 0; token < frame.tokens; ++token) {
    const auto byte = static_cast<uint8_t>(packed[token / kClassesInByte]);
    const int shift = token % kClassesInByte * kClassBits;
    const int token_class = first + (byte >> shift & (kStreamClasses - 1));
    if (token_class >= frame.classes) {
      return Bad("has a token of a class that its calibration lacks");
    }
    parts->token_classes[token] = static_cast<uint8_t>(token_class);
  }
  return absl::OkStatus();
}

void WriteClasses(const StreamFrame& frame,
                  absl::Span<const uint8_t> token_classes, ByteWriter* out) {
  if (frame.classes == 1) return;
  const uint8_t first =
      *std::min_element(token_classes.begin(), token_classes.end());
  out->Write<uint8_t>(first);
  for (int begin = 0; begin < frame.tokens; begin += kClassesInByte) {
    const int end = std::min(begin + kClassesInByte, frame.tokens);
    int byte = 0;
    for (int token = begin; token < end; ++token) {
      byte |= (token_classes[token] - first) << (token - begin) * kClassBits;
    }
    out->Write<uint8_t>(static_cast<uint8_t>(byte));
  }
}

absl::Status ReadPatches(const StreamFrame& frame, ByteReader* in,
                         StreamParts* parts) {
  const size_t count = in->Read<uint32_t>();
  if (count > in->remaining() / PatchBytes(frame)) {
    return Bad("ends before its last patch");
  }
  parts->patches.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    Patch patch;
    patch.token = in->Read<uint16_t>();
    patch.component =
        PatchBytes(frame) == 4 ? in->Read<uint8_t>() : in->Read<uint16_t>();
    patch.value = in->Read<int8_t>();
    if (patch.token >= frame.tokens || patch.component >= frame.columns) {
      return Bad("has a patch outside its tokens and components");
    }
    parts->patches.push_back(patch);
  }
  return absl::OkStatus();
}

absl::Status ReadCoded(const StreamFrame& frame, ByteReader* in,
                       StreamParts* parts) {
  if (frame.step == 0) {
    if (absl::Status s = ReadStatistics(frame, in, parts); !s.ok()) return s;
    if (absl::Status s = ReadRawTokens(frame, in, parts); !s.ok()) return s;
    if (absl::Status s = ReadClasses(frame, in, parts); !s.ok()) return s;
  }
  if (absl::Status s = ReadPatches(frame, in, parts); !s.ok()) return s;
  parts->symbols = in->Bytes(in->remaining());
  return in->ok() ? absl::OkStatus() : Bad("ends too soon");
}

}  // namespace

size_t PartsBytes(const StreamFrame& frame, size_t raw_tokens, size_t patches) {
  size_t bytes =
      sizeof(StreamForm) + sizeof(uint32_t) + PatchBytes(frame) * patches;
  if (frame.step > 0) return bytes;
  if (frame.own_statistics) bytes += sizeof(float) + frame.row_bytes();
  return bytes + ClassesBytes(frame) + sizeof(uint16_t) +
         raw_tokens * (sizeof(uint16_t) + frame.row_bytes());
}

absl::StatusOr<StreamParts> ReadParts(const StreamFrame& frame,
                                      absl::Span<const std::byte> stream) {
  ByteReader in(stream);
  StreamParts parts;
  const uint8_t form = in.Read<uint8_t>();
  parts.form = static_cast<StreamForm>(form);
  absl::Status status;
  switch (form) {
    case static_cast<uint8_t>(StreamForm::kCoded):
      status = ReadCoded(frame, &in, &parts);
      break;
    case static_cast<uint8_t>(StreamForm::kRows):
      parts.raw_rows = in.Bytes(frame.tokens * frame.row_bytes());
      if (frame.step > 0) status = Bad("has rows at a refining level");
      break;
    case static_cast<uint8_t>(StreamForm::kNothing):
      if (frame.step == 0) status = Bad("has nothing at the base level");
      break;
    default:
      status = Bad(absl::StrCat("has the unknown form ", form));
  }
  if (!status.ok()) return status;
  if (!in.ok() || in.remaining() > 0) return Bad("has the wrong length");
  if (!AreFinite(parts.raw_rows)) return Bad("has a row that is not finite");
  return parts;
}

size_t WriteParts(const StreamFrame& frame, const StreamParts& parts,
                  absl::Span<std::byte> out) {
  ByteWriter writer(out);
  writer.Write<uint8_t>(static_cast<uint8_t>(parts.form));
  if (parts.form == StreamForm::kNothing) return writer.written();
  if (parts.form == StreamForm::kRows) {
    writer.Bytes(parts.raw_rows.data(), parts.raw_rows.size());
    return writer.written();
  }
  if (frame.step == 0) {
    if (frame.own_statistics) {
      writer.Write<float>(parts.gain);
      writer.Bytes(parts.mean.data(), parts.mean.size());
    }
    writer.Write<uint16_t>(static_cast<uint16_t>(parts.raw_tokens.size()));
    for (const uint16_t token : parts.raw_tokens) {
      writer.Write<uint16_t>(token);
    }
    writer.Bytes(parts.raw_rows.data(), parts.raw_rows.size());
    WriteClasses(frame, parts.token_classes, &writer);
  }
  writer.Write<uint32_t>(static_cast<uint32_t>(parts.patches.size()));
  for (const Patch& patch : parts.patches) {
    writer.Write<uint16_t>(patch.token);
    if (PatchBytes(frame) == 4) {
      writer.Write<uint8_t>(static_cast<uint8_t>(patch.component));
    } else {
      writer.Write<uint16_t>(patch.component);
    }
    writer.Write<int8_t>(patch.value);
  }
  return writer.written();
}

}  // namespace kdn::codec
