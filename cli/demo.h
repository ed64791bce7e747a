#ifndef KDN_CLI_DEMO_H_
#define KDN_CLI_DEMO_H_

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/cluster_process.h"
#include "cli/demo_report.h"
#include "cli/knowledge_engine.h"
#include "cli/prompt_form.h"
#include "kv/level.h"

namespace kdn::cli {

// A model, and the questions that it is asked.
struct DemoJob {
  std::filesystem::path model;
  std::filesystem::path questions;  // their files are relative to its folder
  // A chat model answers in sentences. The answer of the recall model is its
  // first token; the tokens behind it are noise.
  bool chat = false;
  std::string chat_template;  // a file; empty: as the tokenizer says
  int answer_tokens = 0;
};

// `kdn demo` from its start to its result. Its nodes end with it.
class Demo {
 public:
  Demo(std::string program, DemoJob job, std::string directory)
      : program_(std::move(program)),
        job_(std::move(job)),
        directory_(std::move(directory)) {}

  // Prints what happens while it does.
  absl::Status Run();
  const DemoResult& result() const { return result_; }

 private:
  absl::Status LoadTexts();
  absl::Status LoadModel();
  absl::Status StartCluster();
  // Connects to node 0 as a tenant, and injects all texts at one level.
  absl::Status Inject(const char* tenant, Level level,
                      std::unique_ptr<KnowledgeEngine>& knowledge,
                      DemoRound& round);
  absl::Status AskAll(KnowledgeEngine& knowledge, Mode mode, DemoRound& round);
  absl::StatusOr<DemoAnswer> AskOne(KnowledgeEngine& knowledge, Mode mode,
                                    size_t question);
  absl::Status KillOne();

  const std::string program_;
  const DemoJob job_;
  const std::string directory_;
  DemoResult result_;
  std::vector<std::string> texts_;
  std::vector<size_t> text_of_;  // by question, an index of texts_
  PromptForm form_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ClusterProcess> cluster_;
  std::unique_ptr<KnowledgeEngine> alone_;  // without a cluster
  std::unique_ptr<KnowledgeEngine> lossless_;
  std::unique_ptr<KnowledgeEngine> small_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_DEMO_H_
