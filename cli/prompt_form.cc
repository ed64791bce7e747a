#include "cli/prompt_form.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::cli {
namespace {

constexpr std::string_view kKnowledge = "{knowledge}";
constexpr std::string_view kQuestion = "{question}";

// Questions that differ from the first byte on. What prompts about them have in
// common does not depend on the question.
constexpr const char* kProbes[] = {"Why?", "When is it?", "1", "\u00e9t\u00e9"};

// Special tokens of ChatML (OpenAI, 2023; models of Qwen and SmolLM) and of
// Llama 3 (Meta's model card, "Prompt format").
constexpr const char* kChatMlToken = "<|im_start|>";
constexpr const char* kChatMl =
    "<|im_start|>system\n{knowledge}<|im_end|>\n"
    "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n";
constexpr const char* kChatMlAlone = "<|im_start|>user\n";
constexpr const char* kLlama3Token = "<|start_header_id|>";
constexpr const char* kLlama3 =
    "<|start_header_id|>system<|end_header_id|>\n\n{knowledge}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n";
constexpr const char* kLlama3Alone =
    "<|start_header_id|>user<|end_header_id|>\n\n";

bool HasToken(const model::Tokenizer& tokenizer, const char* token) {
  const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(token);
  if (!ids.ok() || ids->size() != 1) return false;
  // The only token may be the one for unknown words.
  const absl::StatusOr<std::string> text = tokenizer.Decode(*ids);
  return text.ok() && *text == token;
}

size_t CommonLength(const std::vector<int32_t>& a,
                    const std::vector<int32_t>& b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

absl::StatusOr<PromptForm> PromptForm::Chat(const model::Tokenizer& tokenizer) {
  const bool chat_ml = HasToken(tokenizer, kChatMlToken);
  if (!chat_ml && !HasToken(tokenizer, kLlama3Token)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the tokenizer has neither ", kChatMlToken, " nor ", kLlama3Token,
        ": write the model's chat template to a file, with {knowledge} and "
        "{question} in it, and name the file with --template"));
  }
  absl::StatusOr<PromptForm> form =
      Template(chat_ml ? kChatMl : kLlama3, "the built-in template");
  if (form.ok()) form->alone_ = chat_ml ? kChatMlAlone : kLlama3Alone;
  return form;
}

absl::StatusOr<PromptForm> PromptForm::Template(const std::string& text,
                                                const std::string& name) {
  const size_t knowledge = text.find(kKnowledge);
  const size_t question = text.find(kQuestion);
  const auto once = [&](std::string_view field, size_t at) {
    return at != std::string::npos &&
           text.find(field, at + 1) == std::string::npos;
  };
  if (!once(kKnowledge, knowledge) || !once(kQuestion, question) ||
      question < knowledge) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": expected {knowledge} once, and {question} once behind it"));
  }
  PromptForm form;
  form.begin_ = text.substr(0, knowledge);
  const size_t between = knowledge + kKnowledge.size();
  form.question_ = text.substr(between, question - between);
  form.end_ = text.substr(question + kQuestion.size());
  if (form.question_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": expected something between {knowledge} and {question}"));
  }
  form.alone_ = form.begin_ + form.question_;
  return form;
}

std::string PromptForm::Render(const std::string& knowledge,
                               const std::string& question) const {
  if (knowledge.empty()) return absl::StrCat(alone_, question, end_);
  return absl::StrCat(begin_, knowledge, question_, question, end_);
}

absl::StatusOr<Prompt> PromptForm::Make(const model::Tokenizer& tokenizer,
                                        const std::string& knowledge,
                                        const std::string& question) const {
  if (question.empty()) {
    return absl::InvalidArgumentError("the question is empty");
  }
  absl::StatusOr<std::vector<int32_t>> known = Known(tokenizer, knowledge);
  if (!known.ok()) return known.status();
  Prompt prompt;
  if (is_template()) {
    absl::StatusOr<std::vector<int32_t>> tokens =
        tokenizer.EncodeBeginning(Render(knowledge, question));
    if (!tokens.ok()) return tokens.status();
    prompt.known = CommonLength(*known, *tokens);
    prompt.tokens = *std::move(tokens);
    return prompt;
  }
  const std::string asked = absl::StrCat("<q> ", question);
  const absl::StatusOr<std::vector<int32_t>> rest =
      known->empty() ? tokenizer.EncodeBeginning(asked)
                     : tokenizer.Encode(asked);
  if (!rest.ok()) return rest.status();
  prompt.known = known->size();
  prompt.tokens = *std::move(known);
  prompt.tokens.insert(prompt.tokens.end(), rest->begin(), rest->end());
  return prompt;
}

absl::StatusOr<std::vector<int32_t>> PromptForm::Known(
    const model::Tokenizer& tokenizer, const std::string& knowledge) const {
  if (knowledge.empty()) return std::vector<int32_t>();
  if (!is_template()) return tokenizer.EncodeBeginning(knowledge);
  std::vector<int32_t> known;
  bool first = true;
  for (const char* probe : kProbes) {
    absl::StatusOr<std::vector<int32_t>> tokens =
        tokenizer.EncodeBeginning(Render(knowledge, probe));
    if (!tokens.ok()) return tokens;
    if (std::exchange(first, false)) known = *tokens;
    known.resize(CommonLength(known, *tokens));
  }
  return known;
}

}  // namespace kdn::cli
