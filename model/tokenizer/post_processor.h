#ifndef KDN_MODEL_TOKENIZER_POST_PROCESSOR_H_
#define KDN_MODEL_TOKENIZER_POST_PROCESSOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"

namespace kdn::model {

// The special tokens (BOS) that the `post_processor` of a tokenizer.json puts
// in front of a single text; none for null. Special tokens behind the text are
// left out, because a prompt goes on. INVALID_ARGUMENT names the malformed
// part, UNIMPLEMENTED names a kind of post-processor that this code does not
// know.
absl::StatusOr<std::vector<int32_t>> TokensInFront(const Json& post_processor);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_POST_PROCESSOR_H_
