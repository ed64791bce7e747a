#include "model/tokenizer/normalizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

absl::Status ToNormalForm(NormalForm form, NormalText& text) {
  absl::StatusOr<std::string> normal = Normalize(form, text.text);
  if (!normal.ok()) return normal.status();
  text.text = *std::move(normal);
  return absl::OkStatus();
}

absl::Status Replace(const Pattern& pattern, const std::string& content,
                     NormalText& text) {
  std::vector<Span> spans;
  if (absl::Status status = pattern.Find(text.text, spans); !status.ok()) {
    return status;
  }
  std::string replaced;
  for (const Span& span : spans) {
    if (span.match) {
      replaced += content;
    } else {
      replaced.append(text.text, span.begin, span.end - span.begin);
    }
  }
  // The library aligns new text with the last byte of the text it replaces.
  if (!spans.empty() && spans[0].match) {
    size_t second = 0;
    if (!text.text.empty()) NextCodePoint(text.text, second);
    text.at_front &= !content.empty() && spans[0].end <= second;
  }
  text.text = std::move(replaced);
  return absl::OkStatus();
}

absl::Status Strip(bool left, bool right, NormalText& text) {
  const std::string& all = text.text;
  size_t begin = 0;
  size_t end = all.size();
  for (size_t at = 0; left && at < end; begin = at) {
    if (!IsWhitespace(NextCodePoint(all, at))) break;
  }
  for (size_t at = end; right && at > begin; end = at) {
    if (!IsWhitespace(PreviousCodePoint(all, at))) break;
  }
  text.at_front &= begin == 0;
  text.text = all.substr(begin, end - begin);
  return absl::OkStatus();
}

absl::Status StripAccents(NormalText& text) {
  std::string kept;
  for (size_t at = 0; at < text.text.size();) {
    const size_t begin = at;
    if (!IsCombiningMark(NextCodePoint(text.text, at))) {
      kept.append(text.text, begin, at - begin);
    } else if (begin == 0) {
      text.at_front = false;
    }
  }
  text.text = std::move(kept);
  return absl::OkStatus();
}

std::optional<NormalForm> FormOf(const std::string& type) {
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  return std::nullopt;
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const Json& json) {
  Normalizer normalizer;
  if (json.is_null()) return normalizer;
  if (absl::Status status = normalizer.Add(json, "normalizer", 0);
      !status.ok()) {
    return status;
  }
  return normalizer;
}

absl::Status Normalizer::Apply(NormalText& text) const {
  for (const Step& step : steps_) {
    if (absl::Status status = step(text); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Normalizer::Add(const Json& json, const std::string& path,
                             int depth) {
  Fields fields(json, path);
  if (!fields.status().ok()) return fields.status();
  const std::string type = fields.Type();
  if (type == "Sequence") return AddSequence(fields, depth);
  if (type == "Replace") return AddReplace(fields);
  if (type == "Prepend") return AddPrepend(fields);
  if (type == "Strip") return AddStrip(fields);
  if (const std::optional<NormalForm> form = FormOf(type)) {
    steps_.push_back(
        [form](NormalText& text) { return ToNormalForm(*form, text); });
  } else if (type == "Lowercase") {
    steps_.push_back([](NormalText& text) {
      text.text = ToLowercase(text.text);
      return absl::OkStatus();
    });
  } else if (type == "StripAccents") {
    steps_.push_back(StripAccents);
  } else if (type == "ByteLevel") {
    steps_.push_back([](NormalText& text) {
      text.text = ToStandIns(text.text);
      return absl::OkStatus();
    });
  } else {
    return Unsupported(path, absl::StrCat("type '", type, "'"));
  }
  return absl::OkStatus();
}

absl::Status Normalizer::AddSequence(Fields& fields, int depth) {
  return ForEachPart(
      fields, "normalizers", depth,
      [this](const Json& part, const std::string& path, int part_depth) {
        return Add(part, path, part_depth);
      });
}

absl::Status Normalizer::AddReplace(Fields& fields) {
  absl::StatusOr<Pattern> pattern = Pattern::Parse(fields);
  if (!pattern.ok()) return pattern.status();
  steps_.push_back([pattern = *std::move(pattern),
                    content = fields.Text("content")](NormalText& text) {
    return Replace(pattern, content, text);
  });
  return fields.status();
}

absl::Status Normalizer::AddPrepend(Fields& fields) {
  steps_.push_back([prefix = fields.Text("prepend")](NormalText& text) {
    if (!text.text.empty()) text.text.insert(0, prefix);
    return absl::OkStatus();
  });
  return fields.status();
}

absl::Status Normalizer::AddStrip(Fields& fields) {
  const bool left = fields.Bool("strip_left");
  const bool right = fields.Bool("strip_right");
  steps_.push_back(
      [left, right](NormalText& text) { return Strip(left, right, text); });
  return fields.status();
}

}  // namespace kdn::model
