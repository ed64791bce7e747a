#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kv/clock.h"
#include "kv/digest.h"
#include "model/file_digest.h"

namespace kdn::model {

struct Checkpoint::Mapping {
  Mapping(void* data_in, const struct stat& state_in)
      : data(data_in),
        size(static_cast<size_t>(state_in.st_size)),
        state(state_in) {}
  ~Mapping() { munmap(data, size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  absl::Span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data), size};
  }
  void* const data;
  const size_t size;
  const struct stat state;
};

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// The limit of the safetensors format.
constexpr uint64_t kHeaderBytesMax = 100'000'000;

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::optional<Dtype> DtypeOf(const std::string& name) {
  if (name == "BF16") return Dtype::kBf16;
  if (name == "F16") return Dtype::kFp16;
  if (name == "F32") return Dtype::kFp32;
  return std::nullopt;
}

// Parses one entry of the header, and checks it against the data behind the
// header.
absl::StatusOr<Tensor> ParseTensor(const std::string& path,
                                   const std::string& name, const Json& json,
                                   absl::Span<const std::byte> data) {
  const bool well_formed =
      json.is_object() && json.contains("dtype") && json["dtype"].is_string() &&
      json.contains("shape") && json["shape"].is_array() &&
      json.contains("data_offsets") && json["data_offsets"].is_array() &&
      json["data_offsets"].size() == 2 &&
      json["data_offsets"][0].is_number_unsigned() &&
      json["data_offsets"][1].is_number_unsigned();
  if (!well_formed) return Bad(path, absl::StrCat(name, ": malformed entry"));
  const std::optional<Dtype> dtype = DtypeOf(json["dtype"].get<std::string>());
  if (!dtype) {
    return Bad(path, absl::StrCat(name, ": dtype ", json["dtype"].dump(),
                                  ", expected BF16, F16 or F32"));
  }
  Tensor tensor;
  tensor.dtype = *dtype;
  uint64_t elements = 1;
  for (const Json& extent : json["shape"]) {
    if (!extent.is_number_unsigned() ||
        __builtin_mul_overflow(elements, extent.get<uint64_t>(), &elements)) {
      return Bad(path, absl::StrCat(name, ": invalid shape"));
    }
    tensor.shape.push_back(static_cast<int64_t>(extent.get<uint64_t>()));
  }
  const uint64_t begin = json["data_offsets"][0].get<uint64_t>();
  const uint64_t end = json["data_offsets"][1].get<uint64_t>();
  if (begin > end || end > data.size() || elements > data.size() ||
      end - begin != elements * SizeOf(*dtype)) {
    return Bad(path,
               absl::StrCat(name, ": data from ", begin, " to ", end, " of ",
                            data.size(), " does not fit the tensor's shape"));
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

absl::StatusOr<std::set<std::string>> ShardsOf(const fs::path& index) {
  std::ifstream file(index);
  std::ostringstream text;
  text << file.rdbuf();
  const Json json = Json::parse(text.str(), nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") ||
      !json["weight_map"].is_object()) {
    return Bad(index.string(), "expected an object with a weight_map");
  }
  std::set<std::string> shards;
  for (const auto& [name, shard] : json["weight_map"].items()) {
    // A name with a slash could point out of the directory.
    if (!shard.is_string() || fs::path(shard.get<std::string>()).filename() !=
                                  fs::path(shard.get<std::string>())) {
      return Bad(index.string(), absl::StrCat(name, ": expected a file name"));
    }
    shards.insert(shard.get<std::string>());
  }
  return shards;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  const fs::path root(directory);
  std::set<std::string> files = {"model.safetensors"};
  if (!fs::exists(root / "model.safetensors")) {
    const fs::path index = root / "model.safetensors.index.json";
    if (!fs::exists(index)) {
      return absl::NotFoundError(
          absl::StrCat(directory,
                       " has neither model.safetensors nor "
                       "model.safetensors.index.json: is it a Hugging Face "
                       "checkpoint directory?"));
    }
    absl::StatusOr<std::set<std::string>> shards = ShardsOf(index);
    if (!shards.ok()) return shards.status();
    files = *std::move(shards);
  }
  Checkpoint checkpoint;
  DigestBuilder digest("kdn-weights-1");
  for (const std::string& file : files) {
    if (absl::Status status = checkpoint.AddFile((root / file).string());
        !status.ok()) {
      return status;
    }
    const Mapping& mapped = *checkpoint.files_.back();
    const OpenFile opened{
        (root / file).string(), mapped.state,
        absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(mapped.data),
                            mapped.size)};
    digest.Add(absl::Span<const uint8_t>(
        FileDigest(opened, DigestCacheDirectory(), RealClock().WallNow())));
  }
  checkpoint.digest_ = HexOf(digest.Finish());
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || fstat(fd, &info) != 0) {
    const absl::Status status =
        absl::NotFoundError(absl::StrCat(path, ": ", strerror(errno)));
    if (fd >= 0) close(fd);
    return status;
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = size < 8 ? MAP_FAILED
                        : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (data == MAP_FAILED) {
    return Bad(path, "the file is too short, or is not a regular file");
  }
  files_.push_back(std::make_shared<Mapping>(data, info));
  const absl::Span<const std::byte> bytes = files_.back()->bytes();
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > size - 8 || header_bytes > kHeaderBytesMax) {
    return Bad(path, absl::StrCat("a header of ", header_bytes,
                                  " bytes in a file of ", size));
  }
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  const Json json = Json::parse(text, text + header_bytes, nullptr, false);
  if (!json.is_object()) return Bad(path, "the header is not a JSON object");
  const absl::Span<const std::byte> payload = bytes.subspan(8 + header_bytes);
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<Tensor> tensor = ParseTensor(path, name, entry, payload);
    if (!tensor.ok()) return tensor.status();
    if (!tensors_.emplace(name, *std::move(tensor)).second) {
      return Bad(path, absl::StrCat(name, " is also in another file"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Tensor> Checkpoint::Get(
    const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the checkpoint has no tensor ", name));
  }
  if (found->second.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, " has shape [", absl::StrJoin(found->second.shape, ", "),
        "], expected [", absl::StrJoin(shape, ", "), "]"));
  }
  return found->second;
}

absl::StatusOr<std::vector<float>> Checkpoint::GetFloats(
    const std::string& name, const std::vector<int64_t>& shape) const {
  absl::StatusOr<Tensor> tensor = Get(name, shape);
  if (!tensor.ok()) return tensor.status();
  std::vector<float> values(tensor->bytes.size() / SizeOf(tensor->dtype));
  LoadFloats(tensor->dtype, tensor->bytes.data(), values.size(), values.data());
  return values;
}

}  // namespace kdn::model
