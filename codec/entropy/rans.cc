#include "codec/entropy/rans.h"

#include <algorithm>
#include <cstring>

#include "codec/entropy/rans_kernels.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

// The encoder's first state, and the smallest state.
constexpr uint32_t kLowest = 1u << 16;
constexpr int kWordBits = 16;
constexpr int kTotalBits = 12;
static_assert(kRansTotal == 1u << kTotalBits);
constexpr size_t kStatesBytes = sizeof(uint32_t) * kRansLanes;
// The most bytes of words that one step takes.
constexpr size_t kStepBytesMax = sizeof(uint16_t) * kRansLanes;

using rans::EntryTables;

EntryTables EntriesOf(const RansRun& run,
                      const uint32_t* (RansTable::*entries)() const) {
  KDN_CHECK(run.half_bit >= -1 && run.half_bit <= 4, "no such lane bit");
  KDN_CHECK(run.tables[0] != nullptr, "a run without a table");
  const bool two = run.half_bit >= 0 && run.tables[1] != nullptr;
  KDN_CHECK(two || run.half_bit < 0, "a run without its second table");
  EntryTables tables;
  tables.first = (run.tables[0]->*entries)();
  tables.second = two ? (run.tables[1]->*entries)() : tables.first;
  tables.second_lanes = rans::SecondLanes(run.half_bit);
  return tables;
}

size_t DecodeOneScalar(rans::DecodeStream* stream, size_t steps,
                       size_t stride) {
  const uint32_t* const table[2] = {stream->tables.first,
                                    stream->tables.second};
  const uint32_t second_lanes = stream->tables.second_lanes;
  const std::byte* at = stream->next;
  uint8_t* out = stream->out;
  size_t step = 0;
  for (; step < steps && at <= stream->last_start; ++step, out += stride) {
    for (int lane = 0; lane < kRansLanes; ++lane) {
      uint32_t x = stream->states[lane];
      const uint32_t entry =
          table[second_lanes >> lane & 1][x & (kRansTotal - 1)];
      x = ((entry >> 8 & (kRansTotal - 1)) + 1) * (x >> kTotalBits) +
          (entry >> 20);
      uint16_t word;
      std::memcpy(&word, at, sizeof(word));
      // Arithmetic instead of a branch that would often be mispredicted.
      const uint32_t takes = x < kLowest ? 1 : 0;
      x = x << (takes * kWordBits) | (word & (0u - takes));
      at += takes * sizeof(word);
      stream->states[lane] = x;
      out[lane] = static_cast<uint8_t>(entry);
    }
  }
  stream->next = at;
  stream->out = out;
  return step;
}

size_t DecodeOne(Isa isa, rans::DecodeStream* stream, size_t steps,
                 size_t stride) {
#if defined(__x86_64__)
  if (stream->tables.InReach()) {
    if (isa >= Isa::kAvx512) {
      return rans::DecodeOneAvx512(stream, steps, stride);
    }
    if (isa >= Isa::kAvx2) return rans::DecodeOneAvx2(stream, steps, stride);
  }
#else
  (void)isa;
#endif
  return DecodeOneScalar(stream, steps, stride);
}

// Null when there is no vector loop for this CPU and these tables.
rans::DecodeSteps* DecodePairOf(Isa isa, const rans::DecodeStream* streams) {
#if defined(__x86_64__)
  if (streams[0].tables.InReach() && streams[1].tables.InReach()) {
    if (isa >= Isa::kAvx512) return rans::DecodePairAvx512;
    if (isa >= Isa::kAvx2) return rans::DecodePairAvx2;
  }
#else
  (void)isa;
  (void)streams;
#endif
  return nullptr;
}

std::byte* EncodeStepsScalar(const RansRun& run, const uint8_t* symbols,
                             uint32_t* states, std::byte* end) {
  const uint32_t second_lanes = rans::SecondLanes(run.half_bit);
  for (size_t i = run.symbols(); i-- > 0;) {
    const int lane = static_cast<int>(i % kRansLanes);
    const RansTable& table = *run.tables[second_lanes >> lane & 1];
    const uint32_t entry = table.encode_entries()[symbols[i]];
    const uint32_t frequency = entry >> 16;
    KDN_CHECK(frequency != 0, "a symbol without frequency");
    uint32_t x = states[lane];
    // Arithmetic instead of a branch that would often be mispredicted. The room
    // for the states lies below the words, so the store below may also write a
    // word that does not count.
    const uint32_t gives = x >> (32 - kTotalBits) >= frequency ? 1 : 0;
    const auto word = static_cast<uint16_t>(x);
    std::memcpy(end - sizeof(word), &word, sizeof(word));
    end -= gives * sizeof(word);
    x >>= gives * kWordBits;
    const auto quotient = static_cast<uint32_t>(
        (x * table.reciprocals()[symbols[i]]) >> rans::kReciprocalBits);
    states[lane] = x + quotient * (kRansTotal - frequency) + (entry & 0xffff);
  }
  return end;
}

std::byte* EncodeSteps(Isa isa, const RansRun& run, const uint8_t* symbols,
                       uint32_t* states, std::byte* end) {
  const EntryTables tables = EntriesOf(run, &RansTable::encode_entries);
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512 && tables.InReach()) {
    return rans::EncodeStepsAvx512(tables, run.steps, symbols, states, end);
  }
#else
  (void)isa;
  (void)tables;
#endif
  return EncodeStepsScalar(run, symbols, states, end);
}

}  // namespace

RansEncoder::RansEncoder(Isa isa) : isa_(isa) {
  KDN_CHECK(Supports(isa), "instructions that this CPU lacks");
}

void RansEncoder::AddRun(const RansRun& run, const uint8_t* symbols) {
  EntriesOf(run, &RansTable::encode_entries);  // checks the run
  steps_ += run.steps;
  parts_.push_back({run, symbols});
}

size_t RansEncoder::Finish(absl::Span<std::byte> out) {
  KDN_CHECK(out.size() >= BytesMax(), "no room for the stream");
  alignas(64) std::array<uint32_t, kRansLanes> states;
  states.fill(kLowest);
  std::byte* const end = out.data() + BytesMax();
  std::byte* words = end;
  for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
    words = EncodeSteps(isa_, part->run, part->symbols, states.data(), words);
  }
  const size_t words_bytes = end - words;
  std::memmove(out.data() + kStatesBytes, words, words_bytes);
  std::memcpy(out.data(), states.data(), kStatesBytes);
  parts_.clear();
  steps_ = 0;
  return kStatesBytes + words_bytes;
}

RansDecoder::RansDecoder(absl::Span<const std::byte> stream, Isa isa)
    : isa_(isa) {
  KDN_CHECK(Supports(isa), "instructions that this CPU lacks");
  if (stream.size() < kStatesBytes || stream.size() % sizeof(uint16_t) != 0) {
    failed_ = true;
    return;
  }
  std::memcpy(states_.data(), stream.data(), kStatesBytes);
  for (uint32_t state : states_) failed_ |= state < kLowest;
  next_ = stream.data() + kStatesBytes;
  end_ = stream.data() + stream.size();
  if (stream.size() - kStatesBytes >= kStepBytesMax) {
    last_start_ = end_ - kStepBytesMax;
  } else {
    EnterTail();
  }
}

void RansDecoder::EnterTail() {
  const size_t left = end_ - next_;
  std::copy(next_, end_, tail_.begin());
  next_ = tail_.data();
  end_ = next_ + left;
  // A step that takes more words than there are reads zeros, and moves next_
  // past end_, which Continue notices.
  last_start_ = end_;
  in_tail_ = true;
}

rans::DecodeStream RansDecoder::StreamOf(const RansRun& run, uint8_t* out) {
  return {.tables = EntriesOf(run, &RansTable::decode_entries),
          .states = states_.data(),
          .next = next_,
          .last_start = last_start_,
          .out = out};
}

void RansDecoder::Continue(rans::DecodeStream* stream) {
  next_ = stream->next;
  if (next_ <= last_start_) return;
  if (in_tail_) {
    failed_ = true;
    return;
  }
  EnterTail();
  stream->next = next_;
  stream->last_start = last_start_;
}

void RansDecoder::DecodeRest(rans::DecodeStream* stream, size_t steps,
                             size_t stride) {
  while (steps > 0 && !failed_) {
    steps -= DecodeOne(isa_, stream, steps, stride);
    Continue(stream);
  }
  for (; steps > 0; --steps, stream->out += stride) {
    std::memset(stream->out, 0, kRansLanes);
  }
}

void RansDecoder::DecodeRun(const RansRun& run, uint8_t* out) {
  rans::DecodeStream stream = StreamOf(run, out);
  DecodeRest(&stream, run.steps, kRansLanes);
}

void RansDecoder::DecodePair(const RansJob& a, const RansJob& b,
                             size_t stride) {
  KDN_CHECK(a.run.steps == b.run.steps, "a pair of unequal runs");
  RansDecoder* const decoders[2] = {a.decoder, b.decoder};
  rans::DecodeStream streams[2] = {a.decoder->StreamOf(a.run, a.out),
                                   b.decoder->StreamOf(b.run, b.out)};
  size_t steps = a.run.steps;
  rans::DecodeSteps* const decode = DecodePairOf(a.decoder->isa_, streams);
  while (decode != nullptr && steps > 0 && !decoders[0]->failed_ &&
         !decoders[1]->failed_) {
    steps -= decode(streams, steps, stride);
    for (int i = 0; i < 2; ++i) decoders[i]->Continue(&streams[i]);
  }
  for (int i = 0; i < 2; ++i) {
    decoders[i]->DecodeRest(&streams[i], steps, stride);
  }
}

absl::Status RansDecoder::Finish() const {
  bool good = !failed_ && next_ == end_;
  for (uint32_t state : states_) good &= state == kLowest;
  if (good) return absl::OkStatus();
  return absl::DataLossError("an entropy-coded stream is damaged");
}

}  // namespace kdn::codec
