#ifndef KDN_MODEL_TOKENIZER_METASPACE_H_
#define KDN_MODEL_TOKENIZER_METASPACE_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"

namespace kdn::model {

// The settings of a Metaspace, which is a pre-tokenizer and a decoder:
// `replacement` stands for a space.
struct Metaspace {
  // Which pieces get a `replacement` in front, unless they begin with one.
  enum class Prepend { kAlways, kFirst, kNever };

  std::string replacement;  // one character
  Prepend prepend = Prepend::kAlways;
  bool split = true;  // before every `replacement`

  static absl::StatusOr<Metaspace> Parse(Fields& fields);
};

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_METASPACE_H_
