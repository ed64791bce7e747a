#include "bench/contexts.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/text_files.h"

namespace kdn::bench {
namespace {

constexpr size_t kContextTokens = 1500;  // CacheGen's chunk size
constexpr size_t kBehindTokens = 128;    // compared behind a window
constexpr int kNeedles = 3;

using Tokens = std::vector<int32_t>;

// A question that ends with its answer. INVALID_ARGUMENT when the tokens of the
// question change because the answer follows.
absl::StatusOr<Continuation> Asking(const model::Tokenizer& tokenizer,
                                    const std::string& question,
                                    const std::string& answer) {
  const auto before = tokenizer.Encode(question);
  if (!before.ok()) return before.status();
  auto whole = tokenizer.Encode(question + answer);
  if (!whole.ok()) return whole.status();
  if (whole->size() <= before->size() ||
      !std::equal(before->begin(), before->end(), whole->begin())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the answer to \"", question, "\" is not a run of whole tokens"));
  }
  const auto answer_tokens = static_cast<int>(whole->size() - before->size());
  return Continuation{*std::move(whole), answer_tokens};
}

absl::StatusOr<Context> RecallContext(const model::Tokenizer& tokenizer,
                                      const nlohmann::json& instance,
                                      int questions) {
  std::string text;
  for (const auto& document : instance["documents"]) {
    text += document.get<std::string>();
  }
  auto tokens = tokenizer.EncodeBeginning(text);
  if (!tokens.ok()) return tokens.status();
  Context context{*std::move(tokens), {}};
  for (const auto& asked : instance["asked"]) {
    if (static_cast<int>(context.continuations.size()) == questions) break;
    auto continuation =
        Asking(tokenizer, "<q> " + asked["question"].get<std::string>(),
               " " + asked["answer"].get<std::string>());
    if (!continuation.ok()) return continuation.status();
    context.continuations.push_back(*std::move(continuation));
  }
  return context;
}

// Joins recall contexts until they fill one long context, behind which the
// questions are compared instead of answered.
class LongContexts {
 public:
  // Appends a long context to `out` when there are enough tokens.
  void Add(const Context& one, std::vector<Context>& out) {
    joined_.tokens.insert(joined_.tokens.end(), one.tokens.begin(),
                          one.tokens.end());
    for (Continuation question : one.continuations) {
      question.tokens.resize(question.tokens.size() - question.answer);
      question.answer = 0;
      joined_.continuations.push_back(std::move(question));
    }
    if (joined_.tokens.size() < kContextTokens) return;
    joined_.tokens.resize(kContextTokens);
    out.push_back(std::exchange(joined_, {}));
  }

 private:
  Context joined_;
};

struct Needle {
  std::string place;
  std::string password;
};

class Needles {
 public:
  Needle Next() {
    static constexpr const char* kPlaces[] = {
        "harbour office", "north tower",  "map room",     "boat shed",
        "glass house",    "wine cellar",  "reading room", "east gate",
        "print shop",     "fire station", "signal cabin", "post office"};
    static constexpr const char* kWords[] = {
        "heron", "willow",  "copper",  "lantern", "meadow", "granite",
        "otter", "saffron", "thistle", "walnut",  "falcon", "pebble"};
    const size_t place = number_++ % std::size(kPlaces);
    const size_t word = random_() % std::size(kWords);
    return {kPlaces[place], absl::StrCat(kWords[word], 10 + random_() % 90)};
  }

 private:
  std::mt19937 random_{1};
  size_t number_ = 0;
};

// One window of `text`, with needles in it, from token `begin` on.
absl::StatusOr<Context> WindowAt(const model::Tokenizer& tokenizer,
                                 const Tokens& text, size_t begin,
                                 Needles& needles) {
  Context context;
  const auto from = text.begin() + static_cast<ptrdiff_t>(begin);
  std::vector<Continuation> questions;
  std::vector<Tokens> sentences;
  size_t hidden = 0;
  for (int i = 0; i < kNeedles; ++i) {
    const Needle needle = needles.Next();
    const std::string fact =
        absl::StrCat("The password of the ", needle.place, " is");
    const auto sentence =
        tokenizer.Encode(absl::StrCat("\n", fact, " ", needle.password, ".\n"));
    if (!sentence.ok()) return sentence.status();
    auto question =
        Asking(tokenizer,
               absl::StrCat("\n\nQuestion: What is the password of the ",
                            needle.place, "?\nAnswer: ", fact),
               absl::StrCat(" ", needle.password));
    if (!question.ok()) return question.status();
    hidden += sentence->size();
    sentences.push_back(*sentence);
    questions.push_back(*std::move(question));
  }
  const size_t read = kContextTokens - hidden;
  size_t at = 0;
  for (int i = 0; i < kNeedles; ++i) {
    const size_t to = read * (2 * i + 1) / (2 * kNeedles);
    context.tokens.insert(context.tokens.end(),
                          from + static_cast<ptrdiff_t>(at),
                          from + static_cast<ptrdiff_t>(to));
    context.tokens.insert(context.tokens.end(), sentences[i].begin(),
                          sentences[i].end());
    at = to;
  }
  const auto end = from + static_cast<ptrdiff_t>(read);
  context.tokens.insert(context.tokens.end(), from + static_cast<ptrdiff_t>(at),
                        end);
  context.continuations.push_back({Tokens(end, end + kBehindTokens)});
  std::move(questions.begin(), questions.end(),
            std::back_inserter(context.continuations));
  return context;
}

// The number of windows of each file: in proportion to the sizes, at least 1.
std::vector<int> Shares(absl::Span<const size_t> sizes, int windows) {
  std::vector<int> shares(sizes.size(), 1);
  for (int given = static_cast<int>(sizes.size()); given < windows; ++given) {
    size_t neediest = 0;
    for (size_t i = 1; i < sizes.size(); ++i) {
      if (sizes[i] * shares[neediest] > sizes[neediest] * shares[i]) {
        neediest = i;
      }
    }
    ++shares[neediest];
  }
  return shares;
}

}  // namespace

bool Context::compares() const {
  return std::any_of(continuations.begin(), continuations.end(),
                     [](const Continuation& c) { return c.answer == 0; });
}

absl::StatusOr<std::vector<Context>> RecallContexts(
    const model::Tokenizer& tokenizer, const std::string& file,
    const ContextLimits& limits) {
  const absl::StatusOr<std::string> lines = cli::ReadText(file);
  if (!lines.ok()) {
    return absl::NotFoundError(
        absl::StrCat(lines.status().message(),
                     ": name texts to compare on with --text FILES"));
  }
  std::istringstream in(*lines);
  std::vector<Context> contexts;
  LongContexts joined;
  int instances = 0;
  for (std::string line;
       instances++ < limits.instances && std::getline(in, line);) {
    const auto instance = nlohmann::json::parse(line, nullptr, false);
    if (!instance.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": a line is not a JSON object"));
    }
    auto context = RecallContext(tokenizer, instance, limits.questions);
    if (!context.ok()) return context.status();
    contexts.push_back(*std::move(context));
    const Context& one = contexts.back();
    joined.Add(Context(one), contexts);
  }
  return contexts;
}

absl::StatusOr<std::vector<Context>> TextContexts(
    const model::Tokenizer& tokenizer, absl::Span<const std::string> files,
    const ContextLimits& limits) {
  std::vector<Tokens> texts;
  std::vector<size_t> sizes;
  for (const std::string& file : files) {
    const absl::StatusOr<std::string> text = cli::ReadText(file);
    if (!text.ok()) return text.status();
    auto tokens = tokenizer.Encode(*text);
    if (!tokens.ok()) return tokens.status();
    sizes.push_back(tokens->size());
    texts.push_back(*std::move(tokens));
  }
  const std::vector<int> shares = Shares(sizes, limits.windows);
  constexpr size_t kWindow = kContextTokens + kBehindTokens;
  std::vector<Context> contexts;
  Needles needles;
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t share = shares[i];
    if (sizes[i] < share * kWindow) {
      return absl::InvalidArgumentError(absl::StrCat(
          files[i], " has ", sizes[i], " tokens, expected at least ",
          share * kWindow, " for ", share, " windows"));
    }
    for (size_t k = 0; k < share; ++k) {
      const size_t begin = (2 * k + 1) * sizes[i] / (2 * share) - kWindow / 2;
      auto window = WindowAt(tokenizer, texts[i], begin, needles);
      if (!window.ok()) return window.status();
      contexts.push_back(*std::move(window));
    }
  }
  return contexts;
}

}  // namespace kdn::bench
