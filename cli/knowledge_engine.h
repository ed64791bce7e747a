#ifndef KDN_CLI_KNOWLEDGE_ENGINE_H_
#define KDN_CLI_KNOWLEDGE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cli/connect.h"
#include "cli/injector.h"
#include "cli/prompt_form.h"
#include "kv/chunk_key.h"
#include "model/llama.h"
#include "model/tokenizer.h"
#include "rpc/client/client.h"

namespace kdn::cli {

// A small engine: a model and its tokenizer, running on this process' CPU.
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

// Where delivered chunks came from, as numbers of chunks.
struct ChunkSources {
  int memory = 0;  // of the node that the engine is connected to
  int disk = 0;    // of that node
  int peers = 0;   // other nodes
};

struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  absl::Duration time_to_first_token;
  int chunks_hit = 0;
  int chunks_missed = 0;             // every outcome but a hit
  uint64_t kv_bytes = 0;             // KV from the KDN that the model used
  uint64_t wire_bytes = 0;           // encoded bytes that nodes sent each other
  std::vector<std::string> sources;  // nodes that delivered, without repeats
  ChunkSources chunk_sources;
};

// One tenant's knowledge in a cluster, used by one engine. Injects texts as
// prefix chains of chunks and answers questions behind them. Thread-confined,
// like its client. The engine must outlive it.
class KnowledgeEngine {
 public:
  // Without a cluster: it answers questions in the modes kWithout and kPrefill,
  // and does nothing else.
  explicit KnowledgeEngine(const Engine* engine) : engine_(engine) {}
  // Connects to the gateway.
  static absl::StatusOr<std::unique_ptr<KnowledgeEngine>> Connect(
      const Engine* engine, const GatewayToDial& gateway, const Namespace& ns);

  // REQUIRES: it was made by Connect.
  rpc::Client& client() { return *client_; }

  // How texts and questions become prompts, from the next call on.
  void set_prompt_form(PromptForm form) { form_ = std::move(form); }

  // Injects texts, in the form of this engine: see Injector.
  absl::Status InjectAll(Injector::Options options,
                         const Injector::Hooks& hooks);
  // Injects one text.
  absl::StatusOr<Injected> Inject(const std::string& text,
                                  const Injector::Options& options);

  // Answers `question` about `knowledge` with at most `tokens_max` tokens.
  // With kKdn, the longest prefix of what Inject stores that is delivered is
  // not prefilled; the rest is. Only an empty `knowledge` allows kKdn without a
  // cluster. The same question behind equal KV gives equal tokens.
  absl::StatusOr<Answer> Ask(const std::string& knowledge,
                             const std::string& question, Mode mode,
                             int tokens_max, LevelSet accept = LevelSet::All());

 private:
  KnowledgeEngine(const Engine* engine, std::unique_ptr<rpc::Client> client,
                  std::unique_ptr<rpc::Knowledge> knowledge);
  // Empties the cache and makes room for `tokens` in it, in memory shared with
  // the node if the node shares any.
  absl::Status PrepareCache(int tokens);
  // Fills the cache with the longest prefix of `chain` that is delivered.
  absl::Status Fetch(const std::vector<ChainChunk>& chain, LevelSet accept,
                     Answer& answer);
  void CountHit(const ChunkOutcome& hit, Answer& answer) const;

  const Engine* engine_;
  PromptForm form_;
  // Each member uses the ones above, so they are destroyed from the last up.
  std::unique_ptr<rpc::Client> client_;  // null: without a cluster
  std::unique_ptr<rpc::Knowledge> knowledge_;
  std::unique_ptr<rpc::Region> region_;
  std::unique_ptr<model::KvCache> cache_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_KNOWLEDGE_ENGINE_H_
