#ifndef KDN_CODEC_ENTROPY_ENTROPY_CODER_H_
#define KDN_CODEC_ENTROPY_ENTROPY_CODER_H_

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/isa.h"

namespace kdn::codec {

// What the levels need of an entropy coder. It codes runs of 8-bit symbols with
// static tables that encoder and decoder know. A step is one symbol for each of
// kLanes lanes. Lane L of a run uses tables[(L >> half_bit) & 1], or tables[0]
// if half_bit is -1. A coder is one struct with all its types and constants, so
// that changing FormatCoder (format_coder.h) replaces the coder, without
// virtual calls. tests/codec/entropy/entropy_coder_test.cc checks the
// following:
//
//   Table    is made from kSymbols frequencies that add up to kTotal; Create
//            gives INVALID_ARGUMENT for others. Normalise makes frequencies
//            from counts that are not all zero.
//   Run      has a number of steps and pointers to its tables.
//   Encoder  AddRun keeps pointers to symbols and tables until Finish. Finish
//            writes the stream of all runs, at most BytesMax() bytes, and
//            returns its length in bytes.
//   Decoder  decodes the symbols of the same runs from untrusted bytes. A run
//            may be decoded in parts. Finish is DATA_LOSS unless the bytes are
//            exactly an encoder's stream of these runs.
//   Job      is the work of one of the two decoders that DecodePair runs at
//            once. The symbols of one step and the next lie `stride` bytes
//            apart.
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
  // Upper bound of the bytes of a stream of `size` steps.
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
