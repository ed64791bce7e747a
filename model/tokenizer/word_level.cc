#include "model/tokenizer/word_level.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::model {

absl::StatusOr<std::unique_ptr<TokenModel>> WordLevel::Parse(Fields& fields) {
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Parse(fields);
  if (!vocabulary.ok()) return vocabulary.status();
  auto model = std::make_unique<WordLevel>();
  model->vocabulary_ = *std::move(vocabulary);
  if (const auto unknown = fields.OptionalText("unk_token")) {
    model->unknown_ = model->vocabulary_.Find(*unknown);
  }
  if (!fields.status().ok()) return fields.status();
  return model;
}

absl::Status WordLevel::Encode(std::string_view piece,
                               std::vector<int32_t>& ids) const {
  std::optional<int32_t> id = vocabulary_.Find(piece);
  if (!id) id = unknown_;
  if (!id) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the word '", std::string(piece),
        "' is not in the vocabulary, and tokenizer.json names no unk_token "
        "of the vocabulary"));
  }
  ids.push_back(*id);
  return absl::OkStatus();
}

}  // namespace kdn::model
