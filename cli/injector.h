#ifndef KDN_CLI_INJECTOR_H_
#define KDN_CLI_INJECTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/inject_plan.h"
#include "cli/prefill_worker.h"
#include "cli/prompt_form.h"
#include "kv/chunk_key.h"
#include "model/llama.h"
#include "model/tokenizer.h"
#include "rpc/client/client.h"

namespace kdn::cli {

struct Injected {
  int chunks = 0;            // of the text
  int chunks_stored = 0;     // the other chunks were in the cluster already
  int chunks_otherwise = 0;  // in the cluster, but not at every level asked for
  int tokens = 0;            // of the text
  uint64_t bytes = 0;        // of KV that were stored, before encoding
  uint64_t bytes_encoded = 0;  // of one copy of the chunks that were stored
};

// Injects texts: prefills each chunk that the cluster does not hold at any
// level, and stores it. One thread prefills while the caller's thread stores,
// and a few texts are under way at once, each with a cache of its own: so the
// time is that of the prefill, and short texts share passes. Thread-confined,
// like the client.
class Injector {
 public:
  struct Options {
    LevelSet levels = LevelSet::Of(Level::kLossless);
    Durability durability = Durability::kReplicated;
    // What is stored of a text is what all prompts about it begin with.
    PromptForm form;
  };
  struct Text {
    std::string name;  // for errors; may be empty
    std::string text;
  };
  struct Hooks {
    // The next text, or nullopt when there is no other.
    std::function<absl::StatusOr<std::optional<Text>>()> next;
    // A number of tokens of a text have been prefilled, out of all. Texts are
    // counted from 0 in the order of `next`.
    std::function<void(int text, int tokens, int all)> on_progress;
    // All chunks of a text are stored.
    std::function<void(int text, const Injected& injected)> on_done;
  };

  // All of them must outlive the injector.
  Injector(const model::Llama& llama, const model::Tokenizer& tokenizer,
           rpc::Client& client, rpc::Knowledge& knowledge,
           const Options& options, const Hooks& hooks);

  // Ends when all texts are stored, or with the first error. The error names
  // its text. Chunks that are being stored by then are stored all the same.
  absl::Status Run();

 private:
  // A text that is under way.
  struct Job {
    std::string name;
    std::vector<int32_t> tokens;
    std::vector<int32_t> positions;
    std::vector<ChainChunk> chain;
    std::vector<bool> held;    // by the cluster, for each chunk
    size_t chunks_wanted = 0;  // those behind the last missing one are not
    size_t chunks_prefilled = 0;
    size_t chunks_begun = 0;  // whose stores have begun, or that are held
    int stores = 0;           // that have not ended
    Injected injected;
    std::unique_ptr<rpc::Region> region;
    std::unique_ptr<model::KvCache> cache;
  };
  struct Pass {
    std::vector<PassPart> parts;
    std::future<absl::Status> done;
  };
  struct Store {
    int text = 0;
    std::unique_ptr<rpc::PendingStore> pending;
  };

  absl::Status Step();
  // Takes texts until enough are under way.
  absl::Status Admit();
  absl::StatusOr<Job> MakeJob(const Text& text);
  // Whether the texts under way leave room for the cache of one more.
  bool HasRoomFor(const Job& job) const;
  // The tokens that the text's cache holds, and its bytes.
  static int CacheTokens(const Job& job);
  uint64_t CacheBytes(const Job& job) const;
  absl::Status Look(Job& job);
  // RESOURCE_EXHAUSTED when the node's budget for shared memory is used up.
  absl::Status MakeCache(Job& job);
  void PushPasses();
  absl::Status TakePass();
  void BeginStores();
  void BeginStore(int text, Job& job, size_t chunk);
  absl::Status AwaitStore();
  void FinishJobs();
  size_t StoresAtOnce() const;
  absl::Status Named(const absl::Status& status, const std::string& name) const;

  const model::Llama& llama_;
  const model::Tokenizer& tokenizer_;
  rpc::Client& client_;
  rpc::Knowledge& knowledge_;
  const Options options_;
  const Hooks& hooks_;

  InjectPlan plan_;
  int texts_ = 0;  // taken so far
  bool all_taken_ = false;
  std::optional<Job> waiting_;  // has no cache yet
  std::map<int, Job> jobs_;
  std::deque<Pass> passes_;  // pushed, in order
  std::deque<Store> stores_;
  PrefillWorker worker_;  // ends before the caches that it writes
};

}  // namespace kdn::cli

#endif  // KDN_CLI_INJECTOR_H_
