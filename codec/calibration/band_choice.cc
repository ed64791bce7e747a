#include "codec/calibration/band_choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "codec/entropy/value_distribution.h"
#include "kv/check.h"

namespace kdn::codec {
namespace {

double DeviationOf(int klass) { return std::exp2(klass / 3.0); }

// A key for the tables of a deviation class. The low parts of wide components
// have tables of their own where high parts occur: their values do not fall
// off. They vary by more than two base cells then, which bounds the number of
// tables.
struct TableClass {
  int klass = 0;
  bool is_low = false;

  auto operator<=>(const TableClass&) const = default;
};
TableClass TableClassOf(int klass, bool is_low) {
  constexpr int kLowKlassMin = 13;
  return {klass, is_low && klass >= kLowKlassMin};
}

// Adds a small share of a Laplace distribution of the class's deviation,
// because values that are not in the sample occur too.
ValueCounts Smoothed(const ValueCounts& counts, int klass) {
  constexpr double kShare = 0.02;
  const double decay = std::exp(-std::sqrt(2.0) / DeviationOf(klass));
  const uint64_t total =
      std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  const double height = (1 - decay) / (1 + decay);
  ValueCounts smoothed;
  for (int value = -kValueMax; value <= kValueMax; ++value) {
    const double prior = height * std::pow(decay, std::abs(value));
    smoothed[value + kValueMax] =
        (counts[value + kValueMax] << 16) +
        static_cast<uint64_t>(std::llround(
            kShare * prior * static_cast<double>(total) * 65536.0));
  }
  return smoothed;
}

// The mode of a band at a level where its values have this deviation. `before`:
// a level before codes the band.
BandMode ModeFor(double deviation, bool before) {
  if (before) return BandMode::kQuad;
  if (deviation < 0.15) return BandMode::kAbsent;
  if (deviation < 0.45) return BandMode::kQuad;
  return deviation < 2.2 ? BandMode::kPair : BandMode::kSingle;
}

// Makes each table when a band first asks for it, and returns its index.
class Tables {
 public:
  explicit Tables(const std::map<TableClass, ValueCounts>& classes)
      : classes_(classes) {}

  uint8_t For(TableClass of, int step, BandMode mode, bool before) {
    const auto [at, is_new] = numbers_.try_emplace(
        std::tuple(of, step, mode, before), frequencies_.size());
    if (is_new) {
      const FormatCoder::Table table = SymbolTable(
          CodedCounts(Smoothed(classes_.at(of), of.klass), step, before), mode);
      std::array<uint16_t, FormatCoder::kSymbols> frequencies;
      for (size_t symbol = 0; symbol < FormatCoder::kSymbols; ++symbol) {
        frequencies[symbol] = static_cast<uint16_t>(
            table.frequency(static_cast<uint8_t>(symbol)));
      }
      frequencies_.push_back(frequencies);
    }
    KDN_CHECK(at->second < 256, "an index of a table is one byte");
    return static_cast<uint8_t>(at->second);
  }
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> Take() {
    return std::move(frequencies_);
  }

 private:
  const std::map<TableClass, ValueCounts>& classes_;
  std::map<std::tuple<TableClass, int, BandMode, bool>, size_t> numbers_;
  std::vector<std::array<uint16_t, FormatCoder::kSymbols>> frequencies_;
};

// Statistics of the values that one class of a stream's tokens has in the
// sample. Components count the high parts of wide components, too.
class ClassStatistics {
 public:
  // `values` are [token][column].
  ClassStatistics(const StoredTransform& transform,
                  const std::vector<int8_t>& values)
      : values_(values),
        low_(static_cast<int>(transform.synthesis.size() /
                              transform.mean.size())),
        columns_(low_ + transform.wide_bands * kBandComponents) {}

  int columns() const { return columns_; }
  // The class of components [begin, begin + kHalfBand).
  TableClass ClassOfHalf(int begin) const {
    double squares = 0;
    ForEach(begin, kHalfBand, [&](int8_t v) { squares += v * v; });
    const bool has_high = begin + low_ < columns_ && !AllZero(begin + low_);
    return TableClassOf(
        DeviationClass(squares / std::max<double>(1, Count(kHalfBand))),
        has_high);
  }
  // Whether a band has high parts of components.
  bool IsHigh(int begin) const { return begin >= low_; }
  // Whether components [begin, begin + kHalfBand) are zero.
  bool AllZero(int begin) const {
    bool zero = true;
    ForEach(begin, kHalfBand, [&](int8_t v) { zero &= v == 0; });
    return zero;
  }
  // Adds the values of these components to `counts`.
  void AddHalf(int begin, ValueCounts* counts) const {
    ForEach(begin, kHalfBand, [&](int8_t v) { ++(*counts)[v + kValueMax]; });
  }
  // BandStep::shrink of a band at a level.
  uint8_t ShrinkOf(int begin, int step) const {
    double excess = 0;
    double count = 0;
    ForEach(begin, kBandComponents, [&](int8_t v) {
      const int at = AtStep(v, step);
      if (at == 0) return;
      excess += CellOf(step) * std::abs(at) - std::abs(v);
      ++count;
    });
    const double mean = count == 0 ? 0 : excess / count;
    const double most = (CellOf(step) - 1) / 2;
    return static_cast<uint8_t>(std::lround(std::clamp(mean, 0.0, most)));
  }

 private:
  double Count(int width) const {
    return static_cast<double>(values_.size() / columns_) * width;
  }
  template <typename Visit>
  void ForEach(int begin, int width, Visit visit) const {
    for (size_t row = 0; row < values_.size(); row += columns_) {
      for (int c = begin; c < begin + width; ++c) visit(values_[row + c]);
    }
  }

  const std::vector<int8_t>& values_;
  int low_;  // components
  int columns_;
};

void ChooseBandsOf(const ClassStatistics& statistics, Tables* tables,
                   TokenClass* token_class) {
  for (size_t i = 0; i < token_class->bands.size(); ++i) {
    const int begin = static_cast<int>(i) * kBandComponents;
    const std::array<TableClass, 2> classes = {
        statistics.ClassOfHalf(begin),
        statistics.ClassOfHalf(begin + kHalfBand)};
    const double deviation =
        DeviationOf(std::max(classes[0].klass, classes[1].klass));
    const bool is_high = statistics.IsHigh(begin);
    const bool is_zero =
        statistics.AllZero(begin) && statistics.AllZero(begin + kHalfBand);
    bool before = false;
    for (int step = 0; step < kLadderSteps; ++step) {
      BandStep& band = token_class->bands[i][step];
      band.mode = ModeFor(deviation / CellOf(step), before);
      if (is_high) {
        // Base has all of a high part. To lose one would be a large error.
        if (step > 0 || is_zero) {
          band.mode = BandMode::kAbsent;
        } else if (band.mode == BandMode::kAbsent) {
          band.mode = BandMode::kQuad;
        }
      } else {
        band.shrink = statistics.ShrinkOf(begin, step);
      }
      if (band.mode == BandMode::kAbsent) continue;
      for (int half = 0; half < 2; ++half) {
        band.tables[half] = tables->For(classes[half], step, band.mode, before);
      }
      before = true;
    }
  }
}

}  // namespace

int DeviationClass(double mean_square) {
  return static_cast<int>(
      std::lround(1.5 * std::log2(std::max(mean_square, 1e-4))));
}

void ChooseBands(const std::vector<std::vector<std::vector<int8_t>>>& values,
                 StoredCalibration* stored) {
  std::map<TableClass, ValueCounts> classes;
  for (size_t i = 0; i < values.size(); ++i) {
    for (const auto& of_class : values[i]) {
      const ClassStatistics statistics(stored->streams[i], of_class);
      for (int c = 0; c < statistics.columns(); c += kHalfBand) {
        statistics.AddHalf(c, &classes[statistics.ClassOfHalf(c)]);
      }
    }
  }
  Tables tables(classes);
  for (size_t i = 0; i < values.size(); ++i) {
    StoredTransform& transform = stored->streams[i];
    for (size_t k = 0; k < transform.classes.size(); ++k) {
      ChooseBandsOf(ClassStatistics(transform, values[i][k]), &tables,
                    &transform.classes[k]);
    }
  }
  stored->tables = tables.Take();
}

}  // namespace kdn::codec
