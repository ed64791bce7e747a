#ifndef KDN_MODEL_TOKENIZER_JSON_FIELDS_H_
#define KDN_MODEL_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace kdn::model {

using Json = nlohmann::json;

// Largest token id that a tokenizer.json may have.
inline constexpr int64_t kTokenIdMax = 1 << 24;
// Most levels of Sequences within Sequences.
inline constexpr int kNestingMax = 16;

// INVALID_ARGUMENT: the part `path` of a tokenizer.json is malformed.
absl::Status Malformed(const std::string& path, const std::string& problem);
// UNIMPLEMENTED: the part `path` asks for something that this code cannot do.
absl::Status Unsupported(const std::string& path, const std::string& what);

// Reads the fields of one object of a tokenizer.json. A field that is missing
// or has the wrong type sets the status, and its value is empty; the status
// tells of the first such field. A field that is null counts as missing. The
// JSON outlives this object. Thread-compatible.
class Fields {
 public:
  // `path` is the place of the object in the file, for errors.
  Fields(const Json& json, std::string path);

  // The field `type`; empty if it is missing or no text.
  std::string Type() const;
  bool Has(const char* name) const { return Find(name) != nullptr; }

  bool Bool(const char* name);
  bool Bool(const char* name, bool if_missing);
  std::string Text(const char* name);
  // Nothing if the field is missing.
  std::optional<std::string> OptionalText(const char* name);
  // A text of exactly one code point.
  std::string Character(const char* name);
  double Real(const char* name);
  int64_t Integer(const char* name, int64_t min, int64_t max);
  const Json& List(const char* name);
  const Json& Object(const char* name);

  // The path of a field of this object.
  std::string PathOf(const char* name) const;
  const std::string& path() const { return path_; }
  const absl::Status& status() const { return status_; }

 private:
  // The field, or nullptr if it is missing or null.
  const Json* Find(const char* name) const;
  void Expected(const char* name, const char* what);

  const Json* json_;
  std::string path_;
  absl::Status status_;
};

// Calls add(part, path of the part, depth + 1) for each part of a Sequence, in
// order: the list `name` of its fields. Ends at the first error.
// INVALID_ARGUMENT when Sequences are nested too deeply.
using AddPart = absl::FunctionRef<absl::Status(
    const Json& part, const std::string& path, int depth)>;
absl::Status ForEachPart(Fields& fields, const char* name, int depth,
                         AddPart add);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_JSON_FIELDS_H_
