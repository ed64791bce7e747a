#include "codec/kernels/bf16_rows.h"

#include "kv/check.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns of undefined registers in its own AVX-512 header (bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace kdn::codec {

#if defined(__x86_64__)

namespace {

#define KDN_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

constexpr int kLanes = 16;

KDN_AVX512 inline __m512 Load(const Bf16RowJob& job, int at) {
  const __m512 sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(job.sums + at));
  // Product and sum are rounded separately: a fused multiply-add would give
  // other bits.
  return _mm512_add_ps(_mm512_mul_ps(sums, _mm512_set1_ps(job.scale)),
                       _mm512_loadu_ps(job.mean + at));
}

// Rounds to nearest, ties to even. A NaN stays a NaN: NaNs from this arithmetic
// are quiet and have a lower half of zeros, which rounding does not change.
KDN_AVX512 inline __m256i ToBf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

// Stores 32 elements. `streams`: past the caches, which needs an address that
// is a multiple of 64.
KDN_AVX512 inline void Store(__m512 first, __m512 second, bool streams,
                             std::byte* out) {
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(ToBf16(first)),
                                          ToBf16(second), 1);
  if (streams) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out), both);
  } else {
    _mm512_storeu_si512(out, both);
  }
}

struct Turned {
  __m512 low;
  __m512 high;
};
KDN_AVX512 inline Turned Turn(const Bf16RowJob& job, int at) {
  const __m512 low = Load(job, at);
  const __m512 high = Load(job, at + job.pairs);
  const __m512 cos = _mm512_loadu_ps(job.cos + at);
  const __m512 sin = _mm512_loadu_ps(job.sin + at);
  return {_mm512_sub_ps(_mm512_mul_ps(low, cos), _mm512_mul_ps(high, sin)),
          _mm512_add_ps(_mm512_mul_ps(high, cos), _mm512_mul_ps(low, sin))};
}

KDN_AVX512 void WriteAvx512(const Bf16RowJob& job, std::byte* out) {
  constexpr int kStep = 2 * kLanes;
  const bool streams =
      job.streams && reinterpret_cast<uintptr_t>(out) % 64 == 0;
  const int pairs = job.cos == nullptr ? 0 : job.pairs;
  for (int at = 0; at < pairs; at += kStep) {
    const Turned first = Turn(job, at);
    const Turned second = Turn(job, at + kLanes);
    Store(first.low, second.low, streams, out + 2 * at);
    Store(first.high, second.high, streams, out + 2 * (at + pairs));
  }
  for (int at = 2 * pairs; at < job.head_dim; at += kStep) {
    Store(Load(job, at), Load(job, at + kLanes), streams, out + 2 * at);
  }
}

#undef KDN_AVX512

// The same with AVX2. A cache line of 32 elements is in four registers until
// two stores in a row fill it.
#define KDN_AVX2 __attribute__((target("avx2")))

constexpr int kNarrowLanes = 8;
constexpr int kLineRegisters = 4;

struct Line {
  __m256 x[kLineRegisters];
};

KDN_AVX2 inline __m256 LoadNarrow(const Bf16RowJob& job, int at) {
  const __m256 sums = _mm256_cvtepi32_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(job.sums + at)));
  return _mm256_add_ps(_mm256_mul_ps(sums, _mm256_set1_ps(job.scale)),
                       _mm256_loadu_ps(job.mean + at));
}

// The bits of a bf16, in lanes of 32 bits.
KDN_AVX2 inline __m256i RoundNarrow(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_srli_epi32(rounded, 16);
}

KDN_AVX2 inline void StoreLine(const Line& line, bool streams, std::byte* out) {
#pragma GCC unroll 2
  for (int i = 0; i < kLineRegisters; i += 2) {
    // The pack instruction works on halves of 128 bits; the permutation
    // restores the order.
    const __m256i both = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(RoundNarrow(line.x[i]), RoundNarrow(line.x[i + 1])),
        0b11011000);
    auto* to = reinterpret_cast<__m256i*>(out) + i / 2;
    if (streams) {
      _mm256_stream_si256(to, both);
    } else {
      _mm256_storeu_si256(to, both);
    }
  }
}

KDN_AVX2 inline void WriteTurnedLines(const Bf16RowJob& job, int at,
                                      bool streams, std::byte* out) {
  Line low;
  Line high;
#pragma GCC unroll 4
  for (int i = 0; i < kLineRegisters; ++i) {
    const int from = at + i * kNarrowLanes;
    const __m256 a = LoadNarrow(job, from);
    const __m256 b = LoadNarrow(job, from + job.pairs);
    const __m256 cos = _mm256_loadu_ps(job.cos + from);
    const __m256 sin = _mm256_loadu_ps(job.sin + from);
    low.x[i] = _mm256_sub_ps(_mm256_mul_ps(a, cos), _mm256_mul_ps(b, sin));
    high.x[i] = _mm256_add_ps(_mm256_mul_ps(b, cos), _mm256_mul_ps(a, sin));
  }
  StoreLine(low, streams, out + 2 * at);
  StoreLine(high, streams, out + 2 * (at + job.pairs));
}

KDN_AVX2 void WriteAvx2(const Bf16RowJob& job, std::byte* out) {
  constexpr int kStep = kLineRegisters * kNarrowLanes;
  const bool streams =
      job.streams && reinterpret_cast<uintptr_t>(out) % 64 == 0;
  const int pairs = job.cos == nullptr ? 0 : job.pairs;
  for (int at = 0; at < pairs; at += kStep) {
    WriteTurnedLines(job, at, streams, out);
  }
  for (int at = 2 * pairs; at < job.head_dim; at += kStep) {
    Line line;
#pragma GCC unroll 4
    for (int i = 0; i < kLineRegisters; ++i) {
      line.x[i] = LoadNarrow(job, at + i * kNarrowLanes);
    }
    StoreLine(line, streams, out + 2 * at);
  }
}

#undef KDN_AVX2

}  // namespace

bool WritesBf16Rows(int head_dim, int pairs, Isa isa) {
  return isa >= Isa::kAvx2 && head_dim % 32 == 0 && pairs % 32 == 0;
}

void WriteBf16Row(const Bf16RowJob& job, Isa isa, std::byte* out) {
  KDN_DCHECK(2 * job.pairs <= job.head_dim, "RoPE past the head");
  if (isa >= Isa::kAvx512) {
    WriteAvx512(job, out);
  } else {
    WriteAvx2(job, out);
  }
}

#else

bool WritesBf16Rows(int, int, Isa) { return false; }
void WriteBf16Row(const Bf16RowJob&, Isa, std::byte*) {
  KDN_CHECK(false, "WritesBf16Rows is false on this CPU");
}

#endif

}  // namespace kdn::codec
