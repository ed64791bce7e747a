#include "model/tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/tokenizer/unicode.h"

namespace kdn::model {
namespace {

// Pieces of up to this many symbols are merged by MergeFew.
constexpr size_t kFewSymbols = 64;

uint64_t KeyOf(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

// A merge is written "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> PairOf(const Json& merge,
                                                           size_t number) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
      merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  if (merge.is_string()) {
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && space == text.rfind(' ')) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return Malformed("model.merges",
                   absl::StrCat("entry ", number, " is not a pair"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenModel>> Bpe::Parse(Fields& fields) {
  absl::StatusOr<Vocabulary> vocabulary = Vocabulary::Parse(fields);
  if (!vocabulary.ok()) return vocabulary.status();
  auto bpe = std::make_unique<Bpe>();
  bpe->vocabulary_ = *std::move(vocabulary);
  if (absl::Status s = bpe->ParseOptions(fields); !s.ok()) return s;
  const Json& merges = fields.List("merges");
  if (!fields.status().ok()) return fields.status();
  if (absl::Status s = bpe->ParseMerges(merges); !s.ok()) return s;
  bpe->IndexCharacters();
  return bpe;
}

absl::Status Bpe::ParseOptions(Fields& fields) {
  for (const char* affix :
       {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.OptionalText(affix).value_or("").empty()) {
      return Unsupported(fields.path(), affix);
    }
  }
  if (fields.Has("dropout") && fields.Real("dropout") != 0) {
    return Unsupported(fields.path(), "dropout");
  }
  unknown_ = fields.OptionalText("unk_token");
  if (unknown_) unknown_id_ = vocabulary_.Find(*unknown_);
  fuse_unknown_ = fields.Bool("fuse_unk", false);
  byte_fallback_ = fields.Bool("byte_fallback", false);
  ignore_merges_ = fields.Bool("ignore_merges", false);
  return fields.status();
}

absl::Status Bpe::ParseMerges(const Json& list) {
  for (const Json& entry : list) {
    // The first line of an old merges.txt.
    if (entry.is_string() && entry.get<std::string>().starts_with("#version")) {
      continue;
    }
    auto pair = PairOf(entry, merges_.size());
    if (!pair.ok()) return pair.status();
    if (absl::Status status = AddMerge(pair->first, pair->second);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(const std::string& left, const std::string& right) {
  const auto left_id = vocabulary_.Find(left);
  const auto right_id = vocabulary_.Find(right);
  const auto result = vocabulary_.Find(left + right);
  if (!left_id || !right_id || !result) {
    return Malformed("model.merges",
                     absl::StrCat("'", left, "' '", right,
                                  "' uses a piece that is not in the "
                                  "vocabulary"));
  }
  merges_[KeyOf(*left_id, *right_id)] = Merge{next_rank_++, *result};
  return absl::OkStatus();
}

void Bpe::IndexCharacters() {
  for (size_t c = 0; c < low_ids_.size(); ++c) {
    std::string character;
    AppendUtf8(static_cast<char32_t>(c), character);
    low_ids_[c] = vocabulary_.Find(character).value_or(-1);
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    byte_ids_[byte] =
        vocabulary_.Find(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }
}

std::optional<int32_t> Bpe::IdOf(std::string_view character) const {
  if (character.size() > 2) return vocabulary_.Find(character);
  size_t at = 0;
  const char32_t c = NextCodePoint(character, at);
  if (c >= low_ids_.size()) return vocabulary_.Find(character);
  if (low_ids_[c] < 0) return std::nullopt;
  return low_ids_[c];
}

bool Bpe::AppendBytes(std::string_view character,
                      std::vector<int32_t>& symbols) const {
  const auto id_of = [&](char byte) {
    return byte_ids_[static_cast<uint8_t>(byte)];
  };
  if (!byte_fallback_ ||
      !std::all_of(character.begin(), character.end(),
                   [&](char byte) { return id_of(byte) >= 0; })) {
    return false;
  }
  for (char byte : character) symbols.push_back(id_of(byte));
  return true;
}

absl::Status Bpe::ToSymbols(std::string_view piece,
                            std::vector<int32_t>& symbols) const {
  bool unknown = false;  // an unknown token waits for its neighbours
  for (size_t at = 0; at < piece.size();) {
    const size_t begin = at;
    NextCodePoint(piece, at);
    const std::string_view character = piece.substr(begin, at - begin);
    if (const std::optional<int32_t> id = IdOf(character)) {
      if (unknown) symbols.push_back(*unknown_id_);
      unknown = false;
      symbols.push_back(*id);
    } else if (!AppendBytes(character, symbols) && unknown_) {
      if (!unknown_id_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "'", std::string(character),
            "' is not in the vocabulary, and neither is ", *unknown_,
            ", which tokenizer.json names as unk_token"));
      }
      if (unknown && !fuse_unknown_) symbols.push_back(*unknown_id_);
      unknown = true;
    }
  }
  if (unknown) symbols.push_back(*unknown_id_);
  return absl::OkStatus();
}

absl::Status Bpe::Encode(std::string_view piece,
                         std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const std::optional<int32_t> whole = vocabulary_.Find(piece)) {
      ids.push_back(*whole);
      return absl::OkStatus();
    }
  }
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  if (absl::Status status = ToSymbols(piece, symbols); !status.ok()) {
    return status;
  }
  if (symbols.size() <= kFewSymbols) {
    MergeFew(symbols);
  } else {
    MergeMany(symbols);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  return absl::OkStatus();
}

const Bpe::Merge* Bpe::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(KeyOf(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::MergeFew(std::vector<int32_t>& symbols) const {
  static constexpr Merge kNone{std::numeric_limits<int32_t>::max(), 0};
  std::array<Merge, kFewSymbols> merges;  // of each symbol with the next one
  size_t size = symbols.size();
  const auto consider = [&](size_t left) {
    const Merge* merge =
        left + 1 < size ? Find(symbols[left], symbols[left + 1]) : nullptr;
    merges[left] = merge == nullptr ? kNone : *merge;
  };
  for (size_t i = 0; i < size; ++i) consider(i);
  while (size > 1) {
    const auto best = std::min_element(
        merges.begin(), merges.begin() + size,
        [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == kNone.rank) break;
    const size_t left = static_cast<size_t>(best - merges.begin());
    symbols[left] = best->result;
    std::copy(symbols.begin() + left + 2, symbols.begin() + size,
              symbols.begin() + left + 1);
    std::copy(merges.begin() + left + 2, merges.begin() + size,
              merges.begin() + left + 1);
    --size;
    consider(left);
    if (left > 0) consider(left - 1);
  }
  symbols.resize(size);
}

void Bpe::MergeMany(std::vector<int32_t>& symbols) const {
  struct Symbol {
    int32_t id;
    int64_t previous;
    int64_t next;  // -1: none
  };
  const auto size = static_cast<int64_t>(symbols.size());
  std::vector<Symbol> list;
  list.reserve(symbols.size());
  for (int64_t i = 0; i < size; ++i) {
    list.push_back({symbols[i], i - 1, i + 1 < size ? i + 1 : -1});
  }
  // (rank, left symbol, left id, right id). A candidate is stale when one of
  // the two symbols no longer has this id.
  using Candidate = std::tuple<int32_t, int64_t, int32_t, int32_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int64_t left) {
    if (left < 0 || list[left].next < 0) return;
    const int32_t a = list[left].id;
    const int32_t b = list[list[left].next].id;
    if (const Merge* merge = Find(a, b)) queue.emplace(merge->rank, left, a, b);
  };
  for (int64_t i = 0; i < size; ++i) consider(i);
  while (!queue.empty()) {
    const auto [rank, left, a, b] = queue.top();
    queue.pop();
    const int64_t right = list[left].next;
    if (list[left].id != a || right < 0 || list[right].id != b) continue;
    list[left].id = Find(a, b)->result;
    list[left].next = list[right].next;
    list[right].id = -1;
    if (list[left].next >= 0) list[list[left].next].previous = left;
    consider(left);
    consider(list[left].previous);
  }
  symbols.clear();
  for (int64_t at = 0; at >= 0; at = list[at].next) {
    symbols.push_back(list[at].id);
  }
}

}  // namespace kdn::model
