#ifndef KDN_MODEL_TOKENIZER_VOCABULARY_H_
#define KDN_MODEL_TOKENIZER_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"

namespace kdn::model {

// The texts and ids of a model's tokens. Thread-compatible.
class Vocabulary {
 public:
  // Reads the field `vocab`, an object of texts and ids.
  static absl::StatusOr<Vocabulary> Parse(Fields& fields);

  std::optional<int32_t> Find(std::string_view text) const;
  // The text of an id; nullptr if no token has this id.
  const std::string* TextOf(int32_t id) const;
  // The number of tokens.
  size_t size() const { return ids_.size(); }
  // One more than the largest id.
  int32_t id_end() const { return id_end_; }

 private:
  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<int32_t, std::string> texts_;
  int32_t id_end_ = 0;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_VOCABULARY_H_
