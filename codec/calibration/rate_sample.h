#ifndef KDN_CODEC_CALIBRATION_RATE_SAMPLE_H_
#define KDN_CODEC_CALIBRATION_RATE_SAMPLE_H_

#include <array>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "codec/calibration/calibration.h"

namespace kdn::codec {

// The bits that rows of the sample take at base, at any step.
class RateSample {
 public:
  // Adds rows of a stream, at the step of `transform`. `classes` are those of
  // the tokens.
  void Add(const StreamTransform& transform, absl::Span<const float> sample,
           absl::Span<const int> classes);
  // Bits per value when steps are `ratio` times as large: the entropy of the
  // values, pooled as tables pool them.
  double BitsAt(double ratio) const;

 private:
  static constexpr size_t kRowsMax = 192;
  static constexpr int kMost = 400;
  using Histogram = std::vector<double>;

  // The rows of one stream, in base cells: [row][column].
  struct Part {
    int columns = 0;
    std::vector<float> values;
    std::vector<int> classes;
  };

  static void AddHalf(const Part& part, int begin, float factor,
                      std::map<int, Histogram>& by_deviation);
  static double BitsOf(const Histogram& histogram);

  std::vector<Part> parts_;
};

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_RATE_SAMPLE_H_
