#include "model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "model/bpe.h"
#include "model/post_processor.h"

namespace kdn::model {
namespace {

using Json = nlohmann::json;

constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kWhitespacePattern[] = R"(\w+|[^\w\s]+)";
constexpr char kWhitespaceSplitPattern[] = R"(\S+)";

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", what));
}
absl::Status Unknown(const std::string& what) {
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.json: ", what, " is not supported"));
}

// A compiled regular expression that cuts text into pre-tokens.
class Splitter {
 public:
  static absl::StatusOr<Splitter> Compile(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre2_code* code = pcre2_compile(
        reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
        PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &at, nullptr);
    if (code == nullptr) {
      return Bad(
          absl::StrCat("the splitting pattern is invalid at offset ", at));
    }
    // Without the JIT, matching is slower but works.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return Splitter(code);
  }
  // Calls visit(piece, matched) for every part of the text, in order.
  template <typename Visit>
  void ForEach(std::string_view text, Visit visit) const {
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr),
        &pcre2_match_data_free);
    size_t at = 0;
    while (at < text.size()) {
      const int found =
          pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                      text.size(), at, 0, match.get(), nullptr);
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
      if (found < 0 || span[1] <= span[0]) break;
      if (span[0] > at) visit(text.substr(at, span[0] - at), false);
      visit(text.substr(span[0], span[1] - span[0]), true);
      at = span[1];
    }
    if (at < text.size()) visit(text.substr(at), false);
  }

 private:
  explicit Splitter(pcre2_code* code) : code_(code, &pcre2_code_free) {}
  std::shared_ptr<pcre2_code> code_;
};

}  // namespace

struct Tokenizer::Rules {
  bool is_bpe = false;
  Bpe bpe;
  absl::flat_hash_map<std::string, int32_t> vocab;
  absl::flat_hash_map<int32_t, std::string> pieces;
  std::vector<std::pair<std::string, int32_t>> added;
  absl::flat_hash_map<int32_t, std::string> added_text;
  std::optional<Splitter> splitter;
  bool keep_unmatched = true;
  std::optional<int32_t> unknown;
  std::vector<int32_t> in_front;  // of a text that begins a prompt
  int vocab_size = 0;
};

namespace {

using Rules = Tokenizer::Rules;

absl::Status ParseAdded(const Json& json, Rules& rules) {
  if (!json.contains("added_tokens")) return absl::OkStatus();
  if (!json["added_tokens"].is_array()) {
    return Bad("added_tokens: expected a list");
  }
  for (const Json& token : json["added_tokens"]) {
    if (!token.is_object() || !token.contains("content") ||
        !token["content"].is_string() || !token.contains("id") ||
        !token["id"].is_number_integer() ||
        token["content"].get<std::string>().empty()) {
      return Bad("added_tokens: an entry lacks an id or content");
    }
    rules.added.emplace_back(token["content"].get<std::string>(),
                             token["id"].get<int32_t>());
    rules.added_text[rules.added.back().second] = rules.added.back().first;
  }
  return absl::OkStatus();
}

absl::Status ParseVocab(const Json& model, Rules& rules) {
  if (!model.contains("vocab") || !model["vocab"].is_object()) {
    return Bad("model.vocab: expected an object");
  }
  for (const auto& [piece, id] : model["vocab"].items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() > (1 << 24)) {
      return Bad(absl::StrCat("model.vocab: '", piece, "' has no valid id"));
    }
    rules.vocab[piece] = id.get<int32_t>();
    rules.pieces[id.get<int32_t>()] = piece;
    rules.vocab_size = std::max(rules.vocab_size, id.get<int32_t>() + 1);
  }
  return absl::OkStatus();
}

// A merge is written "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(
    const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
      merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  if (merge.is_string()) {
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return Bad("model.merges: an entry is not a pair");
}

absl::Status ParseBpe(const Json& model, Rules& rules) {
  if (!model.contains("merges") || !model["merges"].is_array()) {
    return Bad("model.merges: expected a list");
  }
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Json& entry : model["merges"]) {
    absl::StatusOr<std::pair<std::string, std::string>> merge =
        ParseMerge(entry);
    if (!merge.ok()) return merge.status();
    merges.push_back(*std::move(merge));
  }
  const bool ignore = model.contains("ignore_merges") &&
                      model["ignore_merges"].is_boolean() &&
                      model["ignore_merges"].get<bool>();
  rules.is_bpe = true;
  return rules.bpe.Build(rules.vocab, merges, ignore);
}

absl::Status ParseModel(const Json& json, Rules& rules) {
  if (!json.contains("model") || !json["model"].is_object()) {
    return Bad("model: expected an object");
  }
  const Json& model = json["model"];
  if (absl::Status status = ParseVocab(model, rules); !status.ok()) {
    return status;
  }
  // Old files leave the type out: a model with merges is BPE.
  const std::string type =
      model.contains("type") && model["type"].is_string()
          ? model["type"].get<std::string>()
          : (model.contains("merges") ? "BPE" : "WordLevel");
  if (type == "BPE") return ParseBpe(model, rules);
  if (type != "WordLevel") return Unknown(absl::StrCat("model type ", type));
  if (model.contains("unk_token") && model["unk_token"].is_string()) {
    const auto id = rules.vocab.find(model["unk_token"].get<std::string>());
    if (id != rules.vocab.end()) rules.unknown = id->second;
  }
  return absl::OkStatus();
}

// Sets the pattern that splits text. UNIMPLEMENTED for a second pattern.
absl::Status SplitBy(std::string by, std::string& pattern) {
  if (!pattern.empty()) {
    return Unknown("a Sequence of several splitting patterns");
  }
  pattern = std::move(by);
  return absl::OkStatus();
}

absl::Status ParsePreTokenizer(const Json& json, std::string& pattern,
                               Rules& rules) {
  const std::string type =
      json.is_object() && json.contains("type") && json["type"].is_string()
          ? json["type"].get<std::string>()
          : "";
  if (type == "Sequence") {
    if (!json.contains("pretokenizers") || !json["pretokenizers"].is_array()) {
      return Bad("pre_tokenizer: a Sequence needs pretokenizers");
    }
    for (const Json& part : json["pretokenizers"]) {
      if (absl::Status status = ParsePreTokenizer(part, pattern, rules);
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") {
    if (json.value("add_prefix_space", false)) {
      return Unknown("ByteLevel with add_prefix_space");
    }
    if (!json.value("use_regex", true)) return absl::OkStatus();
    return SplitBy(kGpt2Pattern, pattern);
  }
  if (type == "Whitespace" || type == "WhitespaceSplit") {
    rules.keep_unmatched = false;
    return SplitBy(
        type == "Whitespace" ? kWhitespacePattern : kWhitespaceSplitPattern,
        pattern);
  }
  if (type == "Split") {
    const bool plain = json.contains("pattern") &&
                       json["pattern"].is_object() &&
                       json["pattern"].contains("Regex") &&
                       json["pattern"]["Regex"].is_string() &&
                       json.value("behavior", "") == "Isolated" &&
                       !json.value("invert", false);
    if (!plain) return Unknown("a Split that is not an isolating Regex");
    return SplitBy(json["pattern"]["Regex"].get<std::string>(), pattern);
  }
  return Unknown(absl::StrCat("pre_tokenizer ", type));
}

absl::Status ParseAll(const Json& json, Rules& rules) {
  if (!json.is_object()) return Bad("expected a JSON object");
  if (json.contains("normalizer") && !json["normalizer"].is_null() &&
      json["normalizer"].value("type", "") != "NFC") {
    // NFC is accepted and not applied: nearly all text is in NFC already.
    return Unknown(absl::StrCat("normalizer ", json["normalizer"].dump()));
  }
  if (absl::Status status = ParseAdded(json, rules); !status.ok()) {
    return status;
  }
  if (absl::Status status = ParseModel(json, rules); !status.ok()) {
    return status;
  }
  for (const auto& [text, id] : rules.added) {
    rules.vocab_size = std::max(rules.vocab_size, id + 1);
  }
  if (json.contains("post_processor")) {
    absl::StatusOr<std::vector<int32_t>> in_front =
        TokensInFront(json["post_processor"]);
    if (!in_front.ok()) return in_front.status();
    rules.in_front = *std::move(in_front);
  }
  std::string pattern;
  if (json.contains("pre_tokenizer") && !json["pre_tokenizer"].is_null()) {
    if (absl::Status status =
            ParsePreTokenizer(json["pre_tokenizer"], pattern, rules);
        !status.ok()) {
      return status;
    }
  }
  if (pattern.empty()) return absl::OkStatus();
  absl::StatusOr<Splitter> splitter = Splitter::Compile(pattern);
  if (!splitter.ok()) return splitter.status();
  rules.splitter = *std::move(splitter);
  return absl::OkStatus();
}

void EncodePlain(const Rules& rules, std::string_view text,
                 std::vector<int32_t>& ids) {
  const auto piece = [&](std::string_view part, bool matched) {
    if (rules.is_bpe) {
      rules.bpe.Encode(part, ids);
    } else if (matched || rules.keep_unmatched) {
      const auto id = rules.vocab.find(std::string(part));
      if (id != rules.vocab.end()) {
        ids.push_back(id->second);
      } else if (rules.unknown) {
        ids.push_back(*rules.unknown);
      }
    }
  };
  if (rules.splitter) {
    rules.splitter->ForEach(text, piece);
  } else if (!text.empty()) {
    piece(text, true);
  }
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Rules> rules)
    : rules_(std::move(rules)) {}

absl::StatusOr<Tokenizer> Tokenizer::Parse(const std::string& text) {
  auto rules = std::make_shared<Rules>();
  try {
    // Json::value() throws when a field has another type.
    const Json json = Json::parse(text);
    if (absl::Status status = ParseAll(json, *rules); !status.ok()) {
      return status;
    }
  } catch (const nlohmann::json::exception& error) {
    return Bad(error.what());
  }
  return Tokenizer(std::move(rules));
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& directory) {
  const std::filesystem::path path =
      std::filesystem::path(directory) / "tokenizer.json";
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
  }
  std::ostringstream text;
  text << file.rdbuf();
  return Parse(text.str());
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t plain = 0;  // begin of the text that is not encoded yet
  size_t at = 0;
  while (at < text.size()) {
    const std::pair<std::string, int32_t>* longest = nullptr;
    for (const auto& token : rules_->added) {
      if (text.compare(at, token.first.size(), token.first) == 0 &&
          (longest == nullptr || token.first.size() > longest->first.size())) {
        longest = &token;
      }
    }
    if (longest == nullptr) {
      ++at;
      continue;
    }
    EncodePlain(*rules_, text.substr(plain, at - plain), ids);
    ids.push_back(longest->second);
    at += longest->first.size();
    plain = at;
  }
  EncodePlain(*rules_, text.substr(plain), ids);
  return ids;
}

std::vector<int32_t> Tokenizer::EncodeBeginning(std::string_view text) const {
  std::vector<int32_t> ids = Encode(text);
  if (!ids.empty()) {
    ids.insert(ids.begin(), rules_->in_front.begin(), rules_->in_front.end());
  }
  return ids;
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const {
  std::string text;
  for (int32_t id : ids) {
    const auto added = rules_->added_text.find(id);
    const auto piece = rules_->pieces.find(id);
    if (!rules_->is_bpe && !text.empty()) text += ' ';
    if (added != rules_->added_text.end()) {
      text += added->second;
    } else if (piece != rules_->pieces.end()) {
      text += rules_->is_bpe ? Bpe::FromStandIns(piece->second) : piece->second;
    }
  }
  return text;
}

int Tokenizer::vocab_size() const { return rules_->vocab_size; }

}  // namespace kdn::model
