#ifndef KDN_MODEL_TOKENIZER_WORD_LEVEL_H_
#define KDN_MODEL_TOKENIZER_WORD_LEVEL_H_

#include <memory>
#include <optional>
#include <vector>

#include "model/tokenizer/token_model.h"

namespace kdn::model {

// Every piece is one token: itself, or else the token for unknown words.
class WordLevel : public TokenModel {
 public:
  static absl::StatusOr<std::unique_ptr<TokenModel>> Parse(Fields& fields);

  absl::Status Encode(std::string_view piece,
                      std::vector<int32_t>& ids) const override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::optional<int32_t> unknown_;
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_WORD_LEVEL_H_
