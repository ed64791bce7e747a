#include "model/tokenizer/vocabulary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace kdn::model {

absl::StatusOr<Vocabulary> Vocabulary::Parse(Fields& fields) {
  Vocabulary vocabulary;
  const Json& vocab = fields.Object("vocab");
  if (!fields.status().ok()) return fields.status();
  for (const auto& [text, number] : vocab.items()) {
    if (!number.is_number_integer() || number.get<int64_t>() < 0 ||
        number.get<int64_t>() > kTokenIdMax) {
      return Malformed(fields.PathOf("vocab"),
                       absl::StrCat("'", text, "' has no valid id"));
    }
    const int32_t id = number.get<int32_t>();
    vocabulary.ids_[text] = id;
    vocabulary.texts_[id] = text;
    vocabulary.id_end_ = std::max(vocabulary.id_end_, id + 1);
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::Find(std::string_view text) const {
  const auto found = ids_.find(absl::string_view(text.data(), text.size()));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* Vocabulary::TextOf(int32_t id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? nullptr : &found->second;
}

}  // namespace kdn::model
