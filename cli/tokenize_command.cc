// kdn tokenize: the token ids of texts, and the texts of token ids.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "model/tokenizer.h"

namespace kdn::cli {
namespace {

using Json = nlohmann::json;

struct TokenizeFlags {
  std::string model;
  bool bare = false;    // without the special tokens in front
  bool decode = false;  // from ids to text
};

// The answer to one line of input.
absl::StatusOr<Json> AnswerTo(const std::string& line,
                              const model::Tokenizer& tokenizer,
                              const TokenizeFlags& flags) {
  const Json input = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (flags.decode) {
    std::vector<int32_t> ids;
    bool is_list = input.is_array();
    for (size_t i = 0; is_list && i < input.size(); ++i) {
      is_list = input[i].is_number_integer();
      if (is_list) ids.push_back(input[i].get<int32_t>());
    }
    if (!is_list) {
      return absl::InvalidArgumentError("expected a JSON list of token ids");
    }
    auto text = tokenizer.Decode(ids);
    if (!text.ok()) return text.status();
    return Json(*std::move(text));
  }
  if (!input.is_string()) {
    return absl::InvalidArgumentError("expected a JSON string");
  }
  const std::string text = input.get<std::string>();
  auto ids =
      flags.bare ? tokenizer.Encode(text) : tokenizer.EncodeBeginning(text);
  if (!ids.ok()) return ids.status();
  return Json(*std::move(ids));
}

absl::Status Tokenize(const TokenizeFlags& flags) {
  const auto tokenizer = model::Tokenizer::Load(flags.model);
  if (!tokenizer.ok()) return tokenizer.status();
  int number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    const absl::StatusOr<Json> answer = AnswerTo(line, *tokenizer, flags);
    if (!answer.ok()) {
      return absl::Status(
          answer.status().code(),
          absl::StrCat("line ", number, ": ", answer.status().message()));
    }
    std::printf("%s\n", answer->dump().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Show the token ids of texts, as `kdn inject` computes them\n\n"
      "  echo '\"The code of vault elm is 1.\"' | kdn tokenize\n"
      "  echo '[17, 4]' | kdn tokenize --decode\n\n"
      "Reads one JSON string per line from the standard input, and writes one "
      "JSON list of ids per line. Ends at the first line that cannot be "
      "tokenized.");
  auto flags = std::make_shared<TokenizeFlags>();
  command->add_option("--model", flags->model,
                      "directory with a Hugging Face tokenizer.json (default: "
                      "the shipped model)");
  CLI::Option* bare = command->add_flag(
      "--bare", flags->bare,
      "without the special tokens that tokenizer.json puts in front of a text");
  command
      ->add_flag("--decode", flags->decode,
                 "read JSON lists of ids, and write their texts")
      ->excludes(bare);
  command->callback([&program, flags] {
    if (flags->model.empty()) flags->model = DefaultModelDirectory(program);
    program.exit_code = Report(Tokenize(*flags));
  });
}

}  // namespace kdn::cli
