#ifndef KDN_TESTS_CODEC_GOLDEN_GOLDEN_FILES_H_
#define KDN_TESTS_CODEC_GOLDEN_GOLDEN_FILES_H_

#include <string>
#include <vector>

#include "codec/format/object.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {

// What codec_write_golden writes for each version of the object format.

// An element of layer 0 that lies far from the others.
struct Outlier {
  KvPart part;
  int head;
  int token;
  int dim;
  float value;
};

struct GoldenChunk {
  std::string name;
  ObjectHeader header;
  // They give the streams raw tokens, patches and high parts.
  std::vector<Outlier> outliers = {};
  // The name of one of the calibrations; empty for the built-in calibration.
  std::string calibration = {};
};

struct GoldenCalibration {
  std::string name;
  CalibrationParts parts;
};

struct GoldenFiles {
  std::vector<GoldenCalibration> calibrations;
  std::vector<GoldenChunk> chunks;
  // Headers that no encoder supports. Their objects have streams of zeros.
  std::vector<GoldenChunk> unsupported = {};
};

// K and V have streams of their own.
GoldenFiles FilesOfVersion3();
// K and V share streams.
GoldenFiles FilesOfVersion4();

// Outliers in all elements of token 0 in head 0.
std::vector<Outlier> FarRow(const KvShape& shape);

// Random values, the same for the same shape, and the chunk's outliers.
KvBuffer KvOf(const GoldenChunk& chunk);

}  // namespace kdn::codec

#endif  // KDN_TESTS_CODEC_GOLDEN_GOLDEN_FILES_H_
