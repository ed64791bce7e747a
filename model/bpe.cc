#include "model/bpe.h"

#include <queue>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace kdn::model {
namespace {

// GPT-2's table: a printable byte stands for itself, and the other bytes have
// the characters from U+0100 on as stand-ins, in order.
struct StandIns {
  std::array<std::string, 256> of_byte;
  absl::flat_hash_map<std::string, uint8_t> byte_of;
};

std::string Utf8(int code) {  // REQUIRES: code < 0x800
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6),
          static_cast<char>(0x80 | (code & 0x3f))};
}

const StandIns& TheStandIns() {
  static const StandIns* const table = [] {
    auto* made = new StandIns;
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) ||
                             (byte >= 161 && byte <= 172) || byte >= 174;
      made->of_byte[byte] = Utf8(printable ? byte : next++);
      made->byte_of[made->of_byte[byte]] = static_cast<uint8_t>(byte);
    }
    return made;
  }();
  return *table;
}

}  // namespace

std::string Bpe::ToStandIns(std::string_view bytes) {
  std::string text;
  for (char c : bytes) text += TheStandIns().of_byte[static_cast<uint8_t>(c)];
  return text;
}

std::string Bpe::FromStandIns(std::string_view text) {
  std::string bytes;
  for (size_t at = 0; at < text.size();) {
    const size_t length = (text[at] & 0x80) != 0 ? 2 : 1;
    const std::string character(text.substr(at, length));
    const auto byte = TheStandIns().byte_of.find(character);
    if (byte == TheStandIns().byte_of.end()) {
      bytes += text[at++];
    } else {
      bytes += static_cast<char>(byte->second);
      at += character.size();
    }
  }
  return bytes;
}

absl::Status Bpe::Build(
    const absl::flat_hash_map<std::string, int32_t>& vocab,
    const std::vector<std::pair<std::string, std::string>>& merges,
    bool ignore_merges) {
  vocab_ = vocab;
  ignore_merges_ = ignore_merges;
  for (int byte = 0; byte < 256; ++byte) {
    const auto id = vocab.find(TheStandIns().of_byte[byte]);
    byte_ids_[byte] = id == vocab.end() ? -1 : id->second;
  }
  int32_t rank = 0;
  for (const auto& [left, right] : merges) {
    const auto left_id = vocab.find(left);
    const auto right_id = vocab.find(right);
    const auto result = vocab.find(left + right);
    if (left_id == vocab.end() || right_id == vocab.end() ||
        result == vocab.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: merge ", rank, " ('", left, "' '",
                       right, "') uses a piece that is not in the vocabulary"));
    }
    merges_.try_emplace({left_id->second, right_id->second},
                        Merge{rank, result->second});
    ++rank;
  }
  return absl::OkStatus();
}

void Bpe::Encode(std::string_view bytes, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const auto whole = vocab_.find(ToStandIns(bytes));
    if (whole != vocab_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  // A linked list of pieces and a queue of possible merges take n log n time
  // for a pre-token of n bytes.
  struct Piece {
    int32_t id;
    int previous;
    int next;
  };
  std::vector<Piece> pieces;
  for (char c : bytes) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    if (id < 0) continue;
    const int at = static_cast<int>(pieces.size());
    pieces.push_back({id, at - 1, at + 1});
  }
  if (pieces.empty()) return;
  pieces.back().next = -1;
  // (rank, left piece, left id, right id). A candidate is stale when one of the
  // two pieces no longer has this id.
  using Candidate = std::tuple<int32_t, int, int32_t, int32_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](int left) {
    if (left < 0 || pieces[left].next < 0) return;
    const int32_t a = pieces[left].id;
    const int32_t b = pieces[pieces[left].next].id;
    const auto merge = merges_.find({a, b});
    if (merge != merges_.end()) queue.emplace(merge->second.rank, left, a, b);
  };
  for (size_t i = 0; i < pieces.size(); ++i) consider(static_cast<int>(i));
  while (!queue.empty()) {
    const auto [rank, left, a, b] = queue.top();
    queue.pop();
    const int right = pieces[left].next;
    if (pieces[left].id != a || right < 0 || pieces[right].id != b) continue;
    pieces[left].id = merges_.find({a, b})->second.result;
    pieces[left].next = pieces[right].next;
    pieces[right].id = -1;
    if (pieces[left].next >= 0) pieces[pieces[left].next].previous = left;
    consider(left);
    consider(pieces[left].previous);
  }
  for (int at = 0; at >= 0; at = pieces[at].next) ids.push_back(pieces[at].id);
}

}  // namespace kdn::model
