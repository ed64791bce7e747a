#ifndef KDN_CODEC_ENTROPY_ENTROPY_CODER_H_
#define KDN_CODEC_ENTROPY_ENTROPY_CODER_H_

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/kernels/isa.h"

namespace kdn::codec {

// What the levels ask of an entropy coder. It codes runs of 8-bit symbols with
// static tables that both sides know, a step being one symbol for each of
// kLanes lanes; lane L of a run takes its frequencies from tables[(L >>
// half_bit) & 1], from tables[0] if half_bit is -1. Types and constants come in
// a struct of their own, so that a coder is replaced where FormatCoder
// (format_coder.h) names it, and nothing is called through a pointer.
// tests/codec/entropy/entropy_coder_test.cc holds a coder to what follows.
//
//   Table    made of kSymbols frequencies, sum kTotal, INVALID_ARGUMENT for
//            others; Normalise makes such of counts that are not all zero.
//   Run      so many steps and whose tables; refers to them.
//   Encoder  AddRun refers to symbols and tables until Finish, which writes the
//            stream of all runs, BytesMax() bytes at most, and returns its
//            bytes.
//   Decoder  gives the symbols of the same runs back, of bytes that nobody
//            vouches for; Finish is DATA_LOSS unless they were exactly those of
//            an encoder. A run may be taken in parts.
//   Job      what DecodePair decodes of one decoder, side by side with another,
//            the symbols of one step and the next `stride` bytes apart.
template <typename C>
concept EntropyCoder = std::copyable<typename C::Table> &&
    std::copyable<typename C::Run> &&
    std::default_initializable<typename C::Encoder> &&
    std::constructible_from<typename C::Decoder, absl::Span<const std::byte>,
                            Isa> &&
    requires(const typename C::Table table, typename C::Run run,
             typename C::Encoder encoder, typename C::Decoder decoder,
             typename C::Job job, absl::Span<const uint32_t> counts,
             absl::Span<const uint16_t> frequencies, const uint8_t* symbols,
             uint8_t* out, absl::Span<std::byte> room, size_t size) {
  requires std::same_as<decltype(C::kLanes), const int>;
  requires std::same_as<decltype(C::kSymbols), const size_t>;
  requires std::same_as<decltype(C::kTotal), const uint32_t>;
  requires std::same_as<decltype(run.steps), size_t>;
  requires std::same_as<decltype(run.half_bit), int>;
  { run.tables[1] } -> std::same_as<const typename C::Table*&>;
  { run.symbols() } -> std::same_as<size_t>;
  { C::Normalise(counts) } -> std::same_as<std::array<uint16_t, C::kSymbols>>;
  {
    C::Table::Create(frequencies)
    } -> std::same_as<absl::StatusOr<typename C::Table>>;
  { table.frequency(uint8_t{0}) } -> std::same_as<uint32_t>;
  // Of so many steps.
  { C::BytesMax(size) } -> std::same_as<size_t>;
  encoder.AddRun(run, symbols);
  { encoder.BytesMax() } -> std::same_as<size_t>;
  { encoder.Finish(room) } -> std::same_as<size_t>;
  decoder.DecodeRun(run, out);
  job = typename C::Job{&decoder, run, out};
  C::Decoder::DecodePair(job, job, size);
  { decoder.Finish() } -> std::same_as<absl::Status>;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_ENTROPY_ENTROPY_CODER_H_
