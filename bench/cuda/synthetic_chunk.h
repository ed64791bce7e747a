#ifndef KDN_BENCH_CUDA_SYNTHETIC_CHUNK_H_
#define KDN_BENCH_CUDA_SYNTHETIC_CHUNK_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "codec/calibration/calibration.h"
#include "codec/format/object.h"
#include "kv/kv_view.h"

namespace kdn::bench {

// The shape of a chunk of Llama 3.1 8B: 32 layers, 8 KV heads of 128
// dimensions, 256 tokens, bf16.
KvShape LlamaShape();

struct SyntheticChunk {
  std::shared_ptr<const codec::Calibration> calibration;
  std::vector<std::byte> object;
  std::optional<codec::ObjectIndex> index;
  // The positions at which a reader wants the tokens.
  std::vector<int32_t> wanted;
};

// Makes a few different chunks with one calibration: SyntheticCalibration's, or
// the built-in one.
std::vector<SyntheticChunk> MakeChunks(int layers, bool calibrated);

// The chunk's rows at its `wanted` positions, token-major.
std::vector<std::byte> DecodeOnCpu(const SyntheticChunk& chunk, Level level);

}  // namespace kdn::bench

#endif  // KDN_BENCH_CUDA_SYNTHETIC_CHUNK_H_
