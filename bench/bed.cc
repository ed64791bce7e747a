#include "bench/bed.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/median.h"

namespace kdn::bench {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr int kTurns = 5;

}  // namespace

ModelSpec BenchModel() {
  ModelSpec spec;
  spec.name = "bench-8b";
  spec.num_layers = 32;
  spec.num_kv_heads = 8;
  spec.head_dim = 128;
  spec.dtype = Dtype::kBf16;
  spec.rope.theta = 500000.0;
  spec.rope.rotary_dim = 128;
  spec.weights_digest = "bench";
  return spec;
}

size_t ChunkBytes() { return ShapeOf(BenchModel(), kChunkTokens).bytes(); }

rpc::StoreSpec SpecOf(const rpc::Knowledge& knowledge, int number) {
  rpc::StoreSpec spec{ChunkIdentity{knowledge.fingerprint(),
                                    knowledge.ns(),
                                    ChunkKey(),
                                    std::string(kRawVariant),
                                    {}},
                      {}};
  spec.identity.tokens.assign(kChunkTokens, number);
  spec.positions.resize(kChunkTokens);
  std::iota(spec.positions.begin(), spec.positions.end(), 0);
  return spec;
}

ChunkRef RefOf(const rpc::StoreSpec& spec) {
  const ChunkKey key = KeyOf(spec.identity, spec.depth);
  return ChunkRef{key};
}

double GbpsOf(uint64_t bytes, absl::Duration took) {
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(took) / 1e9;
}

absl::StatusOr<Rates> InTurns(absl::FunctionRef<absl::StatusOr<double>()> ours,
                              absl::FunctionRef<absl::StatusOr<double>()> raw) {
  std::vector<double> of_ours;
  std::vector<double> of_raw;
  std::vector<double> ratios;
  for (int turn = 0; turn < kTurns; ++turn) {
    const absl::StatusOr<double> one = ours();
    if (!one.ok()) return one.status();
    const absl::StatusOr<double> other = raw();
    if (!other.ok()) return other.status();
    of_ours.push_back(*one);
    of_raw.push_back(*other);
    ratios.push_back(*one / *other);
  }
  return Rates{MedianOf(std::move(of_ours)), MedianOf(std::move(of_raw)),
               MedianOf(std::move(ratios))};
}

absl::StatusOr<std::unique_ptr<Bed>> Bed::Start(
    const DeliveryOptions& options, const cli::LocalClusterOptions& cluster,
    size_t region_bytes) {
  auto bed = std::make_unique<Bed>();
  absl::StatusOr<cli::TempDirectory> directory =
      cli::TempDirectory::Create(options.directory, "kdn-bench-");
  if (!directory.ok()) return directory.status();
  bed->directory_ = *std::move(directory);
  absl::StatusOr<std::string> file =
      cli::WriteLocalConfig(bed->directory_.path(), cluster);
  if (!file.ok()) return file.status();
  absl::StatusOr<cli::ClusterConfig> config = cli::LoadClusterConfig(*file);
  if (!config.ok()) return config.status();
  bed->cluster_ = std::make_unique<cli::ClusterProcess>(
      options.program, *file, *config, bed->directory_.path() + "/logs");
  for (const absl::Status& status :
       {bed->cluster_->StartAll(),
        bed->cluster_->WaitAllReady(kStartTimeout)}) {
    if (!status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<rpc::Client>> client =
      rpc::Client::Connect(bed->cluster_->AddressOf(0));
  if (!client.ok()) return client.status();
  bed->client_ = *std::move(client);
  absl::StatusOr<std::unique_ptr<rpc::Knowledge>> knowledge =
      bed->client_->Open(*Namespace::Parse("bench"), BenchModel());
  if (!knowledge.ok()) return knowledge.status();
  bed->knowledge_ = *std::move(knowledge);
  absl::StatusOr<std::unique_ptr<rpc::Region>> region =
      bed->client_->OpenMemory(region_bytes);
  if (!region.ok()) return region.status();
  bed->region_ = *std::move(region);
  std::mt19937_64 random(1);
  for (size_t at = 0; at + 8 <= region_bytes; at += 8) {
    const uint64_t bits = random();
    std::memcpy(bed->region_->data() + at, &bits, sizeof(bits));
  }
  return bed;
}

MutableKvView Bed::ViewAt(size_t offset) const {
  const KvShape shape = ShapeOf(knowledge_->model(), kChunkTokens);
  return MutableKvView(region_->data() + offset, shape,
                       KvStrides::HeadMajor(shape));
}

}  // namespace kdn::bench
