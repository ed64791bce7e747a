#ifndef KDN_CODEC_FORMAT_SECTIONS_H_
#define KDN_CODEC_FORMAT_SECTIONS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "codec/format/byte_io.h"

namespace kdn::codec {

// An addition by a later version, after the index. A reader that does not know
// a section skips it or, if the section is critical, refuses the object. Byte
// layout: docs/formats.md.
struct Section {
  uint16_t id = 0;
  // Whether the rows would be decoded wrongly without it.
  bool critical = false;
  std::vector<std::byte> content;

  bool operator==(const Section&) const = default;
};

// Reserved ids. No version writes or reads these sections yet.
enum class SectionId : uint16_t {
  // How finely each token of a transform-coded level is quantised.
  kTokenSteps = 1,
  // Which tokens are left after an edit: rows for the others are missing.
  kRowMap = 2,
  // What an edit adds to K and V of each layer and head.
  kBiases = 3,
  // A factor for each rotated pair, for models that stretch each pair
  // differently.
  kRopeFactors = 4,
};

inline constexpr uint32_t kSectionsBytesMax = 1 << 20;

// INVALID_ARGUMENT unless ids are above 0 and ascend, and all sections together
// take at most kSectionsBytesMax bytes.
absl::Status CheckSections(absl::Span<const Section> sections);

// UNIMPLEMENTED, naming the id, if a section is critical: this version knows no
// section.
absl::Status RefuseCritical(absl::Span<const Section> sections);

// The bytes that WriteSections writes. REQUIRES: CheckSections is OK.
uint32_t SectionsBytes(absl::Span<const Section> sections);
void WriteSections(absl::Span<const Section> sections, ByteWriter* out);
// Reads sections that take exactly the next `bytes` of `in`. DATA_LOSS unless
// WriteSections writes these bytes; UNIMPLEMENTED as RefuseCritical.
absl::Status ReadSections(uint32_t bytes, ByteReader* in,
                          std::vector<Section>* sections);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_SECTIONS_H_
