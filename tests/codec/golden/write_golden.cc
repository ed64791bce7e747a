// Writes golden files of one version of the object format into an empty folder.
// A person runs the program once for each version (README.md in this folder).
// No test and no CI run starts it.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "codec/calibration/calibration_format.h"
#include "kv/check.h"
#include "tests/codec/golden/golden_digests.h"
#include "tests/codec/golden/golden_files.h"
#include "tests/codec/test_calibration.h"
#include "tests/codec/test_chunk.h"

namespace kdn::codec {
namespace {

// The fingerprint in HeaderOf's headers.
ModelFingerprint TestModel() {
  return HeaderOf(ChunkOptions()).identity.fingerprint;
}

StoredCalibration StoredOf(const CalibrationParts& parts) {
  StoredCalibration stored;
  stored.model = TestModel();
  stored.geometry = parts.geometry;
  stored.joint_heads = parts.joint_heads;
  for (const RansTable& table : parts.tables) {
    auto& frequencies = stored.tables.emplace_back();
    for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
      frequencies[symbol] =
          static_cast<uint16_t>(table.frequency(static_cast<uint8_t>(symbol)));
    }
  }
  for (const StreamTransform& stream : parts.streams) {
    StoredTransform& transform = stored.streams.emplace_back();
    transform.mean = stream.mean;
    transform.scale = stream.scale;
    transform.head_scales = stream.head_scales;
    transform.wide_bands = stream.wide_bands;
    transform.classes = stream.classes;
    transform.predictor = stream.predictor;
    for (int d = 0; d < stream.dim(); ++d) {
      for (int c = 0; c < stream.components(); ++c) {
        transform.synthesis.push_back(stream.synthesis.At(d, c));
      }
    }
  }
  return stored;
}

void WriteFile(const std::string& path, absl::Span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  KDN_CHECK(file.good(), "the file can be written");
}

// Writes files into one folder.
class Writer {
 public:
  explicit Writer(std::string folder)
      : folder_(std::move(folder)), digests_(folder_ + "/digests") {}

  void Write(const GoldenFiles& files) {
    for (const GoldenCalibration& calibration : files.calibrations) {
      WriteCalibrationOf(calibration);
    }
    for (const GoldenChunk& chunk : files.chunks) WriteChunk(chunk);
    for (const GoldenChunk& chunk : files.unsupported) {
      WriteObject(chunk.name, ObjectOfZeros(chunk.header));
    }
    KDN_CHECK(digests_.good(), "the digests can be written");
  }

 private:
  void WriteCalibrationOf(const GoldenCalibration& golden) {
    const std::vector<std::byte> file =
        WriteCalibration(StoredOf(golden.parts));
    WriteFile(absl::StrCat(folder_, "/", golden.name, ".kdncal"), file);
    const auto calibration = ParseCalibration(file);
    KDN_CHECK(calibration.ok(), "the calibration can be used");
    by_name_[golden.name] = *calibration;
    set_.Add(*calibration);
  }

  void WriteChunk(const GoldenChunk& chunk) {
    const auto calibration =
        chunk.calibration.empty()
            ? Calibration::Uncalibrated(GeometryOf(chunk.header.shape))
            : by_name_.at(chunk.calibration);
    WriteObject(chunk.name,
                EncodeWith(calibration, chunk.header, KvOf(chunk).view()));
  }

  void WriteObject(const std::string& name,
                   absl::Span<const std::byte> object) {
    WriteFile(absl::StrCat(folder_, "/", name, ".kdnobj"), object);
    for (const std::string& line : DigestsOf(object, &set_, Isa::kScalar)) {
      digests_ << name << " " << line << "\n";
    }
  }

  const std::string folder_;
  std::ofstream digests_;
  CalibrationSet set_;
  std::map<std::string, std::shared_ptr<const Calibration>> by_name_;
};

}  // namespace
}  // namespace kdn::codec

int main(int argc, char** argv) {
  const std::string version = argc == 3 ? argv[1] : "";
  if ((version != "3" && version != "4") ||
      !std::filesystem::is_directory(argv[2]) ||
      !std::filesystem::is_empty(argv[2])) {
    std::fprintf(stderr, "usage: codec_write_golden 3|4 EMPTY-FOLDER\n");
    return 2;
  }
  kdn::codec::Writer(argv[2]).Write(version == "3"
                                        ? kdn::codec::FilesOfVersion3()
                                        : kdn::codec::FilesOfVersion4());
  return 0;
}
