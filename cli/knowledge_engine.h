#ifndef KDN_CLI_KNOWLEDGE_ENGINE_H_
#define KDN_CLI_KNOWLEDGE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kv/chunk_key.h"
#include "model/llama.h"
#include "model/tokenizer.h"
#include "rpc/client/client.h"

namespace kdn::cli {

// A small engine: the model that prefills and answers, on this process' CPU.
class Engine {
 public:
  static absl::StatusOr<Engine> Load(const std::string& model_directory);

  const model::Llama& llama() const { return *llama_; }
  const model::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  std::unique_ptr<model::Llama> llama_;
  std::optional<model::Tokenizer> tokenizer_;
};

// How knowledge reaches the model.
enum class Mode { kWithout, kPrefill, kKdn };

struct Injected {
  int chunks = 0;
  int chunks_stored = 0;     // the others were there already,
  int chunks_otherwise = 0;  // these without a level asked for
  int tokens = 0;
  uint64_t bytes = 0;  // of KV handed over
};

struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  absl::Duration time_to_first_token;
  int chunks_hit = 0;
  int chunks_missed = 0;             // misses and failures: prefilled instead
  uint64_t kv_bytes = 0;             // delivered by the KDN
  uint64_t wire_bytes = 0;           // of them, between nodes, as encoded
  std::vector<std::string> sources;  // nodes that served, without repeats
};

// One tenant's knowledge in a cluster, as one engine uses it: injects texts as
// prefix chains of chunks, and answers behind them. Thread-confined, as the
// client it keeps.
class KnowledgeEngine {
 public:
  // Connects to the node at `address`. The engine must outlive it.
  static absl::StatusOr<std::unique_ptr<KnowledgeEngine>> Connect(
      const Engine* engine, const std::string& address, const Namespace& ns);

  struct StoreOptions {
    LevelSet levels = LevelSet::Of(Level::kLossless);
    Durability durability = Durability::kReplicated;
  };
  // Prefills `text` and stores each chunk that the cluster does not hold yet,
  // at any level, a few at once. on_chunk(tokens prefilled, tokens in all)
  // after each, after the last once all are stored. Of several errors the first
  // chunk's is returned.
  using Progress = std::function<void(int, int)>;
  absl::StatusOr<Injected> Inject(const std::string& text,
                                  const StoreOptions& options,
                                  const Progress& on_chunk);

  // Answers `question` with at most `tokens_max` tokens behind `knowledge`.
  // With kKdn the longest prefix that the cluster delivers is not prefilled;
  // what it does not deliver is. Questions behind equal KV give equal tokens.
  absl::StatusOr<Answer> Ask(const std::string& knowledge,
                             const std::string& question, Mode mode,
                             int tokens_max, LevelSet accept = LevelSet::All());

  rpc::Client& client() { return *client_; }

 private:
  KnowledgeEngine(const Engine* engine, std::unique_ptr<rpc::Client> client,
                  std::unique_ptr<rpc::Knowledge> knowledge);
  // Chunks of so many tokens that are stored at once: at least one.
  size_t StoresAtOnce(int tokens) const;
  // Stores the chunks at once, from the cache.
  absl::Status StoreAll(absl::Span<const ChainChunk* const> chunks,
                        const StoreOptions& options);
  // Makes room for `tokens` in the cache, in memory shared with the node where
  // there is any, and empties it.
  absl::Status PrepareCache(int tokens);
  // Fills the cache with the longest prefix of `chain` that is delivered.
  absl::Status Fetch(const std::vector<ChainChunk>& chain, LevelSet accept,
                     Answer& answer);

  const Engine* engine_;
  // Released from the last to the first.
  std::unique_ptr<rpc::Client> client_;
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
  std::unique_ptr<model::KvCache> cache_;
};

// The prompt behind a knowledge text: what the shipped checkpoint was trained
// on.
std::string QuestionPrompt(const std::string& question);

}  // namespace kdn::cli

#endif  // KDN_CLI_KNOWLEDGE_ENGINE_H_
