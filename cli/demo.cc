#include "cli/demo.h"

#include <signal.h>

#include <cstdio>
#include <functional>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/connect.h"
#include "cli/text_files.h"
#include "kv/clock.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kNodes = 3;
// The demo stays connected to node 0: the death of node 0 would test
// reconnecting and not failover.
constexpr size_t kVictim = 1;
// The smallest level at which SmolLM2-135M-Instruct answers the shipped
// questions as well as with exact KV, without a calibration.
constexpr Level kSmallLevel = Level::kBase2;
constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kDeathTimeout = absl::Seconds(20);

absl::StatusOr<PromptForm> ChatFormOf(const std::string& file,
                                      const model::Tokenizer& tokenizer) {
  if (file.empty()) return PromptForm::Chat(tokenizer);
  const absl::StatusOr<std::string> text = ReadText(file);
  if (!text.ok()) return text.status();
  return PromptForm::Template(*text, file);
}

}  // namespace

absl::Status Demo::Run() {
  DemoResult& r = result_;
  const std::string small(Name(kSmallLevel));
  r.nothing.knowledge = "none";
  r.prefilled.knowledge = "prefilled";
  r.lossless.knowledge = "KDN, lossless";
  r.small.knowledge = "KDN, " + small;
  const std::vector<std::function<absl::Status()>> steps = {
      [&] { return LoadTexts(); },
      [&] { return LoadModel(); },
      [&] { return StartCluster(); },
      [&] { return Inject("demo", Level::kLossless, lossless_, r.lossless); },
      [&] { return Inject("demo-small", kSmallLevel, small_, r.small); },
      [&] { return AskAll(*alone_, Mode::kWithout, r.nothing); },
      [&] { return AskAll(*alone_, Mode::kPrefill, r.prefilled); },
      [&] { return AskAll(*lossless_, Mode::kKdn, r.lossless); },
      [&] { return AskAll(*small_, Mode::kKdn, r.small); },
      [&] { return KillOne(); },
      [&] { return AskAll(*lossless_, Mode::kKdn, r.after_kill); }};
  for (const auto& step : steps) {
    if (absl::Status status = step(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Demo::LoadTexts() {
  const absl::StatusOr<std::string> lines = ReadText(job_.questions);
  if (!lines.ok()) return lines.status();
  absl::StatusOr<std::vector<DemoQuestion>> questions =
      ParseDemoQuestions(*lines, job_.questions.string());
  if (!questions.ok()) return questions.status();
  std::map<std::pair<std::string, std::string>, size_t> known;
  for (const DemoQuestion& each : *questions) {
    const auto [place, is_new] =
        known.try_emplace({each.file, each.section}, texts_.size());
    text_of_.push_back(place->second);
    if (!is_new) continue;
    const fs::path path = job_.questions.parent_path() / each.file;
    absl::StatusOr<std::string> text = ReadText(path);
    if (text.ok() && !each.section.empty()) {
      text = SectionOf(*text, each.section);
    }
    if (!text.ok()) {
      return absl::Status(text.status().code(),
                          absl::StrCat(path.lexically_normal().string(), ": ",
                                       text.status().message()));
    }
    texts_.push_back(*std::move(text));
  }
  result_.questions = *std::move(questions);
  result_.texts = static_cast<int>(texts_.size());
  return absl::OkStatus();
}

absl::Status Demo::LoadModel() {
  const std::string directory = fs::weakly_canonical(job_.model).string();
  result_.model = fs::path(directory).filename().string();
  std::printf("loading the model in %s\n", directory.c_str());
  absl::StatusOr<Engine> engine = Engine::Load(directory);
  if (!engine.ok()) return engine.status();
  engine_ = std::make_unique<Engine>(*std::move(engine));
  if (job_.chat) {
    absl::StatusOr<PromptForm> form =
        ChatFormOf(job_.chat_template, engine_->tokenizer());
    if (!form.ok()) return form.status();
    form_ = *std::move(form);
  }
  alone_ = std::make_unique<KnowledgeEngine>(engine_.get());
  alone_->set_prompt_form(form_);
  return absl::OkStatus();
}

absl::Status Demo::StartCluster() {
  LocalClusterOptions options;
  options.nodes = kNodes;
  result_.nodes = kNodes;
  absl::StatusOr<std::string> file = WriteLocalConfig(directory_, options);
  if (!file.ok()) return file.status();
  absl::StatusOr<ClusterConfig> config = LoadClusterConfig(*file);
  if (!config.ok()) return config.status();
  cluster_ = std::make_unique<ClusterProcess>(program_, *file, *config,
                                              directory_ + "/logs");
  std::printf("starting %d nodes\n", kNodes);
  if (absl::Status status = cluster_->StartAll(); !status.ok()) return status;
  return cluster_->WaitAllReady(kStartTimeout);
}

absl::Status Demo::Inject(const char* tenant, Level level,
                          std::unique_ptr<KnowledgeEngine>& knowledge,
                          DemoRound& round) {
  absl::StatusOr<std::unique_ptr<KnowledgeEngine>> connected =
      KnowledgeEngine::Connect(
          engine_.get(),
          GatewayOf(cluster_->config(), cluster_->config().nodes[0]),
          *Namespace::Parse(tenant));
  if (!connected.ok()) return connected.status();
  knowledge = *std::move(connected);
  knowledge->set_prompt_form(form_);
  std::printf("injecting %d texts at %s ...", result_.texts,
              std::string(Name(level)).c_str());
  std::fflush(stdout);
  const absl::Time begin = SteadyNow();
  Injector::Options options;
  options.levels = LevelSet::Of(level);
  Injected sum;
  for (const std::string& text : texts_) {
    const absl::StatusOr<Injected> injected = knowledge->Inject(text, options);
    if (!injected.ok()) return injected.status();
    sum.chunks += injected->chunks;
    sum.tokens += injected->tokens;
    sum.bytes += injected->bytes;
    sum.bytes_encoded += injected->bytes_encoded;
  }
  round.bytes_stored = sum.bytes_encoded;
  if (level == Level::kLossless) result_.injected = sum;
  std::printf(
      " %d tokens, %d chunks, %.2f MB of KV, stored in %.2f MB, %.1f s\n",
      sum.tokens, sum.chunks, static_cast<double>(sum.bytes) / 1e6,
      static_cast<double>(sum.bytes_encoded) / 1e6,
      absl::ToDoubleSeconds(SteadyNow() - begin));
  return absl::OkStatus();
}

absl::Status Demo::AskAll(KnowledgeEngine& knowledge, Mode mode,
                          DemoRound& round) {
  std::printf("\nknowledge: %s\n", round.knowledge.c_str());
  // The first question is asked twice, and timed the second time: the first
  // time generates kernels and touches memory.
  if (absl::Status status = AskOne(knowledge, mode, 0).status(); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < result_.questions.size(); ++i) {
    absl::StatusOr<DemoAnswer> asked = AskOne(knowledge, mode, i);
    if (!asked.ok()) return asked.status();
    const Answer& answer = asked->answer;
    std::printf(
        "  %-5s %7.1f ms  %-54s %s%s\n", asked->right ? "right" : "wrong",
        absl::ToDoubleMilliseconds(answer.time_to_first_token),
        OneLine(result_.questions[i].question, 54).c_str(),
        OneLine(asked->said, 60).c_str(),
        answer.sources.empty()
            ? ""
            : absl::StrCat("  [", absl::StrJoin(answer.sources, ", "), "]")
                  .c_str());
    std::fflush(stdout);
    round.answers.push_back(*std::move(asked));
  }
  return absl::OkStatus();
}

absl::StatusOr<DemoAnswer> Demo::AskOne(KnowledgeEngine& knowledge, Mode mode,
                                        size_t question) {
  const DemoQuestion& asked = result_.questions[question];
  absl::StatusOr<Answer> answer = knowledge.Ask(
      texts_[text_of_[question]], asked.question, mode, job_.answer_tokens);
  if (!answer.ok()) return answer.status();
  DemoAnswer result{*std::move(answer), {}, false};
  result.said = result.answer.text;
  if (!job_.chat && !result.answer.tokens.empty()) {
    const absl::StatusOr<std::string> first =
        engine_->tokenizer().Decode({result.answer.tokens.front()});
    if (!first.ok()) return first.status();
    result.said = std::string(absl::StripAsciiWhitespace(*first));
  }
  result.right = HasAnswer(result.said, asked.values);
  return result;
}

absl::Status Demo::KillOne() {
  result_.killed = cluster_->config().nodes[kVictim].id.name();
  result_.after_kill.knowledge = absl::StrCat("KDN, ", result_.killed, " dead");
  result_.after_kill.bytes_stored = result_.lossless.bytes_stored;
  std::printf("\nkilling %s with SIGKILL\n", result_.killed.c_str());
  cluster_->Kill(kVictim, SIGKILL);
  return cluster_->WaitReady(0, kNodes - 1, kDeathTimeout);
}

}  // namespace kdn::cli
