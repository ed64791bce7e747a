#ifndef KDN_MODEL_BPE_H_
#define KDN_MODEL_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace kdn::model {

// Byte-level byte-pair encoding (Sennrich et al., 2016). The pieces of its
// vocabulary are written in GPT-2's printable stand-ins for bytes (Radford et
// al., 2019). Immutable after Build.
class Bpe {
 public:
  // `vocab` maps pieces, in stand-in characters, to ids. Of two possible
  // merges, the one with the lower index in `merges` comes first. With
  // `ignore_merges`, a pre-token that is a piece itself is not merged.
  // INVALID_ARGUMENT for a merge whose parts or result are not in `vocab`.
  absl::Status Build(
      const absl::flat_hash_map<std::string, int32_t>& vocab,
      const std::vector<std::pair<std::string, std::string>>& merges,
      bool ignore_merges);

  // Appends the ids of one pre-token, given as raw bytes. Bytes without an id
  // are dropped.
  void Encode(std::string_view bytes, std::vector<int32_t>& ids) const;

  // The stand-in characters of `bytes`.
  static std::string ToStandIns(std::string_view bytes);
  // The bytes of stand-in characters. Other characters stay as they are.
  static std::string FromStandIns(std::string_view text);

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t result = 0;
  };
  absl::flat_hash_map<std::string, int32_t> vocab_;
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Merge> merges_;
  std::array<int32_t, 256> byte_ids_{};  // -1: none
  bool ignore_merges_ = false;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_BPE_H_
