#include "model/tokenizer/token_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/word_level.h"

namespace kdn::model {

absl::StatusOr<std::unique_ptr<TokenModel>> ParseTokenModel(const Json& json) {
  Fields fields(json, "model");
  if (!fields.status().ok()) return fields.status();
  // Old files leave the type out: a model with merges is BPE.
  std::string type = fields.Type();
  if (type.empty()) type = fields.Has("merges") ? "BPE" : "WordLevel";
  if (type == "BPE") return Bpe::Parse(fields);
  if (type == "WordLevel") return WordLevel::Parse(fields);
  return Unsupported("model", absl::StrCat("type '", type, "'"));
}

}  // namespace kdn::model
