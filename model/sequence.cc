#include "model/sequence.h"

#include "absl/strings/str_cat.h"
#include "kv/kv_view.h"

namespace kdn::model {
namespace {

absl::Status CheckSlots(const Sequence& sequence) {
  const absl::Span<const int32_t> slots = sequence.slots;
  if (slots.size() != sequence.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(sequence.tokens.size(), " tokens with ", slots.size(),
                     " slots, expected equal numbers"));
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t least = i == 0 ? 0 : slots[i - 1] + 1;
    if (slots[i] < least || slots[i] >= sequence.cache->size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("slot ", i, " is ", slots[i], ", expected ", least,
                       " to ", sequence.cache->size() - 1));
    }
    const int32_t position = sequence.cache->positions()[slots[i]];
    if (position != sequence.positions[i]) {
      return absl::InvalidArgumentError(absl::StrCat(
          "slot ", slots[i], " is at position ", position, ", token ", i,
          " is at position ", sequence.positions[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(const Sequence& sequence, int vocab_size) {
  const absl::Span<const int32_t> tokens = sequence.tokens;
  const absl::Span<const int32_t> positions = sequence.positions;
  if (tokens.empty() || tokens.size() != positions.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokens.size(), " tokens with ", positions.size(),
                     " positions, expected equal numbers, at least one"));
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token ", i, " is ", tokens[i], ", the vocabulary has ", vocab_size));
    }
    if (positions[i] < 0) {
      return absl::OutOfRangeError(
          absl::StrCat("position ", i, " is ", positions[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSequence(const Sequence& sequence, const ModelSpec& spec,
                           int vocab_size) {
  if (absl::Status s = CheckTokens(sequence, vocab_size); !s.ok()) return s;
  const size_t tokens = sequence.tokens.size();
  const AttentionMask* mask = sequence.mask;
  if (mask != nullptr && static_cast<size_t>(mask->rows()) != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokens, " tokens with a mask of ", mask->rows(), " rows"));
  }
  const KvCache& cache = *sequence.cache;
  if (cache.view().shape() != ShapeOf(spec, cache.capacity())) {
    return absl::InvalidArgumentError("the cache is of another model");
  }
  if (!sequence.slots.empty()) return CheckSlots(sequence);
  const size_t needed = tokens + static_cast<size_t>(cache.size());
  if (needed > static_cast<size_t>(cache.capacity())) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the cache holds ", cache.capacity(), " tokens, ", needed,
                     " are needed"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSequences(absl::Span<const Sequence> sequences,
                            const ModelSpec& spec, int vocab_size) {
  if (sequences.empty()) {
    return absl::InvalidArgumentError("a pass without sequences");
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (absl::Status s = CheckSequence(sequences[i], spec, vocab_size);
        !s.ok()) {
      return s;
    }
    for (size_t j = 0; j < i; ++j) {
      if (sequences[i].cache == sequences[j].cache) {
        return absl::InvalidArgumentError(
            absl::StrCat("sequences ", j, " and ", i, " have one cache"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace kdn::model
