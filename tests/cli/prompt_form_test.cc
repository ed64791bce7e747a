#include "cli/prompt_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kdn::cli {
namespace {

using testing::HasSubstr;

// Words have tokens; every other word is 0.
model::Tokenizer Words(const std::string& special) {
  const std::string json =
      R"({"added_tokens":[{"id":1,"content":")" + special +
      R"(","special":true},{"id":2,"content":"<|im_end|>","special":true},
      {"id":3,"content":"<|eot_id|>","special":true},
      {"id":4,"content":"<|end_header_id|>","special":true}],
      "pre_tokenizer":{"type":"WhitespaceSplit"},
      "model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,")" +
      special +
      R"(":1,"<|im_end|>":2,"<|eot_id|>":3,"<|end_header_id|>":4,"system":10,
      "user":11,"assistant":12,"the":20,"door":21,"is":22,"red":23,"What":30,
      "colour":31,"Where":32,"<q>":33,"Why?":34,"isWhy?":35,"is1":36}}})";
  auto tokenizer = model::Tokenizer::Parse(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

using Ids = std::vector<int32_t>;

std::pair<Ids, size_t> Made(const PromptForm& form,
                            const model::Tokenizer& tokenizer,
                            const std::string& knowledge,
                            const std::string& question) {
  const auto prompt = form.Make(tokenizer, knowledge, question);
  EXPECT_TRUE(prompt.ok()) << prompt.status();
  return {prompt->tokens, prompt->known};
}

TEST(PromptFormTest, TheShippedCheckpointIsAskedBehindTheText) {
  const model::Tokenizer words = Words("<|x|>");
  const PromptForm form;
  EXPECT_EQ(Made(form, words, "the door is red", "What colour"),
            (std::pair<Ids, size_t>({20, 21, 22, 23, 33, 30, 31}, 4)));
  EXPECT_EQ(*form.Known(words, "the door is red"), (Ids{20, 21, 22, 23}));
  EXPECT_EQ(Made(form, words, "", "What colour"),
            (std::pair<Ids, size_t>({33, 30, 31}, 0)));
}

TEST(PromptFormTest, ChatMlHasTheTextAsItsSystemMessage) {
  const model::Tokenizer words = Words("<|im_start|>");
  const auto form = PromptForm::Chat(words);
  ASSERT_TRUE(form.ok()) << form.status();
  const Ids known = {1, 10, 20, 21, 22, 23, 2, 1, 11};
  Ids all = known;
  all.insert(all.end(), {30, 31, 2, 1, 12});
  EXPECT_EQ(Made(*form, words, "the door is red", "What colour"),
            std::make_pair(all, known.size()));
  EXPECT_EQ(*form->Known(words, "the door is red"), known);
  EXPECT_EQ(Made(*form, words, "", "What colour"),
            (std::pair<Ids, size_t>({1, 11, 30, 31, 2, 1, 12}, 0)));
}

TEST(PromptFormTest, Llama3IsToldByItsTokens) {
  const model::Tokenizer words = Words("<|start_header_id|>");
  const auto form = PromptForm::Chat(words);
  ASSERT_TRUE(form.ok()) << form.status();
  EXPECT_EQ(Made(*form, words, "the door", "Where"),
            (std::pair<Ids, size_t>(
                {1, 10, 4, 20, 21, 3, 1, 11, 4, 32, 3, 1, 12, 4}, 9)));
}

TEST(PromptFormTest, ATokenizerWithoutChatTokensNamesTheRemedy) {
  const auto form = PromptForm::Chat(Words("<|x|>"));
  EXPECT_TRUE(absl::IsFailedPrecondition(form.status()));
  EXPECT_THAT(std::string(form.status().message()), HasSubstr("--template"));
}

// What prompts have in common ends where the question begins, also when the
// question's first word is one word with what is before it.
TEST(PromptFormTest, TheQuestionDoesNotChangeTheKnownTokens) {
  const model::Tokenizer words = Words("<|x|>");
  const auto form =
      PromptForm::Template("the {knowledge} is{question} red", "a file");
  ASSERT_TRUE(form.ok()) << form.status();
  EXPECT_EQ(*form->Known(words, "door"), (Ids{20, 21}));
  EXPECT_EQ(Made(*form, words, "door", " Where"),
            (std::pair<Ids, size_t>({20, 21, 22, 32, 23}, 2)));
}

TEST(PromptFormTest, PromptsWithNothingInCommonHaveNoKnownTokens) {
  const model::Tokenizer words = Words("<|x|>");
  const auto form = PromptForm::Template("{knowledge}s{question}", "a file");
  ASSERT_TRUE(form.ok()) << form.status();
  EXPECT_EQ(*form->Known(words, "i"), Ids());
  EXPECT_EQ(Made(*form, words, "i", " red").second, 0u);
}

TEST(PromptFormTest, ATemplateThatCannotBeFilledIsNamed) {
  for (const char* text :
       {"", "{knowledge}", "{question}", "{question} {knowledge}",
        "{knowledge} {knowledge} {question}",
        "{knowledge} {question} {question}", "{knowledge}{question}"}) {
    const auto form = PromptForm::Template(text, "chat.txt");
    EXPECT_TRUE(absl::IsInvalidArgument(form.status())) << text;
    EXPECT_THAT(std::string(form.status().message()), HasSubstr("chat.txt"));
  }
}

TEST(PromptFormTest, AnEmptyQuestionIsRefused) {
  const model::Tokenizer words = Words("<|x|>");
  EXPECT_TRUE(absl::IsInvalidArgument(
      PromptForm().Make(words, "the door", "").status()));
}

}  // namespace
}  // namespace kdn::cli
