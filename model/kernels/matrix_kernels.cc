#include "model/kernels/matrix_kernels.h"

#include <algorithm>
#include <cstring>

#include "kv/check.h"
#include "kv/dtype.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kdn::model {
namespace {

namespace plain {
#define KDN_WIDTH
#define KDN_BYTES 16
#define KDN_COLUMNS 2
#define KDN_ROWS 4
#include "model/kernels/matrix_loops.inc"
#undef KDN_WIDTH
#undef KDN_BYTES
#undef KDN_COLUMNS
#undef KDN_ROWS
}  // namespace plain

#if defined(__x86_64__)

namespace avx2 {
#define KDN_WIDTH __attribute__((target("avx2,fma")))
#define KDN_BYTES 32
#define KDN_COLUMNS 2
#define KDN_ROWS 6
#include "model/kernels/matrix_loops.inc"
#undef KDN_WIDTH
#undef KDN_BYTES
#undef KDN_COLUMNS
#undef KDN_ROWS
}  // namespace avx2

namespace avx512 {
#define KDN_WIDTH __attribute__((target("avx512f,avx512bw,avx512vl,fma")))
#define KDN_BYTES 64
#define KDN_COLUMNS 4
#define KDN_ROWS 6
#include "model/kernels/matrix_loops.inc"
#undef KDN_WIDTH
#undef KDN_BYTES
#undef KDN_COLUMNS
#undef KDN_ROWS
}  // namespace avx512

// Products of bf16 in pairs. 24 of the 32 registers are sums.
#define KDN_BF16 \
  __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,fma")))

template <int kRows>
KDN_BF16 void MultiplyBf16Tile(const Product& job, int row) {
  constexpr int kVectors = kPanelColumns / 16;
  const uint16_t* a = static_cast<const uint16_t*>(job.a) + row * job.a_stride;
  const uint16_t* b = static_cast<const uint16_t*>(job.panel);
  __m512 sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  for (int k = 0; k < job.inner; k += 2, b += 2 * kPanelColumns) {
    __m512bh values[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      values[j] = (__m512bh)_mm512_load_si512(b + j * 32);
    }
    for (int i = 0; i < kRows; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, a + i * job.a_stride + k, sizeof(pair));
      const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
      for (int j = 0; j < kVectors; ++j) {
        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], values[j], factor);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* c = job.c + (row + i) * job.c_stride;
    for (int j = 0; j < kVectors; ++j) {
      float* at = c + j * 16;
      const __m512 sum = job.adds
                             ? _mm512_add_ps(_mm512_loadu_ps(at), sums[i][j])
                             : sums[i][j];
      _mm512_storeu_ps(at, sum);
    }
  }
}

KDN_BF16 void MultiplyBf16(const Product& job) {
  int row = 0;
  for (; row + 6 <= job.rows; row += 6) MultiplyBf16Tile<6>(job, row);
  switch (job.rows - row) {
    case 5:
      return MultiplyBf16Tile<5>(job, row);
    case 4:
      return MultiplyBf16Tile<4>(job, row);
    case 3:
      return MultiplyBf16Tile<3>(job, row);
    case 2:
      return MultiplyBf16Tile<2>(job, row);
    case 1:
      return MultiplyBf16Tile<1>(job, row);
    default:
      return;
  }
}

#endif

}  // namespace

void ScatterToPanel(const uint16_t* source, int inner, int column,
                    uint16_t* panel) {
  uint16_t* out = panel + 2 * column;
  int i = 0;
  for (; i + 2 <= inner; i += 2, out += 2 * kPanelColumns) {
    std::memcpy(out, source + i, 2 * sizeof(uint16_t));
  }
  if (i < inner) *out = source[i];
}

void ScatterToPanel(const uint16_t* const (&sources)[4], int inner, int column,
                    uint16_t* panel) {
  using Pairs [[gnu::vector_size(16)]] = uint32_t;
  uint16_t* out = panel + 2 * column;
  int i = 0;
  for (; i + 8 <= inner; i += 8, out += 8 * kPanelColumns) {
    Pairs rows[4];
    for (int j = 0; j < 4; ++j) {
      std::memcpy(&rows[j], sources[j] + i, sizeof(Pairs));
    }
    const Pairs a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
    const Pairs b = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
    const Pairs c = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
    const Pairs d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
    const Pairs columns[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5),
                              __builtin_shufflevector(a, b, 2, 3, 6, 7),
                              __builtin_shufflevector(c, d, 0, 1, 4, 5),
                              __builtin_shufflevector(c, d, 2, 3, 6, 7)};
    for (int j = 0; j < 4; ++j) {
      std::memcpy(out + 2 * j * kPanelColumns, &columns[j], sizeof(Pairs));
    }
  }
  for (int j = 0; j < 4; ++j) {
    ScatterToPanel(sources[j] + i, inner - i, column + j,
                   panel + static_cast<size_t>(i) * kPanelColumns);
  }
}

void ScatterToPanel(const float* source, int inner, int column, float* panel) {
  for (int i = 0; i < inner; ++i) {
    panel[static_cast<size_t>(i) * kPanelColumns + column] = source[i];
  }
}

bool MultipliesBf16() {
#if defined(__x86_64__)
  static const bool multiplies =
      BestIsa() >= Isa::kAvx512 && SupportsAvx512Bf16();
  return multiplies;
#else
  return false;
#endif
}

const MatrixKernels& MatrixKernelsOf(Isa isa) {
  KDN_CHECK(Supports(isa), "instructions that this CPU lacks");
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return avx512::kKernels;
  if (isa >= Isa::kAvx2) return avx2::kKernels;
#endif
  return plain::kKernels;
}

const MatrixKernels& ResolvedMatrixKernels() {
  static const MatrixKernels& kernels = MatrixKernelsOf(BestIsa());
  return kernels;
}

Operand Bf16Operand() {
  return MultipliesBf16() ? Operand::kBf16 : Operand::kRounded;
}

void ToOperand(Operand operand, const float* source, int count, void* out) {
  const MatrixKernels& kernels = ResolvedMatrixKernels();
  const size_t values = static_cast<size_t>(count);
  switch (operand) {
    case Operand::kBf16:
      kernels.to_bf16(source, values, static_cast<uint16_t*>(out));
      return;
    case Operand::kRounded:
      kernels.round_to_bf16(source, values, static_cast<float*>(out));
      return;
    case Operand::kFp32:
      std::copy_n(source, values, static_cast<float*>(out));
      return;
  }
}

void Multiply(Operand operand, const Product& product) {
#if defined(__x86_64__)
  if (operand == Operand::kBf16) {
    MultiplyBf16(product);
    return;
  }
#endif
  KDN_CHECK(operand != Operand::kBf16, "bf16 that this CPU cannot multiply");
  ResolvedMatrixKernels().multiply_fp32(product);
}

}  // namespace kdn::model
