#ifndef KDN_CODEC_FORMAT_SECTIONS_H_
#define KDN_CODEC_FORMAT_SECTIONS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "codec/format/byte_io.h"

namespace kdn::codec {

// What a later version adds to an object, behind the index: a reader that does
// not know a section skips it, or, if the section is critical, refuses the
// object. Byte layout: docs/formats.md.
struct Section {
  uint16_t id = 0;
  // Whether rows cannot be right without it.
  bool critical = false;
  std::vector<std::byte> content;

  bool operator==(const Section&) const = default;
};

// Ids that are set aside. No version writes or reads these sections yet.
enum class SectionId : uint16_t {
  // How finely each token of a transform-coded level is quantised.
  kTokenSteps = 1,
  // Which tokens an edit left, where rows are no longer one for each token.
  kRowMap = 2,
  // What an edit adds to K and V, of each layer and head.
  kBiases = 3,
  // A factor for each rotated pair, of models that stretch RoPE pair by pair.
  kRopeFactors = 4,
};

inline constexpr uint32_t kSectionsBytesMax = 1 << 20;

// INVALID_ARGUMENT unless ids are above 0 and ascend, and all sections together
// have kSectionsBytesMax bytes at most.
absl::Status CheckSections(absl::Span<const Section> sections);

// UNIMPLEMENTED naming the first section that is critical: no such section is
// known.
absl::Status RefuseCritical(absl::Span<const Section> sections);

// Of sections as they are written. REQUIRES: CheckSections is OK.
uint32_t SectionsBytes(absl::Span<const Section> sections);
void WriteSections(absl::Span<const Section> sections, ByteWriter* out);
// Reads the next `bytes`, which only sections have. DATA_LOSS unless
// WriteSections would give these bytes; UNIMPLEMENTED as RefuseCritical.
absl::Status ReadSections(uint32_t bytes, ByteReader* in,
                          std::vector<Section>* sections);

}  // namespace kdn::codec

#endif  // KDN_CODEC_FORMAT_SECTIONS_H_
