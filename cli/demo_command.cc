// kdn demo: stores and delivers knowledge on three nodes that it starts, kills
// one, and compares the answers.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/cluster_process.h"
#include "cli/commands.h"
#include "cli/connect.h"
#include "cli/knowledge_engine.h"
#include "cli/temp_directory.h"
#include "kv/clock.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kNodes = 3;
constexpr int kAnswerTokens = 8;
constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kDeathTimeout = absl::Seconds(20);

struct Question {
  std::string file;
  std::string task;
  std::string question;
  std::string answer;
};

struct Asked {
  Answer answer;
  bool right = false;
};

struct Row {
  Question question;
  std::map<std::string, Asked> by_mode;  // by the label of AskAll
};

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

absl::StatusOr<std::vector<Question>> LoadQuestions(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Question> questions;
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path.string(), ":", questions.size() + 1, ": not a JSON object"));
    }
    questions.push_back({json.value("file", ""), json.value("task", ""),
                         json.value("question", ""), json.value("answer", "")});
  }
  if (questions.empty()) {
    return absl::NotFoundError(
        absl::StrCat(path.string(),
                     ": no questions; give --model a directory "
                     "with facts/ and questions.jsonl"));
  }
  return questions;
}

// The demo's state from start to report.
class Demo {
 public:
  Demo(std::string program, std::string model, std::string directory)
      : program_(std::move(program)),
        model_(std::move(model)),
        directory_(std::move(directory)) {}

  absl::Status Run();
  nlohmann::json Report() const;
  // What went wrong, in words. Empty: everything is as it should be.
  std::vector<std::string> Failures() const;
  void PrintTable() const;

 private:
  absl::Status StartCluster();
  absl::Status Connect(size_t node);
  absl::Status InjectAll();
  absl::Status AskAll(const std::string& label, Mode mode);
  absl::Status KillOne();
  int Right(const std::string& label) const;
  double MedianTtft(const std::string& label) const;
  int Misses(const std::string& label) const;
  uint64_t KvBytes(const std::string& label) const;
  bool SameTokens(const std::string& one, const std::string& other) const;

  const std::string program_;
  const fs::path model_;
  const std::string directory_;
  std::unique_ptr<ClusterProcess> cluster_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<KnowledgeEngine> knowledge_;
  std::vector<Row> rows_;
  Injected injected_;
  int files_ = 0;
  absl::Duration inject_time_;
  std::string killed_;
};

absl::Status Demo::Run() {
  absl::StatusOr<std::vector<Question>> questions =
      LoadQuestions(model_ / "questions.jsonl");
  if (!questions.ok()) return questions.status();
  for (Question& question : *questions)
    rows_.push_back({std::move(question), {}});
  absl::StatusOr<Engine> engine = Engine::Load(model_.string());
  if (!engine.ok()) return engine.status();
  engine_ = std::make_unique<Engine>(*std::move(engine));
  const auto steps = {
      std::function<absl::Status()>([this] { return StartCluster(); }),
      std::function<absl::Status()>([this] { return Connect(0); }),
      std::function<absl::Status()>([this] { return InjectAll(); }),
      std::function<absl::Status()>(
          [this] { return AskAll("without", Mode::kWithout); }),
      std::function<absl::Status()>(
          [this] { return AskAll("prefill", Mode::kPrefill); }),
      std::function<absl::Status()>(
          [this] { return AskAll("kdn", Mode::kKdn); }),
      std::function<absl::Status()>([this] { return KillOne(); }),
      std::function<absl::Status()>(
          [this] { return AskAll("after kill", Mode::kKdn); })};
  for (const auto& step : steps) {
    if (absl::Status status = step(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Demo::StartCluster() {
  LocalClusterOptions options;
  options.nodes = kNodes;
  absl::StatusOr<std::string> file = WriteLocalConfig(directory_, options);
  if (!file.ok()) return file.status();
  absl::StatusOr<ClusterConfig> config = LoadClusterConfig(*file);
  if (!config.ok()) return config.status();
  cluster_ = std::make_unique<ClusterProcess>(program_, *file, *config,
                                              directory_ + "/logs");
  std::printf("starting %d nodes ...\n", kNodes);
  if (absl::Status status = cluster_->StartAll(); !status.ok()) return status;
  return cluster_->WaitAllReady(kStartTimeout);
}

absl::Status Demo::Connect(size_t node) {
  knowledge_.reset();
  absl::StatusOr<std::unique_ptr<KnowledgeEngine>> knowledge =
      KnowledgeEngine::Connect(
          engine_.get(),
          GatewayOf(cluster_->config(), cluster_->config().nodes[node]),
          *Namespace::Parse("demo"));
  if (!knowledge.ok()) return knowledge.status();
  knowledge_ = *std::move(knowledge);
  return absl::OkStatus();
}

absl::Status Demo::InjectAll() {
  std::vector<fs::path> files;
  // The project's own docs (if the model lies in a checkout) and the facts.
  const fs::path root = model_ / ".." / "..";
  for (const fs::path& place : {root, root / "docs", model_ / "facts"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(place, error)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".md" || place == model_ / "facts") {
        files.push_back(entry.path());
      }
    }
  }
  std::sort(files.begin(), files.end());
  const absl::Time begin = SteadyNow();
  for (const fs::path& file : files) {
    absl::StatusOr<Injected> injected = knowledge_->Inject(ReadText(file), {});
    if (!injected.ok()) {
      return absl::Status(injected.status().code(),
                          absl::StrCat("injecting ", file.string(), ": ",
                                       injected.status().message()));
    }
    injected_.chunks += injected->chunks;
    injected_.tokens += injected->tokens;
    injected_.bytes += injected->bytes;
  }
  files_ = static_cast<int>(files.size());
  inject_time_ = SteadyNow() - begin;
  std::printf(
      "injected %d texts: %d tokens, %d chunks, %.1f MB of KV in %s\n\n",
      files_, injected_.tokens, injected_.chunks,
      static_cast<double>(injected_.bytes) / 1e6,
      absl::FormatDuration(absl::Trunc(inject_time_, absl::Milliseconds(1)))
          .c_str());
  return absl::OkStatus();
}

absl::Status Demo::AskAll(const std::string& label, Mode mode) {
  // The first question is not timed: it generates kernels and touches memory.
  if (absl::Status status =
          knowledge_
              ->Ask(ReadText(model_ / rows_[0].question.file),
                    rows_[0].question.question, mode, kAnswerTokens)
              .status();
      !status.ok()) {
    return status;
  }
  std::printf("%-11s %-8s %-52s %-9s %-6s %8s %9s  %s\n", "knowledge", "task",
              "question", "answer", "", "TTFT ms", "KV bytes", "from");
  for (Row& row : rows_) {
    absl::StatusOr<Answer> answer =
        knowledge_->Ask(ReadText(model_ / row.question.file),
                        row.question.question, mode, kAnswerTokens);
    if (!answer.ok()) return answer.status();
    Asked asked{*std::move(answer), false};
    // The answer is the first token. The tokens behind it are noise, but
    // greedy decoding must give the same ones however the knowledge came.
    const std::vector<int32_t>& tokens = asked.answer.tokens;
    const absl::StatusOr<std::string> decoded = engine_->tokenizer().Decode(
        {tokens.begin(), tokens.begin() + (tokens.empty() ? 0 : 1)});
    if (!decoded.ok()) return decoded.status();
    const std::string text(absl::StripAsciiWhitespace(*decoded));
    asked.right = text == row.question.answer;
    std::printf("%-11s %-8s %-52.52s %-9.9s %-6s %8.2f %9llu  %s\n",
                label.c_str(), row.question.task.c_str(),
                row.question.question.c_str(), text.c_str(),
                asked.right ? "right" : "wrong",
                absl::ToDoubleMilliseconds(asked.answer.time_to_first_token),
                static_cast<unsigned long long>(asked.answer.kv_bytes),
                absl::StrJoin(asked.answer.sources, ",").c_str());
    row.by_mode[label] = std::move(asked);
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status Demo::KillOne() {
  // The demo stays connected to node 0: the death of node 0 would test
  // reconnecting and not failover.
  constexpr size_t kVictim = 1;
  killed_ = cluster_->config().nodes[kVictim].id.name();
  std::printf("killing %s with SIGKILL\n\n", killed_.c_str());
  cluster_->Kill(kVictim, SIGKILL);
  return cluster_->WaitReady(0, kNodes - 1, kDeathTimeout);
}

int Demo::Right(const std::string& label) const {
  return static_cast<int>(std::count_if(
      rows_.begin(), rows_.end(),
      [&](const Row& row) { return row.by_mode.at(label).right; }));
}

double Demo::MedianTtft(const std::string& label) const {
  std::vector<double> times;
  for (const Row& row : rows_) {
    times.push_back(absl::ToDoubleMilliseconds(
        row.by_mode.at(label).answer.time_to_first_token));
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2,
                   times.end());
  return times[times.size() / 2];
}

int Demo::Misses(const std::string& label) const {
  int misses = 0;
  for (const Row& row : rows_) {
    misses += row.by_mode.at(label).answer.chunks_missed;
  }
  return misses;
}

uint64_t Demo::KvBytes(const std::string& label) const {
  uint64_t bytes = 0;
  for (const Row& row : rows_) bytes += row.by_mode.at(label).answer.kv_bytes;
  return bytes;
}

bool Demo::SameTokens(const std::string& one, const std::string& other) const {
  return std::all_of(rows_.begin(), rows_.end(), [&](const Row& row) {
    return row.by_mode.at(one).answer.tokens ==
           row.by_mode.at(other).answer.tokens;
  });
}

nlohmann::json Demo::Report() const {
  return {{"nodes", kNodes},
          {"texts", files_},
          {"tokens_injected", injected_.tokens},
          {"chunks", injected_.chunks},
          {"kv_bytes_injected", injected_.bytes},
          {"questions", rows_.size()},
          {"right_without", Right("without")},
          {"right_prefill", Right("prefill")},
          {"right_kdn", Right("kdn")},
          {"right_after_kill", Right("after kill")},
          {"same_tokens", SameTokens("prefill", "kdn")},
          {"same_tokens_after_kill", SameTokens("prefill", "after kill")},
          {"ttft_ms_prefill", MedianTtft("prefill")},
          {"ttft_ms_kdn", MedianTtft("kdn")},
          {"ttft_ms_after_kill", MedianTtft("after kill")},
          {"kv_bytes_delivered", KvBytes("kdn")},
          {"misses", Misses("kdn")},
          {"killed", killed_},
          {"misses_after_kill", Misses("after kill")}};
}

std::vector<std::string> Demo::Failures() const {
  std::vector<std::string> failures;
  const auto expect = [&](bool ok, const char* what) {
    if (!ok) failures.push_back(what);
  };
  expect(Misses("kdn") == 0, "the KDN missed chunks that were injected");
  expect(Misses("after kill") == 0, "chunks were missed after the kill");
  expect(SameTokens("prefill", "kdn"), "prefill and KDN gave different tokens");
  expect(SameTokens("prefill", "after kill"), "the kill changed an answer");
  expect(Right("kdn") == Right("prefill"),
         "the KDN's answers are not as right as prefill's");
  expect(Right("kdn") > Right("without"),
         "the knowledge did not reach the model");
  return failures;
}

void Demo::PrintTable() const {
  std::printf("%-12s %10s %14s %14s %8s\n", "knowledge", "right",
              "median TTFT ms", "KV bytes", "misses");
  for (const char* label : {"without", "prefill", "kdn", "after kill"}) {
    std::printf("%-12s %6d/%-3zu %14.2f %14llu %8d\n", label, Right(label),
                rows_.size(), MedianTtft(label),
                static_cast<unsigned long long>(KvBytes(label)), Misses(label));
  }
  std::printf("same tokens as prefill: %s; after %s was killed: %s\n",
              SameTokens("prefill", "kdn") ? "yes" : "NO", killed_.c_str(),
              SameTokens("prefill", "after kill") ? "yes" : "NO");
}

absl::Status RunDemo(const Program& program, const std::string& model,
                     const std::string& out) {
  std::ofstream numbers(out);
  if (!numbers) {
    return absl::UnavailableError(absl::StrCat("cannot write ", out));
  }
  absl::StatusOr<TempDirectory> directory =
      TempDirectory::Create(fs::temp_directory_path(), "kdn-demo-");
  if (!directory.ok()) return directory.status();
  absl::Status status;
  {
    Demo demo(program.path, model, directory->path());
    status = demo.Run();
    if (status.ok()) {
      demo.PrintTable();
      numbers << demo.Report().dump(1) << '\n';
      numbers.close();
      if (numbers.fail()) {
        return absl::UnavailableError(absl::StrCat("cannot write ", out));
      }
      std::printf("numbers: %s\n", out.c_str());
      const std::vector<std::string> failures = demo.Failures();
      if (!failures.empty()) {
        status = absl::InternalError(absl::StrJoin(failures, "; "));
      }
    }
  }
  if (!status.ok()) {
    std::fprintf(stderr, "logs and data are kept in %s\n",
                 directory->path().c_str());
    directory->Keep();
  }
  return status;
}

}  // namespace

void AddDemoCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "demo",
      "Show the whole job on three nodes that it starts: inject, ask, kill\n\n"
      "  kdn demo\n\n"
      "Injects the project's docs and a set of facts. Asks questions without "
      "the knowledge, with the knowledge prefilled, and with the knowledge "
      "from the KDN. Then kills one node and asks again. Fails when a chunk "
      "is missing or an answer differs.");
  auto model = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>("demo.json");
  command->add_option("--model", *model,
                      "checkpoint directory with facts/ and questions.jsonl "
                      "(default: the shipped model)");
  command->add_option("--out", *out, "JSON file for the numbers")
      ->capture_default_str();
  command->callback([&program, model, out] {
    program.exit_code = Report(RunDemo(
        program, model->empty() ? DefaultModelDirectory(program) : *model,
        *out));
  });
}

}  // namespace kdn::cli
