#include "model/tokenizer/decoder.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/metaspace.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

constexpr char kReplacementCharacter[] = "\xef\xbf\xbd";

using Tokens = std::vector<std::string>;

// The bytes of a token's stand-ins; the token itself if it has any character
// that stands for no byte.
std::string BytesOf(const std::string& token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const std::optional<uint8_t> byte = ByteOfStandIn(NextCodePoint(token, at));
    if (!byte) return token;
    bytes += static_cast<char>(*byte);
  }
  return bytes;
}

absl::Status JoinBytes(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += BytesOf(token);
  tokens = {ReplaceInvalidUtf8(bytes)};
  return absl::OkStatus();
}

// The byte that a token like "<0x0A>" names.
std::optional<char> NamedByte(const std::string& token) {
  uint32_t byte = 0;
  const std::string_view text = token;
  if (text.size() != 6 || !text.starts_with("<0x") || !text.ends_with('>') ||
      !absl::SimpleHexAtoi(token.substr(3, 2), &byte)) {
    return std::nullopt;
  }
  return static_cast<char>(byte);
}

// Turns each run of tokens that name bytes into the text of these bytes.
absl::Status JoinNamedBytes(Tokens& tokens) {
  Tokens joined;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (!InvalidUtf8At(bytes)) {
      joined.push_back(bytes);
    } else {
      joined.insert(joined.end(), bytes.size(), kReplacementCharacter);
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const std::optional<char> byte = NamedByte(token)) {
      bytes += *byte;
    } else {
      flush();
      joined.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(joined);
  return absl::OkStatus();
}

absl::Status Replace(const Pattern& pattern, const std::string& content,
                     Tokens& tokens) {
  std::vector<Span> spans;
  for (std::string& token : tokens) {
    if (absl::Status s = pattern.Find(token, spans); !s.ok()) return s;
    std::string replaced;
    for (const Span& span : spans) {
      replaced += span.match ? content
                             : token.substr(span.begin, span.end - span.begin);
    }
    token = std::move(replaced);
  }
  return absl::OkStatus();
}

// Takes up to `start` times `content` from the front of each token, and up to
// `stop` times from its end.
absl::Status Strip(std::string_view content, int64_t start, int64_t stop,
                   Tokens& tokens) {
  for (std::string& token : tokens) {
    std::string_view rest = token;
    for (int64_t i = 0; i < start && rest.starts_with(content); ++i) {
      rest.remove_prefix(content.size());
    }
    for (int64_t i = 0; i < stop && rest.ends_with(content); ++i) {
      rest.remove_suffix(content.size());
    }
    token = std::string(rest);
  }
  return absl::OkStatus();
}

absl::Status RestoreSpaces(const Metaspace& metaspace, Tokens& tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool drop = i == 0 && metaspace.prepend != Metaspace::Prepend::kNever;
    std::string text;
    for (size_t at = 0; at < tokens[i].size();) {
      const size_t begin = at;
      NextCodePoint(tokens[i], at);
      const std::string_view character =
          std::string_view(tokens[i]).substr(begin, at - begin);
      if (character != metaspace.replacement) {
        text += character;
      } else if (!drop) {
        text += ' ';
      }
    }
    tokens[i] = std::move(text);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Decoder> Decoder::Parse(const Json& json) {
  Decoder decoder;
  if (json.is_null()) {
    decoder.joins_with_spaces_ = true;
    return decoder;
  }
  if (absl::Status s = decoder.Add(json, "decoder", 0); !s.ok()) return s;
  return decoder;
}

absl::StatusOr<std::string> Decoder::Decode(Tokens tokens) const {
  for (const Step& step : steps_) {
    if (absl::Status status = step(tokens); !status.ok()) return status;
  }
  return absl::StrJoin(tokens, joins_with_spaces_ ? " " : "");
}

absl::Status Decoder::Add(const Json& json, const std::string& path,
                          int depth) {
  Fields fields(json, path);
  if (!fields.status().ok()) return fields.status();
  const std::string type = fields.Type();
  if (type == "Sequence") return AddSequence(fields, depth);
  if (type == "Replace") return AddReplace(fields);
  if (type == "Strip") return AddStrip(fields);
  if (type == "Metaspace") return AddMetaspace(fields);
  if (type == "ByteLevel") {
    steps_.push_back(JoinBytes);
  } else if (type == "ByteFallback") {
    steps_.push_back(JoinNamedBytes);
  } else if (type == "Fuse") {
    steps_.push_back([](Tokens& tokens) {
      tokens = {absl::StrJoin(tokens, "")};
      return absl::OkStatus();
    });
  } else {
    return Unsupported(path, absl::StrCat("type '", type, "'"));
  }
  return absl::OkStatus();
}

absl::Status Decoder::AddSequence(Fields& fields, int depth) {
  return ForEachPart(
      fields, "decoders", depth,
      [this](const Json& part, const std::string& path, int part_depth) {
        return Add(part, path, part_depth);
      });
}

absl::Status Decoder::AddReplace(Fields& fields) {
  absl::StatusOr<Pattern> pattern = Pattern::Parse(fields);
  if (!pattern.ok()) return pattern.status();
  steps_.push_back([pattern = *std::move(pattern),
                    content = fields.Text("content")](Tokens& tokens) {
    return Replace(pattern, content, tokens);
  });
  return fields.status();
}

absl::Status Decoder::AddStrip(Fields& fields) {
  const std::string content = fields.Character("content");
  const int64_t start = fields.Integer("start", 0, INT32_MAX);
  const int64_t stop = fields.Integer("stop", 0, INT32_MAX);
  if (!fields.status().ok()) return fields.status();
  steps_.push_back([content, start, stop](Tokens& tokens) {
    return Strip(content, start, stop, tokens);
  });
  return absl::OkStatus();
}

absl::Status Decoder::AddMetaspace(Fields& fields) {
  absl::StatusOr<Metaspace> metaspace = Metaspace::Parse(fields);
  if (!metaspace.ok()) return metaspace.status();
  steps_.push_back([metaspace = *metaspace](Tokens& tokens) {
    return RestoreSpaces(metaspace, tokens);
  });
  return absl::OkStatus();
}

}  // namespace kdn::model
