#include "cli/knowledge_engine.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/clock.h"

namespace kdn::cli {
namespace {

std::vector<int32_t> PositionsOf(const ChainChunk& chunk) {
  std::vector<int32_t> positions(chunk.identity.tokens.size());
  std::iota(positions.begin(), positions.end(), chunk.begin);
  return positions;
}

}  // namespace

absl::StatusOr<Engine> Engine::Load(const std::string& model_directory) {
  absl::StatusOr<std::unique_ptr<model::Llama>> llama =
      model::Llama::Load(model_directory, {});
  if (!llama.ok()) return llama.status();
  absl::StatusOr<model::Tokenizer> tokenizer =
      model::Tokenizer::Load(model_directory);
  if (!tokenizer.ok()) return tokenizer.status();
  Engine engine;
  engine.llama_ = *std::move(llama);
  engine.tokenizer_ = *std::move(tokenizer);
  return engine;
}

KnowledgeEngine::KnowledgeEngine(const Engine* engine,
                                 std::unique_ptr<rpc::Client> client,
                                 std::unique_ptr<rpc::Knowledge> knowledge)
    : engine_(engine),
      client_(std::move(client)),
      knowledge_(std::move(knowledge)) {}

absl::StatusOr<std::unique_ptr<KnowledgeEngine>> KnowledgeEngine::Connect(
    const Engine* engine, const GatewayToDial& gateway, const Namespace& ns) {
  absl::StatusOr<std::unique_ptr<rpc::Client>> client = ConnectTo(gateway);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<rpc::Knowledge>> knowledge =
      (*client)->Open(ns, engine->llama().spec());
  if (!knowledge.ok()) return knowledge.status();
  return std::unique_ptr<KnowledgeEngine>(
      new KnowledgeEngine(engine, *std::move(client), *std::move(knowledge)));
}

absl::Status KnowledgeEngine::PrepareCache(int tokens) {
  if (cache_ != nullptr && cache_->capacity() >= tokens) {
    cache_->Truncate(0);
    return absl::OkStatus();
  }
  const ModelSpec& spec = engine_->llama().spec();
  cache_.reset();
  region_.reset();
  const size_t bytes = model::KvCache::BytesFor(spec, tokens);
  if (client_ != nullptr && bytes <= client_->node().memory_bytes_max) {
    absl::StatusOr<std::unique_ptr<rpc::Region>> region =
        client_->OpenMemory(bytes);
    if (!region.ok()) return region.status();
    region_ = *std::move(region);
    cache_ = std::make_unique<model::KvCache>(spec, tokens, region_->data());
  } else {  // over TCP, KV comes through the socket into this cache's memory
    cache_ = std::make_unique<model::KvCache>(spec, tokens);
  }
  return absl::OkStatus();
}

absl::Status KnowledgeEngine::InjectAll(Injector::Options options,
                                        const Injector::Hooks& hooks) {
  KDN_CHECK(client_ != nullptr, "only a cluster stores KV");
  options.form = form_;
  return Injector(engine_->llama(), engine_->tokenizer(), *client_, *knowledge_,
                  options, hooks)
      .Run();
}

absl::StatusOr<Injected> KnowledgeEngine::Inject(
    const std::string& text, const Injector::Options& options) {
  bool taken = false;
  Injected injected;
  const Injector::Hooks hooks{
      .next = [&]() -> absl::StatusOr<std::optional<Injector::Text>> {
        if (std::exchange(taken, true)) return std::nullopt;
        return Injector::Text{{}, text};
      },
      .on_progress = nullptr,
      .on_done = [&](int, const Injected& done) { injected = done; }};
  if (absl::Status s = InjectAll(options, hooks); !s.ok()) return s;
  return injected;
}

void KnowledgeEngine::CountHit(const ChunkOutcome& hit, Answer& answer) const {
  ++answer.chunks_hit;
  const std::string& source = hit.source.name();
  if (std::find(answer.sources.begin(), answer.sources.end(), source) ==
      answer.sources.end()) {
    answer.sources.push_back(source);
  }
  ChunkSources& sources = answer.chunk_sources;
  if (hit.source != client_->node().id) {
    ++sources.peers;
  } else if (hit.tier == Tier::kDisk) {
    ++sources.disk;
  } else {
    ++sources.memory;
  }
}

absl::Status KnowledgeEngine::Fetch(const std::vector<ChainChunk>& chain,
                                    LevelSet accept, Answer& answer) {
  KDN_CHECK(client_ != nullptr, "only a cluster delivers KV");
  rpc::RetrieveSpec spec;
  spec.accept = accept;
  for (const ChainChunk& chunk : chain) {
    std::vector<int32_t> positions = PositionsOf(chunk);
    const int count = static_cast<int>(positions.size());
    spec.chunks.push_back(rpc::RetrieveChunk{
        chunk.ref, std::move(positions), cache_->Tokens(chunk.begin, count)});
  }
  spec.leading_chunks = true;
  absl::StatusOr<std::vector<ChunkOutcome>> outcomes =
      knowledge_->Retrieve(spec);
  if (!outcomes.ok()) return outcomes.status();
  bool prefix = true;
  for (size_t i = 0; i < chain.size(); ++i) {
    const ChunkOutcome& outcome = (*outcomes)[i];
    answer.wire_bytes += outcome.wire_bytes;
    if (outcome.kind != OutcomeKind::kHit) {
      ++answer.chunks_missed;
      prefix = false;
      continue;
    }
    CountHit(outcome, answer);
    // The KV behind a missing chunk is not used: the cache holds a prefix.
    if (!prefix) continue;
    cache_->Append(PositionsOf(chain[i]));
    answer.kv_bytes +=
        ShapeOf(engine_->llama().spec(),
                static_cast<int>(chain[i].identity.tokens.size()))
            .bytes();
  }
  return absl::OkStatus();
}

absl::StatusOr<Answer> KnowledgeEngine::Ask(const std::string& knowledge,
                                            const std::string& question,
                                            Mode mode, int tokens_max,
                                            LevelSet accept) {
  const model::Llama& llama = engine_->llama();
  const absl::StatusOr<Prompt> prompt =
      form_.Make(engine_->tokenizer(),
                 mode == Mode::kWithout ? std::string() : knowledge, question);
  if (!prompt.ok()) return prompt.status();
  const auto all = absl::MakeConstSpan(prompt->tokens);
  const absl::Span<const int32_t> tokens = all.first(prompt->known);
  const absl::Span<const int32_t> asked = all.subspan(prompt->known);
  Answer answer;
  if (absl::Status status = PrepareCache(
          static_cast<int>(tokens.size() + asked.size()) + tokens_max);
      !status.ok()) {
    return status;
  }
  const absl::Time begin = SteadyNow();
  if (mode == Mode::kKdn && !tokens.empty()) {
    const std::vector<ChainChunk> chain =
        CutChain(knowledge_->fingerprint(), knowledge_->ns(), tokens);
    if (absl::Status status = Fetch(chain, accept, answer); !status.ok()) {
      return status;
    }
  }
  const absl::Span<const int32_t> rest =
      tokens.subspan(static_cast<size_t>(cache_->size()));
  if (!rest.empty()) {
    absl::StatusOr<std::vector<float>> prefilled =
        llama.PrefillInChunks(*cache_, rest, cache_->size());
    if (!prefilled.ok()) return prefilled.status();
  }
  absl::StatusOr<std::vector<float>> logits =
      llama.PrefillInChunks(*cache_, asked, cache_->size());
  if (!logits.ok()) return logits.status();
  answer.time_to_first_token = SteadyNow() - begin;
  absl::StatusOr<std::vector<int32_t>> decoded =
      llama.Decode(*cache_, *std::move(logits), tokens_max);
  if (!decoded.ok()) return decoded.status();
  answer.tokens = *std::move(decoded);
  absl::StatusOr<std::string> text = engine_->tokenizer().Decode(answer.tokens);
  if (!text.ok()) return text.status();
  answer.text = *std::move(text);
  return answer;
}

}  // namespace kdn::cli
