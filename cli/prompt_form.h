#ifndef KDN_CLI_PROMPT_FORM_H_
#define KDN_CLI_PROMPT_FORM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer.h"

namespace kdn::cli {

// A prompt about a text. All prompts about one text begin with the same
// `known` tokens, whose KV the KDN holds.
struct Prompt {
  std::vector<int32_t> tokens;
  size_t known = 0;
};

// How a text and a question become a prompt.
class PromptForm {
 public:
  // The text, then "<q> " and the question: what the shipped checkpoint was
  // trained on.
  PromptForm() = default;
  // A chat, in ChatML if the tokenizer has the token <|im_start|>, in the form
  // of Llama 3 if it has <|start_header_id|>. The text is the system message.
  // FAILED_PRECONDITION, naming the remedy, for any other tokenizer.
  static absl::StatusOr<PromptForm> Chat(const model::Tokenizer& tokenizer);
  // `text` with {knowledge} and {question} in it, once each and in this order.
  // INVALID_ARGUMENT, naming `name`, for any other text.
  static absl::StatusOr<PromptForm> Template(const std::string& text,
                                             const std::string& name);

  // INVALID_ARGUMENT for an empty question, or when the tokenizer cannot split
  // the prompt. An empty `knowledge` asks without a text.
  absl::StatusOr<Prompt> Make(const model::Tokenizer& tokenizer,
                              const std::string& knowledge,
                              const std::string& question) const;
  // The tokens with which all prompts about `knowledge` begin.
  absl::StatusOr<std::vector<int32_t>> Known(
      const model::Tokenizer& tokenizer, const std::string& knowledge) const;

 private:
  bool is_template() const { return !question_.empty(); }
  std::string Render(const std::string& knowledge,
                     const std::string& question) const;

  // A template is begin_ + text + question_ + question + end_; without a text,
  // alone_ + question + end_. Empty: the form of the shipped checkpoint.
  std::string begin_;
  std::string question_;
  std::string end_;
  std::string alone_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_PROMPT_FORM_H_
