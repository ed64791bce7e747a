#include "model/post_processor.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace kdn::model {
namespace {

using Json = nlohmann::json;

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json: post_processor: ", what));
}

const Json* Find(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::string TextOf(const Json& object, const char* name) {
  const Json* field = Find(object, name);
  return field != nullptr && field->is_string() ? field->get<std::string>()
                                                : std::string();
}

// Appends the ids that special_tokens lists for one token of a template.
absl::Status AppendSpecial(const Json& special_tokens, const std::string& name,
                           std::vector<int32_t>& ids) {
  const Json* token = Find(special_tokens, name.c_str());
  const Json* list = token == nullptr ? nullptr : Find(*token, "ids");
  if (list == nullptr || !list->is_array()) {
    return Bad(absl::StrCat("special_tokens has no ids of '", name, "'"));
  }
  for (const Json& id : *list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > (1 << 24)) {
      return Bad(absl::StrCat("'", name, "' has no valid id"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

// "single" is a list of SpecialToken and Sequence entries. The tokens before
// the Sequence stand in front of the text.
absl::Status ParseTemplate(const Json& json, std::vector<int32_t>& ids) {
  const Json* single = Find(json, "single");
  const Json* special_tokens = Find(json, "special_tokens");
  if (single == nullptr || !single->is_array() || special_tokens == nullptr) {
    return Bad("TemplateProcessing: expected single and special_tokens");
  }
  for (const Json& piece : *single) {
    if (Find(piece, "Sequence") != nullptr) return absl::OkStatus();
    const Json* special = Find(piece, "SpecialToken");
    if (special == nullptr) {
      return Bad("single: expected a SpecialToken or a Sequence");
    }
    if (absl::Status status =
            AppendSpecial(*special_tokens, TextOf(*special, "id"), ids);
        !status.ok()) {
      return status;
    }
  }
  return Bad("single: expected a Sequence");
}

absl::Status ParseInto(const Json& json, std::vector<int32_t>& ids) {
  const std::string type = TextOf(json, "type");
  if (type == "ByteLevel") return absl::OkStatus();  // adds no tokens
  if (type == "TemplateProcessing") return ParseTemplate(json, ids);
  if (type != "Sequence") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.json: post_processor ", type, " is not supported"));
  }
  const Json* parts = Find(json, "processors");
  if (parts == nullptr || !parts->is_array()) {
    return Bad("Sequence: expected processors");
  }
  for (const Json& part : *parts) {
    if (TextOf(part, "type") == "Sequence") return Bad("nested Sequences");
    if (absl::Status status = ParseInto(part, ids); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TokensInFront(const Json& post_processor) {
  std::vector<int32_t> ids;
  if (post_processor.is_null()) return ids;
  if (absl::Status status = ParseInto(post_processor, ids); !status.ok()) {
    return status;
  }
  return ids;
}

}  // namespace kdn::model
