#include "model/tokenizer/post_processor.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace kdn::model {
namespace {

// Appends the ids that special_tokens lists for one token of a template.
absl::Status AppendSpecial(Fields& fields, const std::string& name,
                           std::vector<int32_t>& ids) {
  Fields all(fields.Object("special_tokens"), fields.PathOf("special_tokens"));
  Fields token(all.Object(name.c_str()), all.PathOf(name.c_str()));
  const Json& list = token.List("ids");
  for (const absl::Status& status :
       {fields.status(), all.status(), token.status()}) {
    if (!status.ok()) return status;
  }
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > kTokenIdMax) {
      return Malformed(token.PathOf("ids"), "expected token ids");
    }
    ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

// `single` is a list of SpecialToken and Sequence entries. The tokens before
// the Sequence stand in front of the text.
absl::Status AppendTemplate(Fields& fields, std::vector<int32_t>& ids) {
  const Json& single = fields.List("single");
  if (!fields.status().ok()) return fields.status();
  for (const Json& entry : single) {
    Fields part(entry, fields.PathOf("single"));
    if (!part.status().ok()) return part.status();
    if (part.Has("Sequence")) return absl::OkStatus();
    Fields special(part.Object("SpecialToken"), part.PathOf("SpecialToken"));
    const std::string name = special.Text("id");
    if (!part.status().ok()) return part.status();
    if (!special.status().ok()) return special.status();
    if (absl::Status s = AppendSpecial(fields, name, ids); !s.ok()) return s;
  }
  return Malformed(fields.PathOf("single"), "expected a Sequence");
}

absl::Status AppendTokens(const Json& json, const std::string& path, int depth,
                          std::vector<int32_t>& ids) {
  Fields fields(json, path);
  if (!fields.status().ok()) return fields.status();
  const std::string type = fields.Type();
  if (type == "ByteLevel") return absl::OkStatus();  // adds no tokens
  if (type == "TemplateProcessing") return AppendTemplate(fields, ids);
  if (type != "Sequence") {
    return Unsupported(path, absl::StrCat("type '", type, "'"));
  }
  if (depth == kNestingMax) return Malformed(path, "too many nested Sequences");
  const Json& parts = fields.List("processors");
  if (!fields.status().ok()) return fields.status();
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string inner =
        absl::StrCat(fields.PathOf("processors"), "[", i, "]");
    // Each template stands around the result of the one before.
    std::vector<int32_t> outer;
    if (absl::Status s = AppendTokens(parts[i], inner, depth + 1, outer);
        !s.ok()) {
      return s;
    }
    ids.insert(ids.begin(), outer.begin(), outer.end());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> TokensInFront(const Json& post_processor) {
  std::vector<int32_t> ids;
  if (post_processor.is_null()) return ids;
  if (absl::Status status =
          AppendTokens(post_processor, "post_processor", 0, ids);
      !status.ok()) {
    return status;
  }
  return ids;
}

}  // namespace kdn::model
