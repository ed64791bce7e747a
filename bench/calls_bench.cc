#include "bench/calls_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "rpc/client/client.h"

namespace kdn::bench {
namespace {

constexpr int kTokens = 128;

// The model of bench/peers.py: 4 MiB of KV for kTokens tokens.
ModelSpec CallsModel() {
  ModelSpec spec;
  spec.name = "peers";
  spec.num_layers = 16;
  spec.num_kv_heads = 8;
  spec.head_dim = 64;
  spec.dtype = Dtype::kBf16;
  spec.rope.theta = 500000.0;
  spec.rope.rotary_dim = 64;
  spec.weights_digest = "peers";
  return spec;
}

// An engine with memory for options.at_once chunks.
class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Start(
      const CallsOptions& options);

  // The seconds in which all chunks are stored, with at_once of them in flight.
  absl::StatusOr<double> Store();
  // The same for retrieving, in calls of at_once chunks. `compare`: compares
  // the chunks with the file.
  absl::StatusOr<double> Retrieve(bool compare);
  absl::Status Remove();

 private:
  size_t chunk_bytes() const { return shape_.bytes(); }
  const std::byte* SourceOf(int chunk) const {
    const size_t at = chunk * chunk_bytes() % kv_.size();
    return reinterpret_cast<const std::byte*>(kv_.data()) + at;
  }
  MutableKvView PlaceOf(int chunk) const {
    return {region_->data() + chunk % options_.at_once * chunk_bytes(), shape_,
            KvStrides::HeadMajor(shape_)};
  }
  rpc::StoreSpec SpecOf(int chunk) const;
  absl::Status Compare(const rpc::RetrieveSpec& spec, int first) const;

  CallsOptions options_;
  KvShape shape_;
  std::vector<char> kv_;
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
};

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(
    const CallsOptions& options) {
  auto engine = std::make_unique<Engine>();
  engine->options_ = options;
  engine->shape_ = ShapeOf(CallsModel(), kTokens);
  std::ifstream file(options.kv, std::ios::binary);
  engine->kv_.assign(std::istreambuf_iterator<char>(file), {});
  if (engine->kv_.empty() || engine->kv_.size() % engine->chunk_bytes() != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.kv, " has ", engine->kv_.size(),
        " bytes, expected one or more chunks of ", engine->chunk_bytes()));
  }
  auto client = rpc::Client::Connect(options.address);
  if (!client.ok()) return client.status();
  engine->client_ = *std::move(client);
  auto knowledge =
      engine->client_->Open(*Namespace::Parse("calls"), CallsModel());
  if (!knowledge.ok()) return knowledge.status();
  engine->knowledge_ = *std::move(knowledge);
  auto region =
      engine->client_->OpenMemory(options.at_once * engine->chunk_bytes());
  if (!region.ok()) return region.status();
  engine->region_ = *std::move(region);
  // The first use of a page takes time that belongs to no call.
  std::memset(engine->region_->data(), 1, engine->region_->size());
  return engine;
}

rpc::StoreSpec Engine::SpecOf(int chunk) const {
  rpc::StoreSpec spec{ChunkIdentity{knowledge_->fingerprint(),
                                    knowledge_->ns(),
                                    ChunkKey(),
                                    std::string(kRawVariant),
                                    {}},
                      {}};
  spec.identity.tokens.assign(kTokens, options_.first + chunk);
  spec.positions.resize(kTokens);
  std::iota(spec.positions.begin(), spec.positions.end(), 0);
  spec.durability = Durability::kCache;
  return spec;
}

absl::StatusOr<double> Engine::Store() {
  std::deque<std::unique_ptr<rpc::PendingStore>> pending;
  const absl::Time begin = SteadyNow();
  for (int i = 0; i < options_.chunks || !pending.empty(); ++i) {
    if (static_cast<int>(pending.size()) == options_.at_once ||
        i >= options_.chunks) {
      const absl::StatusOr<StoreReceipt> receipt = pending.front()->Await();
      if (!receipt.ok()) return receipt.status();
      pending.pop_front();
    }
    if (i >= options_.chunks) continue;
    // An engine copies its KV into the memory that it shares with the node.
    std::memcpy(PlaceOf(i).base(), SourceOf(i), chunk_bytes());
    pending.push_back(knowledge_->StoreAsync(SpecOf(i), PlaceOf(i)));
  }
  return absl::ToDoubleSeconds(SteadyNow() - begin);
}

absl::StatusOr<double> Engine::Retrieve(bool compare) {
  const absl::Time begin = SteadyNow();
  for (int first = 0; first < options_.chunks; first += options_.at_once) {
    const int end = std::min(first + options_.at_once, options_.chunks);
    rpc::RetrieveSpec spec;
    for (int i = first; i < end; ++i) {
      rpc::StoreSpec stored = SpecOf(i);
      spec.chunks.push_back({ChunkRef{KeyOf(stored.identity, stored.depth)},
                             std::move(stored.positions), PlaceOf(i)});
    }
    const auto outcomes = knowledge_->Retrieve(spec);
    if (!outcomes.ok()) return outcomes.status();
    for (const ChunkOutcome& outcome : *outcomes) {
      if (outcome.kind == OutcomeKind::kHit) continue;
      return absl::NotFoundError(
          absl::StrCat("a stored chunk is not a hit: ", outcome.why.message()));
    }
    if (!compare) continue;
    if (absl::Status same = Compare(spec, first); !same.ok()) return same;
  }
  return absl::ToDoubleSeconds(SteadyNow() - begin);
}

absl::Status Engine::Compare(const rpc::RetrieveSpec& spec, int first) const {
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    const int chunk = first + static_cast<int>(i);
    if (std::memcmp(spec.chunks[i].destination.base(), SourceOf(chunk),
                    chunk_bytes()) != 0) {
      return absl::DataLossError(
          absl::StrCat("chunk ", chunk, " came back with other bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status Engine::Remove() {
  std::vector<ChunkRef> refs;
  for (int i = 0; i < options_.chunks; ++i) {
    const rpc::StoreSpec spec = SpecOf(i);
    refs.push_back(ChunkRef{KeyOf(spec.identity, spec.depth)});
  }
  return knowledge_->Remove(refs).status();
}

}  // namespace

absl::Status RunCallsBench(const CallsOptions& options) {
  auto engine = Engine::Start(options);
  if (!engine.ok()) return engine.status();
  const absl::StatusOr<double> store = (*engine)->Store();
  if (!store.ok()) return store.status();
  const absl::StatusOr<double> retrieve = (*engine)->Retrieve(false);
  if (!retrieve.ok()) return retrieve.status();
  if (const auto compared = (*engine)->Retrieve(true); !compared.ok()) {
    return compared.status();
  }
  if (absl::Status removed = (*engine)->Remove(); !removed.ok()) return removed;
  const nlohmann::json json = {{"store_seconds", *store},
                               {"retrieve_seconds", *retrieve}};
  std::printf("%s\n", json.dump().c_str());
  return absl::OkStatus();
}

}  // namespace kdn::bench
