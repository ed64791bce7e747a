#include "bench/baselines.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/dtype.h"

namespace kdn::bench {
namespace {

constexpr int kKiviGroup = 32;

float RoundedToFp16(float value) { return Fp16ToFloat(FloatToFp16(value)); }

float AbsMaxOfToken(const KvTensor& kv, int layer, KvPart part, int token) {
  float largest = 0;
  for (int head = 0; head < kv.shape().kv_heads; ++head) {
    for (const float x : kv.Row(layer, part, head, token)) {
      largest = std::max(largest, std::fabs(x));
    }
  }
  return RoundedToFp16(largest);
}

// The symbols of a table for so many bins: 0 to 2 * middle.
size_t SymbolsOf(int bins) { return static_cast<size_t>(bins) - 1; }

// One layer's K or V, quantised to `bins` bins.
class CacheGenPlane {
 public:
  CacheGenPlane(const KvTensor& kv, int layer, KvPart part, int bins)
      : kv_(kv),
        layer_(layer),
        part_(part),
        middle_(static_cast<float>(bins / 2 - 1)),
        scale_(kv.shape().tokens) {
    for (int token = 0; token < kv.shape().tokens; ++token) {
      scale_[token] = AbsMaxOfToken(kv, layer, part, token);
    }
  }

  size_t scale_bytes() const { return 2 * scale_.size(); }
  // The symbols of one channel, one per token. Halves are rounded to the even
  // symbol and in this order of operations, so that the symbols are those of
  // CacheGen's public code.
  std::vector<uint8_t> Symbols(int head, int dim) const {
    std::vector<uint8_t> symbols(scale_.size());
    for (size_t token = 0; token < scale_.size(); ++token) {
      const float x =
          kv_.Row(layer_, part_, head, static_cast<int>(token))[dim];
      const float factor = scale_[token] > 0 ? middle_ / scale_[token] : 0.0f;
      const float q = std::nearbyint(x * factor + middle_);
      symbols[token] = static_cast<uint8_t>(std::clamp(q, 0.0f, 2 * middle_));
    }
    return symbols;
  }
  float ValueOf(uint8_t symbol, int token) const {
    return (static_cast<float>(symbol) - middle_) / middle_ * scale_[token];
  }

 private:
  const KvTensor& kv_;
  int layer_;
  KvPart part_;
  float middle_;
  std::vector<float> scale_;  // one per token
};

std::vector<uint32_t> CountsOf(absl::Span<const uint8_t> message,
                               size_t symbols) {
  std::vector<uint32_t> counts(symbols);
  for (const uint8_t symbol : message) ++counts[symbol];
  return counts;
}

// Codes and decodes a chunk. `tables` are the model's; null: the chunk's own,
// which count in the size.
Coded CacheGenWith(const KvTensor& kv, int level,
                   const CacheGenTables* tables) {
  const KvShape& shape = kv.shape();
  Coded coded{KvTensor(shape)};
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      const int bins = CacheGenBins(level, part, layer);
      const CacheGenPlane plane(kv, layer, part, bins);
      coded.bytes += plane.scale_bytes();
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int dim = 0; dim < shape.head_dim; ++dim) {
          const std::vector<uint8_t> message = plane.Symbols(head, dim);
          const FrequencyTable table =
              tables != nullptr
                  ? tables->Of(layer, part, head, dim)
                  : FrequencyTable(CountsOf(message, SymbolsOf(bins)));
          if (tables == nullptr) coded.bytes += 2 * SymbolsOf(bins);
          const std::vector<uint8_t> stream = ArithmeticEncode(table, message);
          coded.bytes += stream.size() + 2;
          const auto decoded = ArithmeticDecode(table, stream, message.size());
          for (int token = 0; token < shape.tokens; ++token) {
            coded.kv.Row(layer, part, head, token)[dim] =
                plane.ValueOf(decoded[token], token);
          }
        }
      }
    }
  }
  return coded;
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

int CacheGenBins(int level, KvPart part, int layer) {
  if (level == 3) return 32;
  if (part == KvPart::kK) {
    if (level == 2) return layer < 10 ? 32 : 16;
    return layer < 20 ? 16 : 12;
  }
  if (level == 2) return layer < 2 ? 32 : 16;
  return layer < 2 ? 16 : 12;
}

CacheGenTables::CacheGenTables(const KvShape& shape, int level)
    : shape_(shape), level_(level) {
  KDN_CHECK(level >= 1 && level <= 3, "CacheGen has the levels 1 to 3");
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      counts_.resize(
          counts_.size() + static_cast<size_t>(shape.kv_heads) * shape.head_dim,
          std::vector<uint32_t>(SymbolsOf(CacheGenBins(level, part, layer))));
    }
  }
}

size_t CacheGenTables::IndexOf(int layer, KvPart part, int head,
                               int dim) const {
  const size_t plane = static_cast<size_t>(layer) * 2 + (part == KvPart::kV);
  return (plane * shape_.kv_heads + head) * shape_.head_dim + dim;
}

void CacheGenTables::Count(const KvTensor& sample) {
  for (int layer = 0; layer < shape_.layers; ++layer) {
    for (const KvPart part : {KvPart::kK, KvPart::kV}) {
      const CacheGenPlane plane(sample, layer, part,
                                CacheGenBins(level_, part, layer));
      for (int head = 0; head < shape_.kv_heads; ++head) {
        for (int dim = 0; dim < shape_.head_dim; ++dim) {
          std::vector<uint32_t>& counts =
              counts_[IndexOf(layer, part, head, dim)];
          for (const uint8_t symbol : plane.Symbols(head, dim)) {
            ++counts[symbol];
          }
        }
      }
    }
  }
}

FrequencyTable CacheGenTables::Of(int layer, KvPart part, int head,
                                  int dim) const {
  return FrequencyTable(counts_[IndexOf(layer, part, head, dim)]);
}

absl::StatusOr<Coded> CacheGen(const KvTensor& kv, int level) {
  if (level < 1 || level > 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("CacheGen level ", level, ", expected 1 to 3"));
  }
  return CacheGenWith(kv, level, nullptr);
}

Coded CacheGen(const KvTensor& kv, const CacheGenTables& tables) {
  return CacheGenWith(kv, tables.level(), &tables);
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
