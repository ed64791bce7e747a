#include "model/tokenizer/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {

absl::Status Malformed(const std::string& path, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(
      "tokenizer.json: ", path, path.empty() ? "" : ": ", problem));
}

absl::Status Unsupported(const std::string& path, const std::string& what) {
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.json: ", path, ": ", what, " is not supported"));
}

Fields::Fields(const Json& json, std::string path)
    : json_(&json), path_(std::move(path)) {
  if (!json.is_object()) status_ = Malformed(path_, "expected an object");
}

const Json* Fields::Find(const char* name) const {
  if (!json_->is_object()) return nullptr;
  const auto found = json_->find(name);
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

std::string Fields::PathOf(const char* name) const {
  return path_.empty() ? name : absl::StrCat(path_, ".", name);
}

void Fields::Expected(const char* name, const char* what) {
  status_.Update(Malformed(PathOf(name), absl::StrCat("expected ", what)));
}

std::string Fields::Type() const {
  const Json* type = Find("type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

bool Fields::Bool(const char* name) {
  const Json* field = Find(name);
  if (field != nullptr && field->is_boolean()) return field->get<bool>();
  Expected(name, "true or false");
  return false;
}

bool Fields::Bool(const char* name, bool if_missing) {
  return Has(name) ? Bool(name) : if_missing;
}

std::string Fields::Text(const char* name) {
  const Json* field = Find(name);
  if (field != nullptr && field->is_string()) return field->get<std::string>();
  Expected(name, "a text");
  return "";
}

std::optional<std::string> Fields::OptionalText(const char* name) {
  if (!Has(name)) return std::nullopt;
  return Text(name);
}

std::string Fields::Character(const char* name) {
  std::string text = Text(name);
  size_t end = 0;
  if (!text.empty()) NextCodePoint(text, end);
  if (text.empty() || end != text.size()) Expected(name, "one character");
  return text;
}

double Fields::Real(const char* name) {
  const Json* field = Find(name);
  if (field != nullptr && field->is_number()) return field->get<double>();
  Expected(name, "a number");
  return 0;
}

int64_t Fields::Integer(const char* name, int64_t min, int64_t max) {
  const Json* field = Find(name);
  if (field != nullptr && field->is_number_integer()) {
    const int64_t value = field->get<int64_t>();
    if (value >= min && value <= max) return value;
  }
  status_.Update(
      Malformed(PathOf(name),
                absl::StrCat("expected an integer from ", min, " to ", max)));
  return min;
}

const Json& Fields::List(const char* name) {
  static const Json* const kEmpty = new Json(Json::array());
  const Json* field = Find(name);
  if (field != nullptr && field->is_array()) return *field;
  Expected(name, "a list");
  return *kEmpty;
}

const Json& Fields::Object(const char* name) {
  static const Json* const kEmpty = new Json(Json::object());
  const Json* field = Find(name);
  if (field != nullptr && field->is_object()) return *field;
  Expected(name, "an object");
  return *kEmpty;
}

absl::Status ForEachPart(Fields& fields, const char* name, int depth,
                         AddPart add) {
  if (depth == kNestingMax) {
    return Malformed(fields.path(), "too many nested Sequences");
  }
  const Json& parts = fields.List(name);
  if (!fields.status().ok()) return fields.status();
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string path = absl::StrCat(fields.PathOf(name), "[", i, "]");
    if (absl::Status status = add(parts[i], path, depth + 1); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::model
