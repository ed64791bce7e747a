#include "model/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/post_processor.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/token_model.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {

struct Tokenizer::Parts {
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<TokenModel> model;
  Decoder decoder;
  std::vector<int32_t> in_front;  // of a text that begins a prompt

  // Appends the ids of a normalized text without added tokens.
  absl::Status EncodePlain(Piece text, std::vector<int32_t>& ids) const {
    return pre_tokenizer.Split(
        text, [&](Piece piece) { return model->Encode(piece.text, ids); });
  }
  // Appends the ids of a text without added tokens of the raw stage.
  absl::Status EncodeRaw(Piece raw, std::vector<int32_t>& ids) const {
    NormalText text{std::string(raw.text), raw.at_front};
    if (absl::Status status = normalizer.Apply(text); !status.ok()) {
      return status;
    }
    return added.Cut(
        AddedTokens::Stage::kNormalized, text.text,
        [&](std::string_view part, bool at_front) {
          return EncodePlain({part, at_front && text.at_front}, ids);
        },
        [&](int32_t id) { ids.push_back(id); });
  }
};

namespace {

// The value of a field of the file; null if it is missing.
const Json& PartOf(const Json& file, const char* name) {
  static const Json* const kNull = new Json();
  const auto found = file.find(name);
  return found == file.end() ? *kNull : *found;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Parts> parts)
    : parts_(std::move(parts)) {}

absl::StatusOr<std::shared_ptr<const Tokenizer::Parts>> Tokenizer::ParseParts(
    const std::string& text) {
  Json file;
  try {
    file = Json::parse(text);
  } catch (const Json::parse_error& error) {
    return Malformed("", error.what());
  }
  if (!file.is_object()) return Malformed("", "expected a JSON object");
  auto parts = std::make_shared<Parts>();
  absl::Status status;
  const auto take = [&status](auto parsed, auto& part) {
    status.Update(parsed.status());
    if (parsed.ok()) part = *std::move(parsed);
  };
  take(Normalizer::Parse(PartOf(file, "normalizer")), parts->normalizer);
  take(ParseTokenModel(PartOf(file, "model")), parts->model);
  if (!status.ok()) return status;
  take(AddedTokens::Parse(PartOf(file, "added_tokens"),
                          parts->model->vocabulary(), parts->normalizer),
       parts->added);
  take(PreTokenizer::Parse(PartOf(file, "pre_tokenizer")),
       parts->pre_tokenizer);
  take(TokensInFront(PartOf(file, "post_processor")), parts->in_front);
  take(Decoder::Parse(PartOf(file, "decoder")), parts->decoder);
  if (!status.ok()) return status;
  return parts;
}

absl::StatusOr<Tokenizer> Tokenizer::Parse(const std::string& text) {
  auto parts = ParseParts(text);
  if (!parts.ok()) return parts.status();
  return Tokenizer(*std::move(parts));
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

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(
    std::string_view text) const {
  if (const std::optional<size_t> bad = InvalidUtf8At(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not UTF-8 at byte ", *bad,
                     ": convert it to UTF-8, for example with iconv"));
  }
  std::vector<int32_t> ids;
  absl::Status status = parts_->added.Cut(
      AddedTokens::Stage::kRaw, text,
      [&](std::string_view part, bool at_front) {
        return parts_->EncodeRaw({part, at_front}, ids);
      },
      [&](int32_t id) { ids.push_back(id); });
  if (!status.ok()) return status;
  return ids;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeBeginning(
    std::string_view text) const {
  absl::StatusOr<std::vector<int32_t>> ids = Encode(text);
  const std::vector<int32_t>& front = parts_->in_front;
  if (!ids.ok() || ids->empty() ||
      (ids->size() >= front.size() &&
       std::equal(front.begin(), front.end(), ids->begin()))) {
    return ids;
  }
  ids->insert(ids->begin(), front.begin(), front.end());
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(
    const std::vector<int32_t>& ids) const {
  std::vector<std::string> tokens;
  for (int32_t id : ids) {
    const std::string* text = parts_->added.TextOf(id);
    if (text == nullptr) text = parts_->model->vocabulary().TextOf(id);
    if (text != nullptr) tokens.push_back(*text);
  }
  return parts_->decoder.Decode(std::move(tokens));
}

int Tokenizer::vocab_size() const {
  return std::max(parts_->added.id_end(), parts_->model->vocabulary().id_end());
}

}  // namespace kdn::model
