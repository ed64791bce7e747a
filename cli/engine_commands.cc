// kdn inject and kdn ask: a small LLM engine that uses a cluster.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/cluster_calibration.h"
#include "cli/commands.h"
#include "cli/connect.h"
#include "cli/injected_files.h"
#include "cli/injector.h"
#include "cli/knowledge_engine.h"
#include "cli/level_list.h"
#include "cli/text_files.h"
#include "kv/clock.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

struct EngineOptions {
  std::string model;
  GatewayToDial gateway;
  std::string ns = "default";
  bool chat = false;
  std::string chat_template;  // a file; empty: the form of the model
};

std::shared_ptr<EngineOptions> AddEngineOptions(CLI::App& command) {
  auto options = std::make_shared<EngineOptions>();
  command.add_option("--model", options->model,
                     "Hugging Face checkpoint directory (default: the shipped "
                     "model)");
  AddGatewayOptions(command, options->gateway);
  command
      .add_option("--namespace", options->ns,
                  "tenant; tenants do not see each other's chunks")
      ->capture_default_str();
  CLI::Option* const chat = command.add_flag(
      "--chat", options->chat,
      "the text is the system message of a chat: ChatML or Llama 3, as the "
      "tokenizer says. inject and ask must agree; the KV is also that of a "
      "chat server whose system message is the text");
  command
      .add_option("--template", options->chat_template,
                  "file with another chat template, which has {knowledge} and "
                  "{question} in it")
      ->excludes(chat);
  return options;
}

struct Connected {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<KnowledgeEngine> knowledge;
};

absl::StatusOr<PromptForm> FormOf(const EngineOptions& options,
                                  const model::Tokenizer& tokenizer) {
  if (options.chat) return PromptForm::Chat(tokenizer);
  if (options.chat_template.empty()) return PromptForm();
  const absl::StatusOr<std::string> text = ReadText(options.chat_template);
  if (!text.ok()) return text.status();
  return PromptForm::Template(*text, options.chat_template);
}

// Loads the engine, and connects to the cluster if the command needs one.
absl::StatusOr<Connected> ConnectWith(const EngineOptions& options,
                                      const Program& program,
                                      bool needs_cluster) {
  absl::StatusOr<Namespace> ns = Namespace::Parse(options.ns);
  if (!ns.ok()) return ns.status();
  absl::StatusOr<Engine> engine = Engine::Load(
      options.model.empty() ? DefaultModelDirectory(program) : options.model);
  if (!engine.ok()) return engine.status();
  Connected connected;
  connected.engine = std::make_unique<Engine>(*std::move(engine));
  absl::StatusOr<PromptForm> form =
      FormOf(options, connected.engine->tokenizer());
  if (!form.ok()) return form.status();
  if (needs_cluster) {
    absl::StatusOr<std::unique_ptr<KnowledgeEngine>> knowledge =
        KnowledgeEngine::Connect(connected.engine.get(), options.gateway, *ns);
    if (!knowledge.ok()) return knowledge.status();
    connected.knowledge = *std::move(knowledge);
  } else {
    connected.knowledge =
        std::make_unique<KnowledgeEngine>(connected.engine.get());
  }
  connected.knowledge->set_prompt_form(*std::move(form));
  return connected;
}

// The check of a --level option: an error text, or nothing for a good list.
std::string CheckLevels(const std::string& text) {
  return std::string(ParseLevelList(text).status().message());
}

struct StoreFlags {
  std::string levels = "lossless";
  std::string durability = "replicated";
  std::vector<std::string> calibrate;  // files, or directories of files
  bool no_calibrate = false;
};

Injector::Options StoreOptionsOf(const StoreFlags& flags) {
  Injector::Options options;
  options.levels = ParseLevelList(flags.levels).value();
  if (flags.durability == "cache") options.durability = Durability::kCache;
  if (flags.durability == "durable") {
    options.durability = Durability::kDurable;
  }
  return options;
}

absl::Status Calibrated(Connected& connected, const StoreFlags& flags,
                        const std::vector<fs::path>& injected) {
  const InjectCalibration how{flags.no_calibrate, flags.calibrate};
  return EnsureCalibration(connected.engine->llama(),
                           connected.engine->tokenizer(),
                           connected.knowledge->client(),
                           ParseLevelList(flags.levels).value(), how, injected);
}

absl::Status Inject(const Program& program, const EngineOptions& options,
                    const StoreFlags& flags,
                    const std::vector<std::string>& paths) {
  absl::StatusOr<std::vector<fs::path>> listed = FilesOf(paths);
  if (!listed.ok()) return listed.status();
  absl::StatusOr<Connected> connected =
      ConnectWith(options, program, /*needs_cluster=*/true);
  if (!connected.ok()) return connected.status();
  if (absl::Status s = Calibrated(*connected, flags, *listed); !s.ok()) {
    return s;
  }
  const absl::Time begin = SteadyNow();
  InjectedFiles files(*std::move(listed));
  const absl::Status status = connected->knowledge->InjectAll(
      StoreOptionsOf(flags),
      {.next = [&] { return files.Next(); },
       .on_progress = [&](int number, int tokens,
                          int all) { files.Advance(number, tokens, all); },
       .on_done = [&](int number,
                      const Injected& done) { files.Finish(number, done); }});
  files.ClearBar();
  if (!status.ok()) return status;
  const Injected& sum = files.sum();
  std::printf(
      "%d files, %d tokens: %d chunks, %d of them new, %.1f MB of KV, %.2f "
      "s\n",
      files.count(), sum.tokens, sum.chunks, sum.chunks_stored,
      static_cast<double>(sum.bytes) / 1e6,
      absl::ToDoubleSeconds(SteadyNow() - begin));
  if (sum.chunks_otherwise > 0) {
    std::printf(
        "%d chunks are already stored at other levels and stay as they are\n",
        sum.chunks_otherwise);
  }
  return absl::OkStatus();
}

absl::Status Ask(const Program& program, const EngineOptions& options,
                 const std::vector<std::string>& knowledge,
                 const std::string& question, Mode mode, int tokens,
                 LevelSet accept) {
  std::string text;
  for (const std::string& path : knowledge) {
    absl::StatusOr<std::string> part = ReadText(path);
    if (!part.ok()) return part.status();
    text += *part;
  }
  const bool from_kdn = mode == Mode::kKdn && !text.empty();
  absl::StatusOr<Connected> connected = ConnectWith(options, program, from_kdn);
  if (!connected.ok()) return connected.status();
  const absl::StatusOr<Answer> answer =
      connected->knowledge->Ask(text, question, mode, tokens, accept);
  if (!answer.ok()) return answer.status();
  std::printf("%s\n", answer->text.c_str());
  std::fprintf(stderr, "first token after %.1f ms",
               absl::ToDoubleMilliseconds(answer->time_to_first_token));
  if (from_kdn) {
    std::fprintf(stderr, "; %d of %d chunks and %.1f kB of KV delivered by %s",
                 answer->chunks_hit, answer->chunks_hit + answer->chunks_missed,
                 static_cast<double>(answer->kv_bytes) / 1e3,
                 answer->sources.empty()
                     ? "nobody"
                     : absl::StrJoin(answer->sources, ", ").c_str());
  }
  std::fprintf(stderr, "\n");
  if (answer->chunks_missed > 0) {
    std::fprintf(stderr, "%d chunks are not in the cluster%s\n",
                 answer->chunks_missed,
                 accept == LevelSet::All()
                     ? " and were prefilled here; `kdn inject` stores them"
                     : " at these levels and were prefilled here");
  }
  return absl::OkStatus();
}

}  // namespace

void AddInjectCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "inject",
      "Prefill texts and store their KV in the cluster\n\n"
      "  kdn inject README.md docs/\n"
      "  kdn inject --level lossless,base+1 --durability durable "
      "handbook.txt\n"
      "  kdn inject --chat --model DIR handbook.txt   for a chat model\n\n"
      "A chunk that the cluster already holds is not stored again, even when "
      "its levels or durability differ.");
  const auto options = AddEngineOptions(*command);
  auto flags = std::make_shared<StoreFlags>();
  auto paths = std::make_shared<std::vector<std::string>>();
  command->add_option("PATH", *paths, "files, or directories of files")
      ->required();
  command
      ->add_option("--level", flags->levels,
                   "levels of quality to store, separated by commas. lossless: "
                   "the engine's own bits. int8: half the bytes of bf16. base: "
                   "about a tenth of the bytes with a calibration of the "
                   "model, which is made if the cluster has none. base+1, "
                   "base+2: each three times "
                   "finer than the level before, which is stored too. archive: "
                   "the fewest bytes, and needs a calibration")
      ->check(CheckLevels)
      ->capture_default_str();
  command
      ->add_option("--durability", flags->durability,
                   "when a store is done: one node has the chunk in memory "
                   "(cache), every replica has it in memory (replicated), "
                   "every replica has it on disk (durable)")
      ->check(CLI::IsMember({"cache", "replicated", "durable"}))
      ->capture_default_str();
  CLI::Option* const calibrate =
      command
          ->add_option("--calibrate", flags->calibrate,
                       "a file, or a directory of files, with text to make a "
                       "calibration on, if one is made (default: the texts to "
                       "be injected, and those of scripts/texts); may be given "
                       "several times")
          ->expected(1)
          ->allow_extra_args(false)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_flag("--no-calibrate", flags->no_calibrate,
                 "make no calibration: use the cluster's, or the built-in one")
      ->excludes(calibrate);
  command->callback([&program, options, flags, paths] {
    program.exit_code = Report(Inject(program, *options, *flags, *paths));
  });
}

void AddAskCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "ask",
      "Ask the model a question about a text whose KV is in the cluster\n\n"
      "  kdn ask -k model/recall/facts/arden.txt \"What is the code of vault "
      "elm?\" --tokens 1\n"
      "  kdn ask --prefill -k notes.txt \"...\"   the same without a cluster\n"
      "  kdn ask --level base -k notes.txt \"...\"   from the coarsest copy\n"
      "  kdn ask --chat --model DIR -k notes.txt \"...\"   of a chat model\n\n"
      "Chunks that the cluster does not hold are prefilled here; `kdn inject` "
      "stores them. The shipped model only knows facts like the one above and "
      "answers in one token; --model takes another model.");
  const auto options = AddEngineOptions(*command);
  auto knowledge = std::make_shared<std::vector<std::string>>();
  auto question = std::make_shared<std::string>();
  auto prefill = std::make_shared<bool>(false);
  auto without = std::make_shared<bool>(false);
  auto tokens = std::make_shared<int>(16);
  auto levels = std::make_shared<std::string>();
  command
      ->add_option("-k,--knowledge", *knowledge,
                   "file with the text that the question is about. Several -k "
                   "are joined to one text, in their order; the KDN finds the "
                   "KV of a joined text only if that text was injected")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("QUESTION", *question, "what to ask")->required();
  command->add_flag("--prefill", *prefill,
                    "prefill the text here; needs no cluster");
  command->add_flag("--without", *without,
                    "ask without the text; needs no cluster");
  command->add_option("--tokens", *tokens, "most tokens of the answer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--level", *levels,
                   "levels to accept, separated by commas (default: any). Of "
                   "the accepted levels that are stored, the best is "
                   "delivered: lossless, then int8, base+2, base+1, base, "
                   "archive")
      ->check(CheckLevels);
  command->callback([&program, options, knowledge, question, prefill, without,
                     tokens, levels] {
    const Mode mode = *without   ? Mode::kWithout
                      : *prefill ? Mode::kPrefill
                                 : Mode::kKdn;
    const LevelSet accept =
        levels->empty() ? LevelSet::All() : ParseLevelList(*levels).value();
    program.exit_code = Report(
        Ask(program, *options, *knowledge, *question, mode, *tokens, accept));
  });
}

}  // namespace kdn::cli
