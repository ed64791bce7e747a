#ifndef KDN_MODEL_TOKENIZER_BPE_H_
#define KDN_MODEL_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/tokenizer/token_model.h"

namespace kdn::model {

// Byte-pair encoding (Sennrich et al., 2016) of the code points of a piece. Of
// two possible merges, the one that comes first in the file is made first; of
// equal merges, the leftmost. Immutable after Parse.
class Bpe : public TokenModel {
 public:
  // INVALID_ARGUMENT also for a merge whose parts or result are not in the
  // vocabulary.
  static absl::StatusOr<std::unique_ptr<TokenModel>> Parse(Fields& fields);

  // A code point outside the vocabulary becomes the tokens of its UTF-8 bytes
  // if the file asks for that (byte_fallback) and has them all, else the
  // unknown token. It is left out if the file names no unknown token.
  absl::Status Encode(std::string_view piece,
                      std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank = 0;  // lower first
    int32_t result = 0;
  };

  absl::Status ParseOptions(Fields& fields);
  absl::Status ParseMerges(const Json& list);
  absl::Status AddMerge(const std::string& left, const std::string& right);
  void IndexCharacters();

  std::optional<int32_t> IdOf(std::string_view character) const;
  // The tokens of the code points of `piece`, before any merge.
  absl::Status ToSymbols(std::string_view piece,
                         std::vector<int32_t>& symbols) const;
  bool AppendBytes(std::string_view character,
                   std::vector<int32_t>& symbols) const;
  const Merge* Find(int32_t left, int32_t right) const;
  // Makes all merges of `symbols`. The first takes quadratic time, and is the
  // faster one for few symbols; the second takes n log n.
  void MergeFew(std::vector<int32_t>& symbols) const;
  void MergeMany(std::vector<int32_t>& symbols) const;

  Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // keys: left id, right id
  int32_t next_rank_ = 0;
  std::array<int32_t, 0x400> low_ids_{};  // of the first code points; -1: none
  std::array<int32_t, 256> byte_ids_{};   // of "<0x00>", ...; -1: none
  std::optional<std::string> unknown_;
  std::optional<int32_t> unknown_id_;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_BPE_H_
