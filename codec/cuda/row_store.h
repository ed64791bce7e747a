#ifndef KDN_CODEC_CUDA_ROW_STORE_H_
#define KDN_CODEC_CUDA_ROW_STORE_H_

#include "codec/cuda/device.h"
#include "codec/cuda/stream_job.h"

namespace kdn::codec::cuda {

// Converts floats to an engine's elements, with the same bits as kv/dtype.h,
// and stores them at their places.

KDN_DEVICE float FloatOfBf16(uint16_t bits) {
  return FloatOf(static_cast<uint32_t>(bits) << 16);
}
KDN_DEVICE uint32_t Bf16Of(float value) {
  const uint32_t bits = BitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x0040u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
KDN_DEVICE uint32_t Fp16Of(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  }
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {
    return sign | (BitsOf(Plus(FloatOf(magnitude), 0.5f)) - 0x3f000000u);
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | ((rounded - 0x38000000u) >> 13);
}

// Two elements of 16 bits in a word.
KDN_DEVICE uint32_t PairOf(ElementType type, float low, float high) {
  if (type == ElementType::kFp16) return Fp16Of(low) | Fp16Of(high) << 16;
#if defined(__CUDACC__)
  // A GPU's sums and products have one NaN only. Both ways convert it to
  // 0x7fff.
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return Bf16Of(low) | Bf16Of(high) << 16;
#endif
}

KDN_DEVICE int ElementBytes(ElementType type) {
  return type == ElementType::kFp32 ? 4 : 2;
}

KDN_DEVICE void StoreElement(ElementType type, float value, uint8_t* row,
                             int index) {
  const int bytes = ElementBytes(type);
  uint8_t* at = row + static_cast<int64_t>(index) * bytes;
  const uint32_t bits = type == ElementType::kFp32   ? BitsOf(value)
                        : type == ElementType::kFp16 ? Fp16Of(value)
                                                     : Bf16Of(value);
  // An engine's rows may have any alignment.
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0) {
    for (int i = 0; i < bytes; ++i) at[i] = bits >> (8 * i) & 0xffu;
  } else if (bytes == 4) {
    StoreAligned(at, bits);
  } else {
    StoreAligned(at, static_cast<uint16_t>(bits));
  }
}

// Eight elements at once. REQUIRES: `row` is aligned to 16 bytes, `index` a
// multiple of 8.
KDN_DEVICE void StoreEight(ElementType type, const float (&values)[8],
                           uint8_t* row, int index) {
  uint8_t* at = row + static_cast<int64_t>(index) * ElementBytes(type);
  if (type != ElementType::kFp32) {
    StoreAligned(at, Bytes16{{PairOf(type, values[0], values[1]),
                              PairOf(type, values[2], values[3]),
                              PairOf(type, values[4], values[5]),
                              PairOf(type, values[6], values[7])}});
    return;
  }
  for (int half = 0; half < 2; ++half) {
    StoreAligned(
        at + half * sizeof(Bytes16),
        Bytes16{{BitsOf(values[4 * half]), BitsOf(values[4 * half + 1]),
                 BitsOf(values[4 * half + 2]), BitsOf(values[4 * half + 3])}});
  }
}

// The row of the first wanted head for a token.
KDN_DEVICE uint8_t* RowAt(const BatchRef& batch, const RowPlaces& places,
                          int token) {
  if (places.block_table_at == kNowhere) {
    return places.base + token * places.token_stride;
  }
  const int at = places.first_token + token;
  const int64_t block =
      batch.blocks[places.block_table_at + at / places.block_tokens];
  return places.base + block * places.block_stride +
         at % places.block_tokens * places.token_stride;
}

// A wanted head of a stream.
struct WantedHead {
  int in_stream;   // its number
  int64_t offset;  // from the row of the first wanted head
  bool is_k;       // or the stream has no K
};
template <bool kJoint>
KDN_DEVICE int WantedHeads(const StreamJob& job) {
  return (job.head_end - job.head_begin) * (kJoint ? 2 : 1);
}
template <bool kJoint>
KDN_DEVICE WantedHead WantedHeadAt(const StreamJob& job, int index) {
  const int of_part = job.head_end - job.head_begin;
  const bool is_k = !kJoint || index < of_part;
  const int head = is_k ? index : index - of_part;
  return {job.head_begin + head + (is_k ? 0 : job.joint_heads),
          head * job.places.head_stride + (is_k ? 0 : job.v_offset), is_k};
}

// An element of a row after RoPE at the token's position. `head` has the row of
// one head before RoPE, `cos` the token's cosines, followed by its sines.
KDN_DEVICE float Turned(const StreamJob& job, const float* cos,
                        const float* head, int index) {
  if (index >= 2 * job.pairs) return head[index];
  const bool halves = job.pairing == Pairing::kHalves;
  const int pair = halves ? index % job.pairs : index / 2;
  const bool is_second = halves ? index >= job.pairs : index % 2 != 0;
  const float x = head[halves ? pair : 2 * pair];
  const float y = head[halves ? pair + job.pairs : 2 * pair + 1];
  const float* sin = cos + job.pairs;
  return is_second ? Plus(Times(y, cos[pair]), Times(x, sin[pair]))
                   : Minus(Times(x, cos[pair]), Times(y, sin[pair]));
}

// Stores the wanted heads of a token's row. `row` is in memory that all lanes
// see. Takes any shape and alignment; neighbouring lanes write neighbouring
// elements.
template <bool kJoint, typename Warp>
KDN_DEVICE void StoreRow(const Warp& warp, const BatchRef& batch,
                         const StreamJob& job, int token, const float* row) {
  uint8_t* first = RowAt(batch, job.places, token);
  const float* cos =
      batch.rope + job.rope_at + static_cast<int64_t>(token) * 2 * job.pairs;
  warp.Each([&](int lane) {
    for (int head = 0; head < WantedHeads<kJoint>(job); ++head) {
      const WantedHead wanted = WantedHeadAt<kJoint>(job, head);
      const float* in = row + wanted.in_stream * job.head_dim;
      for (int i = lane; i < job.head_dim; i += kWarpLanes) {
        StoreElement(job.type, wanted.is_k ? Turned(job, cos, in, i) : in[i],
                     first + wanted.offset, i);
      }
    }
  });
}

// The mean of a dimension, which is added to every row.
KDN_DEVICE float MeanOf(const BatchRef& batch, const StreamJob& job, int dim) {
  if (job.mean_at != kNowhere) {
    return FloatOfBf16(LoadU16(batch.bytes, job.mean_at + 2 * uint64_t(dim)));
  }
  const CalibrationRef& calibration = batch.calibration;
  return calibration.means[calibration.transforms[job.transform].mean_at + dim];
}

}  // namespace kdn::codec::cuda

#endif  // KDN_CODEC_CUDA_ROW_STORE_H_
