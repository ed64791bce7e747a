#include "cli/injector.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kdn::cli {
namespace {

// Most chunks that are stored at once. While one chunk waits for its replicas
// or a disk, another one is encoded.
constexpr uint64_t kStoresAtOnceMax = 4;
// Texts that are under way at once: enough short ones to fill a pass.
constexpr size_t kTextsAtOnce = 16;
// Of the caches of the texts under way, unless one text alone needs more.
constexpr uint64_t kCacheBytesMax = 1ull << 30;
// Two chunks in a pass are prefilled 5 % faster than one (bench/prefill.py),
// and a pass of two still ends within half a second for a small model.
constexpr int kPassTokens = 2 * kChunkTokens;
// One pass runs while another one waits, so that the worker never does.
constexpr size_t kPassesMax = 2;

int TokensOf(const ChainChunk& chunk) {
  return static_cast<int>(chunk.identity.tokens.size());
}

bool IsReady(const std::future<absl::Status>& done) {
  return done.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

Injector::Injector(const model::Llama& llama, const model::Tokenizer& tokenizer,
                   rpc::Client& client, rpc::Knowledge& knowledge,
                   const Options& options, const Hooks& hooks)
    : llama_(llama),
      tokenizer_(tokenizer),
      client_(client),
      knowledge_(knowledge),
      options_(options),
      hooks_(hooks),
      plan_(kPassTokens),
      worker_(llama) {}

absl::Status Injector::Run() {
  absl::Status status;
  while (status.ok() && !(all_taken_ && jobs_.empty() && !waiting_)) {
    status = Step();
  }
  // After an error, the stores that have begun end by themselves.
  for (const Store& store : stores_) {
    store.pending->Await().status().IgnoreError();
  }
  return status;
}

absl::Status Injector::Step() {
  if (absl::Status s = Admit(); !s.ok()) return s;
  PushPasses();
  while (!passes_.empty() && IsReady(passes_.front().done)) {
    if (absl::Status s = TakePass(); !s.ok()) return s;
    PushPasses();
  }
  BeginStores();
  FinishJobs();
  if (!stores_.empty()) return AwaitStore();
  return passes_.empty() ? absl::OkStatus() : TakePass();
}

absl::Status Injector::Named(const absl::Status& status,
                             const std::string& name) const {
  if (status.ok() || name.empty()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(name, ": ", status.message()));
}

absl::Status Injector::Admit() {
  while (jobs_.size() < kTextsAtOnce) {
    if (!waiting_) {
      if (all_taken_) return absl::OkStatus();
      absl::StatusOr<std::optional<Text>> text = hooks_.next();
      if (!text.ok()) return text.status();
      all_taken_ = !text->has_value();
      if (all_taken_) return absl::OkStatus();
      absl::StatusOr<Job> job = MakeJob(**text);
      if (!job.ok()) return Named(job.status(), (*text)->name);
      waiting_ = *std::move(job);
    }
    if (!HasRoomFor(*waiting_)) break;
    const absl::Status status = MakeCache(*waiting_);
    // The texts that are under way give their memory back.
    if (absl::IsResourceExhausted(status) && !jobs_.empty()) break;
    if (!status.ok()) return Named(status, waiting_->name);
    std::vector<int> chunk_tokens;
    for (size_t i = 0; i < waiting_->chunks_wanted; ++i) {
      chunk_tokens.push_back(TokensOf(waiting_->chain[i]));
    }
    plan_.Add(texts_, std::move(chunk_tokens));
    jobs_.emplace(texts_++, *std::exchange(waiting_, std::nullopt));
  }
  return absl::OkStatus();
}

absl::StatusOr<Injector::Job> Injector::MakeJob(const Text& text) {
  absl::StatusOr<std::vector<int32_t>> tokens =
      options_.form.Known(tokenizer_, text.text);
  if (!tokens.ok()) return tokens.status();
  if (tokens->empty()) {
    return absl::InvalidArgumentError("the text has no tokens");
  }
  Job job;
  job.name = text.name;
  job.tokens = *std::move(tokens);
  job.positions.resize(job.tokens.size());
  std::iota(job.positions.begin(), job.positions.end(), 0);
  job.chain = CutChain(knowledge_.fingerprint(), knowledge_.ns(), job.tokens);
  if (absl::Status s = Look(job); !s.ok()) return s;
  return job;
}

absl::Status Injector::Look(Job& job) {
  std::vector<ChunkRef> refs;
  for (const ChainChunk& chunk : job.chain) refs.push_back(chunk.ref);
  const auto held = knowledge_.Lookup(refs);
  if (!held.ok()) return held.status();
  job.injected.chunks = static_cast<int>(job.chain.size());
  job.injected.tokens = static_cast<int>(job.tokens.size());
  for (size_t i = 0; i < held->size(); ++i) {
    const LookupResult& each = (*held)[i];
    job.held.push_back(each.hit);
    if (!each.hit) job.chunks_wanted = i + 1;
    const bool wanted = (each.levels & options_.levels) == options_.levels;
    job.injected.chunks_otherwise += each.hit && !wanted ? 1 : 0;
  }
  return absl::OkStatus();
}

int Injector::CacheTokens(const Job& job) {
  if (job.chunks_wanted == 0) return 0;
  const ChainChunk& last = job.chain[job.chunks_wanted - 1];
  return last.begin + TokensOf(last);
}

uint64_t Injector::CacheBytes(const Job& job) const {
  return model::KvCache::BytesFor(llama_.spec(), CacheTokens(job));
}

bool Injector::HasRoomFor(const Job& job) const {
  uint64_t bytes = CacheBytes(job);
  for (const auto& [number, other] : jobs_) bytes += CacheBytes(other);
  return jobs_.empty() || bytes <= kCacheBytesMax;
}

absl::Status Injector::MakeCache(Job& job) {
  if (job.chunks_wanted == 0) return absl::OkStatus();
  const ModelSpec& spec = llama_.spec();
  const int tokens = CacheTokens(job);
  const size_t bytes = CacheBytes(job);
  if (bytes > client_.node().memory_bytes_max) {  // stored through the socket
    job.cache = std::make_unique<model::KvCache>(spec, tokens);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<rpc::Region>> region =
      client_.OpenMemory(bytes);
  if (!region.ok()) return region.status();
  job.region = *std::move(region);
  job.cache =
      std::make_unique<model::KvCache>(spec, tokens, job.region->data());
  return absl::OkStatus();
}

void Injector::PushPasses() {
  while (passes_.size() < kPassesMax && !plan_.empty()) {
    Pass pass{plan_.NextPass(), {}};
    std::vector<model::Sequence> sequences;
    for (const PassPart& part : pass.parts) {
      const Job& job = jobs_.at(part.text);
      const ChainChunk& last = job.chain[part.end - 1];
      const auto begin = static_cast<size_t>(job.chain[part.begin].begin);
      const size_t count =
          static_cast<size_t>(last.begin + TokensOf(last)) - begin;
      sequences.push_back(
          {.cache = job.cache.get(),
           .tokens = absl::MakeConstSpan(job.tokens).subspan(begin, count),
           .positions =
               absl::MakeConstSpan(job.positions).subspan(begin, count)});
    }
    pass.done = worker_.Push(std::move(sequences));
    passes_.push_back(std::move(pass));
  }
}

absl::Status Injector::TakePass() {
  const absl::Status status = passes_.front().done.get();
  const std::vector<PassPart> parts = std::move(passes_.front().parts);
  passes_.pop_front();
  for (const PassPart& part : parts) {
    Job& job = jobs_.at(part.text);
    if (!status.ok()) return Named(status, job.name);
    job.chunks_prefilled = part.end;
    const ChainChunk& last = job.chain[part.end - 1];
    if (hooks_.on_progress) {
      hooks_.on_progress(part.text, last.begin + TokensOf(last),
                         job.injected.tokens);
    }
  }
  return absl::OkStatus();
}

size_t Injector::StoresAtOnce() const {
  const rpc::NodeInfo& node = client_.node();
  const uint64_t bytes = ShapeOf(llama_.spec(), kChunkTokens).bytes();
  return std::clamp<uint64_t>(std::min<uint64_t>(node.stores_in_flight_max,
                                                 node.store_bytes_max / bytes),
                              1, kStoresAtOnceMax);
}

void Injector::BeginStores() {
  for (auto& [text, job] : jobs_) {
    for (; job.chunks_begun < job.chunks_prefilled; ++job.chunks_begun) {
      if (job.held[job.chunks_begun]) continue;
      if (stores_.size() == StoresAtOnce()) return;
      BeginStore(text, job, job.chunks_begun);
    }
  }
}

void Injector::BeginStore(int text, Job& job, size_t chunk) {
  const ChainChunk& each = job.chain[chunk];
  const auto begin = static_cast<size_t>(each.begin);
  const auto count = static_cast<size_t>(TokensOf(each));
  const auto positions = job.positions.begin() + each.begin;
  // The stores share one link, so each gets the time of all of them.
  stores_.push_back(Store{
      text,
      knowledge_.StoreAsync(
          rpc::StoreSpec{.identity = each.identity,
                         .positions = {positions, positions + count},
                         .levels = options_.levels,
                         .durability = options_.durability,
                         .depth = each.depth},
          job.cache->Tokens(static_cast<int>(begin), static_cast<int>(count)),
          rpc::kDefaultTimeout * static_cast<double>(StoresAtOnce()))});
  ++job.stores;
  ++job.injected.chunks_stored;
  job.injected.bytes += ShapeOf(llama_.spec(), TokensOf(each)).bytes();
}

absl::Status Injector::AwaitStore() {
  Store store = std::move(stores_.front());
  stores_.pop_front();
  Job& job = jobs_.at(store.text);
  --job.stores;
  const absl::StatusOr<StoreReceipt> receipt = store.pending->Await();
  if (receipt.ok()) job.injected.bytes_encoded += receipt->bytes;
  absl::Status status = Named(receipt.status(), job.name);
  FinishJobs();
  return status;
}

void Injector::FinishJobs() {
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const Job& each = job->second;
    if (each.chunks_begun < each.chunks_wanted || each.stores > 0) {
      ++job;
      continue;
    }
    if (hooks_.on_done) hooks_.on_done(job->first, each.injected);
    job = jobs_.erase(job);
  }
}

}  // namespace kdn::cli
