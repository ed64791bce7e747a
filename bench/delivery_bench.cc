#include "bench/delivery_bench.h"

#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "bench/raw_limits.h"
#include "cli/cluster_process.h"
#include "rpc/client.h"
#include "storage/disk_tier.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kRun = absl::Seconds(2);
constexpr int kLookupKeys = 64;

// The geometry of Llama-3.1-8B's KV: 32 MB a chunk of 256 tokens.
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

double Percentile(std::vector<double> values, double share) {
  const size_t at = static_cast<size_t>(share * (values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at),
                   values.end());
  return values[at];
}

double GbpsOf(uint64_t bytes, absl::Duration took) {
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(took) / 1e9;
}

// A chunk of its own tokens, standalone, at positions 0, 1, ...
rpc::StoreSpec SpecOf(const rpc::Knowledge& knowledge, int number) {
  rpc::StoreSpec spec{ChunkIdentity{knowledge.fingerprint(),
                                    knowledge.ns(),
                                    ChunkKey(),
                                    std::string(kRawVariant),
                                    {}},
                      PlacementKey(),
                      {}};
  spec.identity.tokens.assign(kChunkTokens, number);
  spec.positions.resize(kChunkTokens);
  std::iota(spec.positions.begin(), spec.positions.end(), 0);
  return spec;
}

ChunkRef RefOf(const rpc::StoreSpec& spec) {
  const ChunkKey key = KeyOf(spec.identity);
  return ChunkRef{key, PlacementOf(key)};
}

// Two nodes, an engine connected to the first, and memory shared with it.
class Bed {
 public:
  static absl::StatusOr<std::unique_ptr<Bed>> Start(
      const DeliveryOptions& options, const cli::LocalClusterOptions& cluster,
      size_t region_bytes);
  ~Bed();

  rpc::Client& client() { return *client_; }
  rpc::Knowledge& knowledge() { return *knowledge_; }
  rpc::Region& region() { return *region_; }
  MutableKvView ViewAt(size_t offset) const {
    const KvShape shape = ShapeOf(knowledge_->model(), kChunkTokens);
    return MutableKvView(region_->data() + offset, shape,
                         KvStrides::HeadMajor(shape));
  }
  size_t chunk_bytes() const {
    return ShapeOf(knowledge_->model(), kChunkTokens).bytes();
  }

 private:
  std::string directory_;
  std::unique_ptr<cli::ClusterProcess> cluster_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
};

absl::StatusOr<std::unique_ptr<Bed>> Bed::Start(
    const DeliveryOptions& options, const cli::LocalClusterOptions& cluster,
    size_t region_bytes) {
  auto bed = std::make_unique<Bed>();
  bed->directory_ = options.directory + "/kdn-bench-XXXXXX";
  if (mkdtemp(bed->directory_.data()) == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot make a directory in ", options.directory));
  }
  absl::StatusOr<std::string> file =
      cli::WriteLocalConfig(bed->directory_, cluster);
  if (!file.ok()) return file.status();
  absl::StatusOr<cli::ClusterConfig> config = cli::LoadClusterConfig(*file);
  if (!config.ok()) return config.status();
  bed->cluster_ = std::make_unique<cli::ClusterProcess>(
      options.program, *file, *config, bed->directory_ + "/logs");
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

Bed::~Bed() {
  region_.reset();
  knowledge_.reset();
  client_.reset();
  cluster_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

// Retrieves the chunks into the region again and again; returns delivered bytes
// per second and, in *wire_gbps, those that crossed between nodes.
absl::StatusOr<double> RetrieveRate(Bed& bed,
                                    const std::vector<rpc::StoreSpec>& chunks,
                                    double* wire_gbps) {
  rpc::RetrieveSpec spec;
  for (size_t i = 0; i < chunks.size(); ++i) {
    spec.chunks.push_back({RefOf(chunks[i]), chunks[i].positions,
                           bed.ViewAt(i * bed.chunk_bytes())});
  }
  uint64_t bytes = 0;
  uint64_t wire = 0;
  absl::Time begin = absl::Now();
  for (int round = 0; round == 0 || absl::Now() - begin < kRun; ++round) {
    const auto outcomes =
        bed.knowledge().Retrieve(spec, nullptr, absl::Seconds(60));
    if (!outcomes.ok()) return outcomes.status();
    for (const rpc::ChunkOutcome& outcome : *outcomes) {
      if (outcome.kind != rpc::OutcomeKind::kHit) {
        return absl::InternalError(
            absl::StrCat("a chunk was not delivered: ", outcome.why.message()));
      }
      wire += outcome.wire_bytes;
      bytes += bed.chunk_bytes();
    }
    if (round == 0) {  // pages are touched for the first time: not counted
      bytes = wire = 0;
      begin = absl::Now();
    }
  }
  const absl::Duration took = absl::Now() - begin;
  *wire_gbps = GbpsOf(wire, took);
  return GbpsOf(bytes, took);
}

absl::Status MeasureDelivery(const DeliveryOptions& options, Json& json) {
  constexpr int kChunks = 24;  // about 12 on each node: 400 MB
  cli::LocalClusterOptions cluster;
  cluster.nodes = 2;
  cluster.replicas = 1;
  cluster.memory_bytes = 3ull << 30;
  cluster.disk_bytes = 0;
  const size_t chunk_bytes = ShapeOf(BenchModel(), kChunkTokens).bytes();
  absl::StatusOr<std::unique_ptr<Bed>> bed =
      Bed::Start(options, cluster, kChunks * chunk_bytes);
  if (!bed.ok()) return bed.status();
  std::vector<rpc::StoreSpec> here;
  std::vector<rpc::StoreSpec> there;
  std::vector<ChunkRef> refs;
  const NodeId self = (*bed)->client().node().id;
  for (int i = 0; i < kChunks; ++i) {
    rpc::StoreSpec spec = SpecOf((*bed)->knowledge(), i);
    absl::StatusOr<rpc::StoreReceipt> receipt =
        (*bed)->knowledge().Store(spec, (*bed)->ViewAt(0), absl::Seconds(60));
    if (!receipt.ok()) return receipt.status();
    refs.push_back(RefOf(spec));
    (receipt->holders[0] == self ? here : there).push_back(std::move(spec));
  }
  double wire = 0;
  absl::StatusOr<double> shm = RetrieveRate(**bed, here, &wire);
  if (!shm.ok()) return shm.status();
  json["shm_gbps"] = *shm;
  json["shm_set_mb"] = here.size() * chunk_bytes / 1000000;
  json["memcpy_gbps"] = MemcpyGbps(here.size() * chunk_bytes, chunk_bytes);
  json["shm_over_memcpy"] = *shm / json["memcpy_gbps"].get<double>();
  absl::StatusOr<double> remote = RetrieveRate(**bed, there, &wire);
  if (!remote.ok()) return remote.status();
  json["remote_delivered_gbps"] = *remote;
  json["remote_wire_gbps"] = wire;
  absl::StatusOr<double> tcp = TcpGbps();
  if (!tcp.ok()) return tcp.status();
  json["tcp_gbps"] = *tcp;
  json["remote_over_tcp"] = wire / *tcp;

  std::vector<ChunkRef> keys;
  for (int i = 0; i < kLookupKeys; ++i) keys.push_back(refs[i % refs.size()]);
  std::vector<double> lookups;
  std::vector<double> pings;
  for (int i = 0; i < 2000; ++i) {
    const absl::Time begin = absl::Now();
    if (auto found = (*bed)->knowledge().Lookup(keys); !found.ok()) {
      return found.status();
    }
    const absl::Time middle = absl::Now();
    if (absl::Status status = (*bed)->client().Ping(); !status.ok()) {
      return status;
    }
    lookups.push_back(absl::ToDoubleMicroseconds(middle - begin));
    pings.push_back(absl::ToDoubleMicroseconds(absl::Now() - middle));
  }
  json["lookup_p50_us"] = Percentile(lookups, 0.5);
  json["lookup_p99_us"] = Percentile(lookups, 0.99);
  json["ping_p50_us"] = Percentile(pings, 0.5);
  json["ping_p99_us"] = Percentile(pings, 0.99);
  return absl::OkStatus();
}

// The disk tier alone, on objects of 2 MB, as a node's storage drives it.
absl::Status MeasureDisk(const DeliveryOptions& options, Json& json) {
  constexpr uint64_t kObjectBytes = 2u << 20;
  constexpr int kObjects = 512;
  constexpr int kInFlight = 16;
  const std::string directory = options.directory + "/kdn-bench-disk";
  std::filesystem::remove_all(directory);
  storage::DiskTier::Options disk;
  disk.directory = directory;
  disk.capacity_bytes = 4ull << 30;
  absl::StatusOr<std::unique_ptr<storage::DiskTier>> tier =
      storage::DiskTier::Open(disk);
  if (!tier.ok()) return tier.status();
  absl::StatusOr<std::shared_ptr<storage::Arena>> arena =
      storage::Arena::Create(2 * kInFlight * kObjectBytes);
  if (!arena.ok()) return arena.status();
  std::vector<storage::ObjectInfo> infos(kObjects);
  for (int i = 0; i < kObjects; ++i) {
    DigestBuilder name("bench");
    infos[i].key = ChunkKey(name.Add(static_cast<uint64_t>(i)).Finish());
    infos[i].shard = ShardId(static_cast<uint32_t>(i));
    infos[i].ns = "bench";
    infos[i].version = ObjectVersion(1);
    infos[i].bytes = kObjectBytes;
  }
  std::vector<std::shared_ptr<storage::ArenaBlock>> blocks;
  for (int i = 0; i < kInFlight; ++i) {
    blocks.push_back(*(*arena)->Allocate(kObjectBytes));
    std::fill(blocks.back()->bytes().begin(), blocks.back()->bytes().end(),
              static_cast<std::byte>(i));
  }
  absl::Status failed;
  absl::Mutex mutex;
  // kInFlight at a time; the next begins when any has ended.
  const auto sweep = [&](auto begin_one) {
    std::deque<int> idle(kInFlight);
    std::iota(idle.begin(), idle.end(), 0);
    absl::BlockingCounter left(kObjects);
    const absl::Time begin = absl::Now();
    for (int i = 0; i < kObjects; ++i) {
      int slot = 0;
      {
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(
            +[](std::deque<int>* list) { return !list->empty(); }, &idle));
        slot = idle.front();
        idle.pop_front();
      }
      begin_one(i, slot, [&, slot](absl::Status status) {
        {
          absl::MutexLock lock(&mutex);
          failed.Update(status);
          idle.push_back(slot);
        }
        left.DecrementCount();
      });
    }
    left.Wait();
    return GbpsOf(kObjects * kObjectBytes, absl::Now() - begin);
  };
  json["disk_write_gbps"] = sweep([&](int i, int slot, auto done) {
    (*tier)->Write(infos[i], blocks[slot], false, std::move(done));
  });
  std::shuffle(infos.begin(), infos.end(), std::mt19937(2));
  json["disk_read_gbps"] = sweep([&](int i, int slot, auto done) {
    (*tier)->Read(infos[i], blocks[slot], std::move(done));
  });
  json["disk_io_uring"] = (*tier)->counters().io_uring;
  json["disk_direct"] = (*tier)->counters().direct;
  tier->reset();
  std::filesystem::remove_all(directory);
  if (!failed.ok()) return failed;
  absl::StatusOr<DiskGbps> raw =
      RawDiskGbps(options.directory, kObjects * kObjectBytes, disk.block_bytes,
                  disk.queue_depth);
  if (!raw.ok()) return raw.status();
  json["raw_write_gbps"] = raw->write;
  json["raw_read_gbps"] = raw->read;
  json["disk_write_over_raw"] =
      json["disk_write_gbps"].get<double>() / raw->write;
  json["disk_read_over_raw"] = json["disk_read_gbps"].get<double>() / raw->read;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> LargestRss(rpc::Client& client) {
  const auto nodes = client.Status(absl::Seconds(10));
  if (!nodes.ok()) return nodes.status();
  uint64_t most = 0;
  for (const rpc::NodeStatus& node : *nodes) {
    most = std::max(most, node.rss_bytes);
  }
  return most;
}

// A corpus stored with R = 2 through memory tiers a tenth of its size.
absl::Status MeasureStore(const DeliveryOptions& options, Json& json) {
  constexpr int kWindow = 4;
  cli::LocalClusterOptions cluster;
  cluster.nodes = 2;
  cluster.replicas = 2;
  cluster.memory_bytes = 1ull << 30;
  cluster.disk_bytes =
      static_cast<uint64_t>(options.corpus_gb * 1.2e9) + (1ull << 30);
  const size_t chunk_bytes = ShapeOf(BenchModel(), kChunkTokens).bytes();
  absl::StatusOr<std::unique_ptr<Bed>> bed =
      Bed::Start(options, cluster, chunk_bytes);
  if (!bed.ok()) return bed.status();
  absl::StatusOr<uint64_t> before = LargestRss((*bed)->client());
  if (!before.ok()) return before.status();
  const int chunks =
      std::max(1, static_cast<int>(options.corpus_gb * 1e9 / chunk_bytes));
  uint64_t largest = *before;
  std::deque<std::unique_ptr<rpc::PendingStore>> window;
  const absl::Time begin = absl::Now();
  for (int i = 0; i < chunks || !window.empty(); ++i) {
    if (i < chunks) {
      window.push_back((*bed)->knowledge().StoreAsync(
          SpecOf((*bed)->knowledge(), i), (*bed)->ViewAt(0),
          absl::Seconds(120)));
    }
    if (static_cast<int>(window.size()) < kWindow && i < chunks) continue;
    absl::StatusOr<rpc::StoreReceipt> receipt = window.front()->Await();
    if (!receipt.ok()) return receipt.status();
    window.pop_front();
    if (i % 16 == 0) {
      absl::StatusOr<uint64_t> rss = LargestRss((*bed)->client());
      if (!rss.ok()) return rss.status();
      largest = std::max(largest, *rss);
    }
  }
  const absl::Duration took = absl::Now() - begin;
  const uint64_t bytes = static_cast<uint64_t>(chunks) * chunk_bytes;
  json["store_r2_gbps"] = GbpsOf(bytes, took);
  json["store_corpus_gb"] = static_cast<double>(bytes) / 1e9;
  json["store_in_flight_gb"] = static_cast<double>(kWindow * chunk_bytes) / 1e9;
  json["store_memory_budget_bytes"] = cluster.memory_bytes;
  json["store_rss_bytes"] = largest;
  json["store_rss_per_gb_in_flight"] =
      static_cast<double>(largest - *before) /
      static_cast<double>(kWindow * chunk_bytes);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDeliveryBench(const DeliveryOptions& options) {
  Json json = {{"benchmark", "delivery"}, {"chunk_tokens", kChunkTokens}};
  json["chunk_mb"] =
      static_cast<double>(ShapeOf(BenchModel(), kChunkTokens).bytes()) / 1e6;
  using Step = absl::Status (*)(const DeliveryOptions&, Json&);
  for (const auto& [name, step] :
       {std::pair<const char*, Step>{"delivery and lookup", MeasureDelivery},
        {"disk", MeasureDisk},
        {"store", MeasureStore}}) {
    std::fprintf(stderr, "measuring %s ...\n", name);
    if (absl::Status status = step(options, json); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(name, ": ", status.message()));
    }
  }
  std::printf("%s\n", json.dump(1).c_str());
  if (!options.json.empty())
    std::ofstream(options.json) << json.dump(1) << '\n';
  return absl::OkStatus();
}

}  // namespace kdn::bench
