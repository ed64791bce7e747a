#include "bench/baselines.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "bench/arithmetic_coder.h"
#include "kv/dtype.h"

namespace kdn::bench {
namespace {

constexpr int kKiviGroup = 32;

float RoundedToFp16(float value) { return Fp16ToFloat(FloatToFp16(value)); }

// The bins of a layer in CacheGen's public configuration. K has three grades of
// depth, V has two.
int CacheGenBins(int level, KvPart part, int layer) {
  if (level == 3) return 32;
  if (part == KvPart::kK) {
    if (level == 2) return layer < 10 ? 32 : 16;
    return layer < 20 ? 16 : 12;
  }
  if (level == 2) return layer < 2 ? 32 : 16;
  return layer < 2 ? 16 : 12;
}

float AbsMaxOfToken(const KvTensor& kv, int layer, KvPart part, int token) {
  float largest = 0;
  for (int head = 0; head < kv.shape().kv_heads; ++head) {
    for (const float x : kv.Row(layer, part, head, token)) {
      largest = std::max(largest, std::fabs(x));
    }
  }
  return RoundedToFp16(largest);
}

// Quantises one layer's K or V, codes it per channel, and decodes it into
// `out`. Returns the coded size in bytes.
size_t CacheGenPlane(const KvTensor& kv, int layer, KvPart part, int bins,
                     KvTensor& out) {
  const KvShape& shape = kv.shape();
  const float middle = static_cast<float>(bins / 2 - 1);
  const size_t symbols = static_cast<size_t>(bins) - 1;  // 0 .. 2 * middle
  std::vector<float> scale(shape.tokens);
  for (int token = 0; token < shape.tokens; ++token) {
    scale[token] = AbsMaxOfToken(kv, layer, part, token);
  }
  size_t bytes = 2 * scale.size();
  std::vector<uint8_t> message(shape.tokens);
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      std::vector<uint32_t> counts(symbols);
      for (int token = 0; token < shape.tokens; ++token) {
        const float x = kv.Row(layer, part, head, token)[dim];
        const float unit = scale[token] > 0 ? x / scale[token] : 0.0f;
        const float q = std::round(std::clamp(unit, -1.0f, 1.0f) * middle);
        message[token] = static_cast<uint8_t>(q + middle);
        ++counts[message[token]];
      }
      const FrequencyTable table(counts);
      const std::vector<uint8_t> stream = ArithmeticEncode(table, message);
      bytes += stream.size() + 2 + 2 * symbols;
      const auto decoded = ArithmeticDecode(table, stream, message.size());
      for (int token = 0; token < shape.tokens; ++token) {
        out.Row(layer, part, head, token)[dim] =
            (static_cast<float>(decoded[token]) - middle) / middle *
            scale[token];
      }
    }
  }
  return bytes;
}

// Quantises `count` values, `stride` values apart, as one group, in place.
// Returns the size of the group in bytes, a multiple of 1/8.
double KiviGroup(float* values, int count, int stride, int bits) {
  float low = values[0];
  float high = values[0];
  for (int i = 1; i < count; ++i) {
    low = std::min(low, values[i * stride]);
    high = std::max(high, values[i * stride]);
  }
  const float steps = static_cast<float>((1 << bits) - 1);
  const float minimum = RoundedToFp16(low);
  const float scale = RoundedToFp16((high - low) / steps);
  for (int i = 0; i < count; ++i) {
    float& x = values[i * stride];
    const float q = scale > 0 ? std::round((x - minimum) / scale) : 0.0f;
    x = minimum + std::clamp(q, 0.0f, steps) * scale;
  }
  return count * bits / 8.0 + 4;
}

}  // namespace

absl::StatusOr<Coded> CacheGen(const KvTensor& kv, int level) {
  if (level < 1 || level > 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("CacheGen level ", level, ", expected 1 to 3"));
  }
  Coded coded{KvTensor(kv.shape())};
  for (int layer = 0; layer < kv.shape().layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      coded.bytes += CacheGenPlane(kv, layer, part,
                                   CacheGenBins(level, part, layer), coded.kv);
    }
  }
  return coded;
}

Coded Kivi(const KvTensor& kv, int bits) {
  const KvShape& shape = kv.shape();
  Coded coded{kv};
  double bytes = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int begin = 0; begin < shape.tokens; begin += kKiviGroup) {
        const int count = std::min(kKiviGroup, shape.tokens - begin);
        float* k = coded.kv.Row(layer, KvPart::kK, head, begin).data();
        for (int dim = 0; dim < shape.head_dim; ++dim) {
          bytes += KiviGroup(k + dim, count, shape.head_dim, bits);
        }
      }
      for (int token = 0; token < shape.tokens; ++token) {
        float* v = coded.kv.Row(layer, KvPart::kV, head, token).data();
        for (int begin = 0; begin < shape.head_dim; begin += kKiviGroup) {
          bytes += KiviGroup(
              v + begin, std::min(kKiviGroup, shape.head_dim - begin), 1, bits);
        }
      }
    }
  }
  coded.bytes = static_cast<size_t>(std::ceil(bytes));
  return coded;
}

}  // namespace kdn::bench
