#include "model/tokenizer/metaspace.h"

#include "absl/strings/str_cat.h"

namespace kdn::model {

absl::StatusOr<Metaspace> Metaspace::Parse(Fields& fields) {
  Metaspace metaspace;
  metaspace.replacement = fields.Character("replacement");
  metaspace.split = fields.Bool("split", true);
  const std::string scheme =
      fields.OptionalText("prepend_scheme").value_or("always");
  if (scheme == "first") {
    metaspace.prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    metaspace.prepend = Prepend::kNever;
  } else if (scheme != "always") {
    return Malformed(fields.PathOf("prepend_scheme"),
                     absl::StrCat("'", scheme, "' is not known"));
  }
  // Old files have this field instead of the scheme.
  if (!fields.Bool("add_prefix_space", true) &&
      metaspace.prepend != Prepend::kNever) {
    return Malformed(fields.PathOf("add_prefix_space"),
                     "false does not agree with prepend_scheme");
  }
  if (!fields.status().ok()) return fields.status();
  return metaspace;
}

}  // namespace kdn::model
