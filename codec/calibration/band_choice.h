#ifndef KDN_CODEC_CALIBRATION_BAND_CHOICE_H_
#define KDN_CODEC_CALIBRATION_BAND_CHOICE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "codec/calibration/calibration_format.h"

namespace kdn::codec {

inline constexpr int kHalfBand = kBandComponents / 2;

// The deviation class of components whose values have this mean square. Half
// bands of similar deviation share tables: a class has the half bands within a
// third of an octave.
int DeviationClass(double mean_square);

// Chooses the modes, shrinks and tables of all bands of the streams, and sets
// stored->tables. `values` has the sample's values of the finest quantiser:
// [stream][token class], each [token][column].
void ChooseBands(const std::vector<std::vector<std::vector<int8_t>>>& values,
                 StoredCalibration* stored);

}  // namespace kdn::codec

#endif  // KDN_CODEC_CALIBRATION_BAND_CHOICE_H_
