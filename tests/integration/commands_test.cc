// Runs the commands of the kdn program, as people do, on a real cluster.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/calibration_files.h"
#include "cli/cluster_process.h"
#include "codec/calibration/calibration_format.h"
#include "kv/clock.h"
#include "kv/metric_table.h"
#include "rpc/client/client.h"

namespace kdn::integration {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kFacts = KDN_SOURCE_DIR "/model/recall/facts/arden.txt";

struct Ran {
  int exit_code = -1;
  std::string output;  // both streams
};

Ran Kdn(const std::string& arguments) {
  Ran ran;
  FILE* pipe = popen(
      absl::StrCat(KDN_BINARY_DIR "/bin/kdn ", arguments, " 2>&1").c_str(),
      "r");
  if (pipe == nullptr) return ran;
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    ran.output.append(buffer, got);
  }
  const int status = pclose(pipe);
  ran.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

TEST(CommandsTest, EveryCommandExplainsItself) {
  EXPECT_THAT(Kdn("--help").output, HasSubstr("demo"));
  for (const char* command :
       {"up", "node", "config", "certs", "inject", "ask", "status", "tokenize",
        "demo", "bench delivery", "bench codec", "bench blend",
        "codec calibrate", "codec info"}) {
    const Ran help = Kdn(absl::StrCat(command, " --help"));
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_THAT(help.output, HasSubstr("kdn ")) << command << ": no example";
    EXPECT_NE(Kdn(absl::StrCat(command, " --nonsense")).exit_code, 0)
        << command;
  }
}

// A configuration of two nodes that other machines reach.
class CertsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(directory_.data()), nullptr);
    std::ofstream(config()) << "defaults: {host: 192.0.2.7}\nnodes:\n"
                            << "- {id: n1, control_port: 1, bulk_port: 2, "
                               "gateway_port: 3}\n"
                            << "- {id: n2, control_port: 4, bulk_port: 5, "
                               "gateway_port: 6}\n";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string config() const { return directory_ + "/c.yaml"; }
  std::string certs() const { return directory_ + "/certs"; }
  Ran Certs(const std::string& more = "") const {
    return Kdn(absl::StrCat("certs -c ", config(), " ", more));
  }

 private:
  std::string directory_ = "/tmp/kdn-certs-XXXXXX";
};

TEST_F(CertsTest, SaysWhatTheFilesAreForAndTheConfigurationTakesThem) {
  const Ran refused = Kdn("config " + config());
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("kdn certs -c FILE -o DIR"));
  const Ran made = Certs("-o " + certs());
  EXPECT_EQ(made.exit_code, 0) << made.output;
  EXPECT_THAT(made.output,
              AllOf(HasSubstr("wrote authority " + certs() + "/ca.pem"),
                    HasSubstr("wrote node      " + certs() + "/n1.pem"),
                    HasSubstr("security:\n  certificates: " + certs()),
                    HasSubstr("192.0.2.7: ca.pem n2.pem n2.key"),
                    HasSubstr("ca.key belongs on no host")));
  std::ofstream(config(), std::ios::app)
      << "security: {certificates: " << certs() << "}\n";
  const Ran config_shown = Kdn("config " + config());
  EXPECT_EQ(config_shown.exit_code, 0) << config_shown.output;
  EXPECT_THAT(config_shown.output, HasSubstr("TLS between nodes"));
  const Ran again = Certs();
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_THAT(again.output, HasSubstr("kept  node      " + certs()));
}

TEST_F(CertsTest, SaysWhatIsMissing) {
  const Ran no_directory = Certs();
  EXPECT_EQ(no_directory.exit_code, 2);
  EXPECT_THAT(no_directory.output, HasSubstr("-o DIR is missing"));
  EXPECT_NE(Certs("-o " + certs() + " --days 0").exit_code, 0);
  EXPECT_EQ(Certs("-o " + config() + "/certs").exit_code, 1);
  EXPECT_EQ(Certs("-o " + certs()).exit_code, 0);
  std::filesystem::remove(certs() + "/ca.key");
  const Ran no_key = Certs("-o " + certs() + " --renew");
  EXPECT_EQ(no_key.exit_code, 1);
  EXPECT_THAT(no_key.output, HasSubstr("ca.key is not"));
}

TEST_F(CertsTest, ACertificateThatNodesRefuseIsReported) {
  EXPECT_EQ(Certs("-o " + certs()).exit_code, 0);
  const Ran refused = Certs("-o " + certs() + " --host kdn-gateway");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(
      refused.output,
      AllOf(HasSubstr("n2: the certificate lacks the names kdn-gateway"),
            HasSubstr("--renew")));
  EXPECT_EQ(Certs("-o " + certs() + " --host kdn-gateway --renew").exit_code,
            0);
}

TEST(CommandsTest, StatusExplainsEveryMetric) {
  const Ran explained = Kdn("status --explain");
  EXPECT_EQ(explained.exit_code, 0);
  for (const MetricInfo& info : kMetricTable) {
    EXPECT_THAT(explained.output, HasSubstr(std::string(info.name)));
    EXPECT_THAT(explained.output, HasSubstr(std::string(info.help)));
  }
}

TEST(CommandsTest, AMisspeltInstructionSetIsRefused) {
  setenv("KDN_ISA", "avx51", 1);
  const Ran refused = Kdn("status --explain");
  unsetenv("KDN_ISA");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output,
              AllOf(HasSubstr("KDN_ISA is 'avx51'"), HasSubstr("avx512")));
}

TEST(CommandsTest, WithoutAClusterTheySaySo) {
  const Ran status = Kdn("status --connect unix:/nowhere/kdn.sock");
  EXPECT_NE(status.exit_code, 0);
  EXPECT_THAT(status.output, HasSubstr("/nowhere/kdn.sock"));
}

TEST(CommandsTest, AQuestionThatNeedsNoClusterIsAnsweredWithoutOne) {
  const std::string ask =
      "ask --connect unix:/nowhere/kdn.sock --tokens 1 "
      "\"What is the code of vault elm?\" ";
  const std::string knowledge = absl::StrCat("-k ", kFacts);
  const Ran prefilled = Kdn(absl::StrCat(ask, "--prefill ", knowledge));
  EXPECT_EQ(prefilled.exit_code, 0) << prefilled.output;
  EXPECT_THAT(prefilled.output, HasSubstr("4171"));
  for (const std::string& without : {"--without " + knowledge, std::string()}) {
    const Ran asked = Kdn(ask + without);
    EXPECT_EQ(asked.exit_code, 0) << asked.output;
    EXPECT_THAT(asked.output, Not(HasSubstr("4171")));
  }
  const Ran from_kdn = Kdn(ask + knowledge);
  EXPECT_EQ(from_kdn.exit_code, 1);
  EXPECT_THAT(from_kdn.output, HasSubstr("is the cluster up"));
}

TEST(DemoTest, TheShippedModelAnswersFromTheKdnAndANodeIsKilled) {
  const std::string out =
      absl::StrCat("/tmp/kdn-test-demo-", static_cast<int64_t>(getpid()));
  const Ran demo = Kdn("demo --offline --out " + out);
  EXPECT_EQ(demo.exit_code, 0) << demo.output;
  EXPECT_THAT(demo.output,
              AllOf(HasSubstr("killing n2"), HasSubstr("KDN, n2 dead"),
                    HasSubstr("What is the code of vault elm?")));
  std::ifstream file(out);
  const nlohmann::json numbers = nlohmann::json::parse(file, nullptr, false);
  std::filesystem::remove(out);
  ASSERT_TRUE(numbers.is_object());
  EXPECT_EQ(numbers["model"], "recall");
  EXPECT_EQ(numbers["questions"], 36);
  EXPECT_EQ(numbers["right_prefill"], 36);
  EXPECT_EQ(numbers["right_kdn"], 36);
  EXPECT_EQ(numbers["right_after_kill"], 36);
  EXPECT_EQ(numbers["same_tokens"], true);
  EXPECT_EQ(numbers["same_tokens_after_kill"], true);
  EXPECT_EQ(numbers["misses"], 0);
  EXPECT_EQ(numbers["misses_after_kill"], 0);
  ASSERT_EQ(numbers["rounds"].size(), 5u);
  const nlohmann::json& lossless = numbers["rounds"][2];
  const nlohmann::json& small = numbers["rounds"][3];
  EXPECT_GT(lossless["chunks_from_memory"], 0);
  EXPECT_GT(lossless["chunks_from_peers"], 0);
  EXPECT_GT(small["bytes_stored"], 0);
  EXPECT_LT(small["bytes_stored"], lossless["bytes_stored"]);
}

TEST(DemoTest, AModelThatIsNotThereIsNamedWithTheRemedy) {
  const Ran demo = Kdn("demo --model /nowhere --out /dev/null");
  EXPECT_EQ(demo.exit_code, 1);
  EXPECT_THAT(demo.output, AllOf(HasSubstr("/nowhere"), HasSubstr("--offline"),
                                 HasSubstr("scripts/model")));
  EXPECT_EQ(Kdn("demo --offline --model /nowhere").exit_code, 2);
}

// Calibrations that the program makes in a temporary directory.
class Calibrations {
 public:
  Calibrations() { std::filesystem::create_directory(directory_); }
  ~Calibrations() { std::filesystem::remove_all(directory_); }
  const std::string& directory() const { return directory_; }
  std::string PathOf(const std::string& name) const {
    return absl::StrCat(directory_, "/", name);
  }
  Ran Make(const std::string& name, const std::string& more = "") const {
    return Kdn(absl::StrCat("codec calibrate --text ", KDN_SOURCE_DIR,
                            "/model/recall/facts -o ", PathOf(name), " ",
                            more));
  }

 private:
  const std::string directory_ = absl::StrCat("/tmp/kdn-test-calibrations-",
                                              static_cast<int64_t>(getpid()));
};

// The file without the time at which it was made.
std::vector<std::byte> WithoutTime(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  auto stored = codec::ReadCalibration(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(text.data()), text.size()));
  EXPECT_TRUE(stored.ok()) << path << ": " << stored.status();
  if (!stored.ok()) return {};
  EXPECT_GT(stored->info.created, absl::UnixEpoch());
  stored->info.created = absl::UnixEpoch();
  return codec::WriteCalibration(*stored);
}

TEST(CodecCommandTest, ACalibrationLoadsAndTheSameTextGivesTheSameTransforms) {
  const Calibrations calibrations;
  const Ran made = calibrations.Make("a.kdncal");
  ASSERT_EQ(made.exit_code, 0) << made.output;
  ASSERT_EQ(calibrations.Make("b.kdncal").exit_code, 0);
  const auto files = cli::LoadCalibrations(calibrations.directory());
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 2u) << "no other file is left behind";
  const codec::Calibration& calibration = *files->front().calibration;
  EXPECT_EQ(WithoutTime((*files)[0].path), WithoutTime((*files)[1].path));
  EXPECT_EQ(calibration.geometry(), (codec::Calibration::Geometry{4, 2, 32}));
  EXPECT_THAT(made.output,
              AllOf(HasSubstr(ShortHex(calibration.id())), HasSubstr("base+2"),
                    HasSubstr("kdn codec store")));
  const Ran info =
      Kdn(absl::StrCat("codec info ", calibrations.PathOf("a.kdncal")));
  EXPECT_EQ(info.exit_code, 0) << info.output;
  EXPECT_THAT(info.output, AllOf(HasSubstr(Hex(calibration.id())),
                                 HasSubstr(Hex(calibration.model())),
                                 HasSubstr("4 layers, 2 KV heads of 32"),
                                 HasSubstr("4 of 128 dimensions")));
}

TEST(CodecCommandTest, MistakesAreNamedWithTheRemedy) {
  const Calibrations calibrations;
  std::ofstream(calibrations.PathOf("a.kdncal")) << "of an earlier run";
  const Ran exists = calibrations.Make("a.kdncal");
  EXPECT_EQ(exists.exit_code, 1);
  EXPECT_THAT(exists.output, HasSubstr("--force"));
  const Ran info =
      Kdn(absl::StrCat("codec info ", calibrations.PathOf("a.kdncal")));
  EXPECT_EQ(info.exit_code, 1);
  EXPECT_THAT(info.output, AllOf(HasSubstr("a.kdncal"),
                                 HasSubstr("does not begin with KDNCAL")));
  EXPECT_THAT(calibrations.Make("nowhere/a.kdncal").output,
              HasSubstr("there is no directory"));
  EXPECT_THAT(calibrations.Make("a.calibration").output, HasSubstr(".kdncal"));
  EXPECT_THAT(calibrations.Make("b.kdncal", "--model /nowhere").output,
              HasSubstr("/nowhere/config.json"));
  std::ofstream(calibrations.PathOf("short.txt")) << "Hardly a text.";
  const Ran few = Kdn(absl::StrCat("codec calibrate --text ",
                                   calibrations.PathOf("short.txt"), " -o ",
                                   calibrations.PathOf("c.kdncal")));
  EXPECT_EQ(few.exit_code, 2);
  EXPECT_THAT(few.output, HasSubstr("add text"));
  EXPECT_EQ(calibrations.Make("a.kdncal", "--force").exit_code, 0);
  EXPECT_TRUE(cli::LoadCalibration(calibrations.PathOf("a.kdncal")).ok());
}

// Writes one line to the standard input of `kdn tokenize`.
Ran Tokenize(const std::string& line, const std::string& flags = "") {
  const std::string file =
      absl::StrCat("/tmp/kdn-test-line-", static_cast<int64_t>(getpid()));
  std::ofstream(file) << line << '\n';
  const Ran ran = Kdn(absl::StrCat("tokenize ", flags, " < ", file));
  std::filesystem::remove(file);
  return ran;
}

TEST(TokenizeCommandTest, IdsGiveTheTextBack) {
  const std::string text = R"("<doc> The code of vault elm is 4171.")";
  Ran ids = Tokenize(text);
  EXPECT_EQ(ids.exit_code, 0) << ids.output;
  EXPECT_THAT(ids.output, testing::StartsWith("[1,"));
  ids.output.pop_back();  // the end of the line
  EXPECT_EQ(Tokenize(ids.output, "--decode").output, text + "\n");
}

TEST(TokenizeCommandTest, ALineThatIsNoTextIsNamed) {
  for (const char* line : {"[1]", "no JSON", "\"\xff\""}) {
    const Ran refused = Tokenize(line);
    EXPECT_EQ(refused.exit_code, 2) << line;
    EXPECT_THAT(refused.output, HasSubstr("line 1: expected a JSON string"));
  }
  const Ran refused = Tokenize("[1, \"a\"]", "--decode");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("expected a JSON list of token ids"));
}

// Runs `kdn up` with a new configuration.
class UpTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(directory_);
    const auto file = cli::WriteLocalConfig(directory_, Options());
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *file;
    const auto config = cli::LoadClusterConfig(file_);
    ASSERT_TRUE(config.ok()) << config.status();
    for (const cli::NodeConfig& node : config->nodes) {
      addresses_.push_back(cli::LocalAddressOf(*config, node));
    }
    Up();
  }
  void TearDown() override {
    if (up_ > 0) Stop(SIGKILL);
    std::filesystem::remove_all(directory_);
  }
  virtual cli::LocalClusterOptions Options() const { return {}; }
  void Up() {
    up_ = fork();
    if (up_ == 0) {
      const int log = open(absl::StrCat(directory_, "/up.log").c_str(),
                           O_WRONLY | O_CREAT, 0644);
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
      execl(KDN_BINARY_DIR "/bin/kdn", "kdn", "up", "-c", file_.c_str(),
            nullptr);
      _exit(127);
    }
    ASSERT_GT(up_, 0);
    ASSERT_TRUE(Eventually([&] { return AllLive(); })) << Log();
  }
  int Stop(int signal) {
    int status = 0;
    kill(up_, signal);
    waitpid(up_, &status, 0);
    up_ = 0;
    return status;
  }
  // Whether every node answers and sees all nodes alive.
  bool AllLive() const {
    for (const std::string& address : addresses_) {
      const auto client = rpc::Client::Connect(address);
      if (!client.ok()) return false;
      const auto nodes = (*client)->Status(absl::Seconds(2));
      if (!nodes.ok()) return false;
      for (const NodeStatus& node : *nodes) {
        if (!node.alive) return false;
      }
    }
    return true;
  }
  std::set<pid_t> Nodes() const {
    std::ifstream file(absl::StrCat("/proc/", up_, "/task/", up_, "/children"));
    std::set<pid_t> pids;
    for (pid_t pid; file >> pid;) pids.insert(pid);
    return pids;
  }
  template <typename Condition>
  static bool Eventually(Condition condition) {
    const absl::Time deadline = SteadyNow() + absl::Seconds(60);
    while (SteadyNow() < deadline) {
      if (condition()) return true;
      absl::SleepFor(absl::Milliseconds(20));  // there is no event to wait for
    }
    return false;
  }
  std::string Log() const {
    std::ifstream file(directory_ + "/up.log");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  const std::string directory_ =
      absl::StrCat("/tmp/kdn-test-up-", static_cast<int64_t>(getpid()));
  std::string file_;
  std::vector<std::string> addresses_;
  pid_t up_ = 0;
};

// A chat template writes the special token in front itself.
TEST_F(UpTest, ATextWithItsFrontTokenIsTheSameTextAsWithout) {
  const std::string model = directory_ + "/model";
  std::filesystem::copy(KDN_SOURCE_DIR "/model/recall", model);
  std::ifstream original(model + "/tokenizer.json");
  nlohmann::json tokenizer = nlohmann::json::parse(original);
  tokenizer["post_processor"] = nlohmann::json::parse(R"({
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<doc>"}}, {"Sequence": {"id": "A"}}],
    "special_tokens": {"<doc>": {"ids": [1]}}})");
  std::ofstream(model + "/tokenizer.json") << tokenizer;
  const std::string text = "The code of vault elm is 4171.";
  std::ofstream(directory_ + "/bare.txt") << text;
  std::ofstream(directory_ + "/templated.txt") << "<doc>" << text;
  const auto inject = [&](const std::string& file) {
    return Kdn(absl::StrCat("inject --model ", model, " --connect ",
                            addresses_[0], " ", directory_, "/", file));
  };
  const Ran bare = inject("bare.txt");
  EXPECT_THAT(bare.output, HasSubstr("1 chunks, 1 of them new"));
  const Ran templated = inject("templated.txt");
  EXPECT_THAT(templated.output, HasSubstr("1 chunks, 0 of them new"));
  EXPECT_TRUE(WIFEXITED(Stop(SIGTERM))) << Log();
}

TEST_F(UpTest, KnowledgeInjectedAtOneNodeIsAskedForAtAnother) {
  const Ran injected =
      Kdn(absl::StrCat("inject --connect ", addresses_[0], " ", kFacts));
  EXPECT_EQ(injected.exit_code, 0) << injected.output;
  const Ran asked =
      Kdn(absl::StrCat("ask --connect ", addresses_[1], " -k ", kFacts,
                       " --tokens 1 \"What is the code of vault elm?\""));
  EXPECT_EQ(asked.exit_code, 0) << asked.output;
  EXPECT_THAT(asked.output, HasSubstr("4171"));
  const Ran status =
      Kdn(absl::StrCat("status --connect ", addresses_[2], " --json"));
  EXPECT_EQ(status.exit_code, 0) << status.output;
  for (const char* id : {"n1", "n2", "n3"}) {
    EXPECT_THAT(status.output, HasSubstr(id));
  }
  for (const char* key :
       {"\"metrics\": {", "\"rate.plans\"", "\"retrieve_us\": {", "\"p99\"",
        "\"disk_live_bytes\""}) {
    EXPECT_THAT(status.output, HasSubstr(key));
  }
  const Ran table = Kdn(absl::StrCat("status --connect ", addresses_[2]));
  EXPECT_THAT(table.output, HasSubstr("p50 / p99"));
  EXPECT_TRUE(WIFEXITED(Stop(SIGTERM))) << Log();
  EXPECT_THAT(Log(), HasSubstr("stopping"));
}

class CalibratedUpTest : public UpTest {
 protected:
  void SetUp() override {
    const Ran made = calibrations_.Make("recall.kdncal");
    ASSERT_EQ(made.exit_code, 0) << made.output;
    UpTest::SetUp();
  }
  cli::LocalClusterOptions Options() const override {
    cli::LocalClusterOptions options;
    options.calibrations = calibrations_.directory();
    return options;
  }
  Ran AskForBase() const {
    return Kdn(absl::StrCat("ask --level base --connect ", addresses_[1],
                            " -k ", kFacts,
                            " --tokens 1 \"What is the code of vault elm?\""));
  }

  const Calibrations calibrations_;
};

TEST_F(CalibratedUpTest, NodesCodeWithTheCalibrationAndKeepIt) {
  const Ran injected =
      Kdn(absl::StrCat("inject --level base --durability durable --connect ",
                       addresses_[0], " ", kFacts));
  ASSERT_EQ(injected.exit_code, 0) << injected.output;
  const Ran asked = AskForBase();
  EXPECT_EQ(asked.exit_code, 0) << asked.output;
  EXPECT_THAT(asked.output, AllOf(HasSubstr("delivered by n"),
                                  Not(HasSubstr("prefilled here"))));
  EXPECT_TRUE(WIFEXITED(Stop(SIGTERM))) << Log();

  std::filesystem::remove(calibrations_.PathOf("recall.kdncal"));
  Up();
  const Ran again = AskForBase();
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_THAT(again.output, Not(HasSubstr("prefilled here")));
  EXPECT_TRUE(WIFEXITED(Stop(SIGTERM))) << Log();
}

TEST_F(UpTest, InjectMakesTheCalibrationThatTheClusterLacks) {
  const std::string facts = KDN_SOURCE_DIR "/model/recall/facts";
  // Whoever runs this test may have fetched the standard texts.
  setenv("XDG_CACHE_HOME", "/nowhere", 1);
  const Ran few =
      Kdn(absl::StrCat("inject --level base --connect ", addresses_[0], " ",
                       KDN_SOURCE_DIR, "/.clang-format"));
  EXPECT_EQ(few.exit_code, 0) << few.output;
  EXPECT_THAT(few.output, AllOf(HasSubstr("the built-in calibration is used"),
                                HasSubstr("--calibrate FILE")));
  const std::string inject =
      absl::StrCat("inject --level base --connect ", addresses_[0], " ");
  const Ran without = Kdn(absl::StrCat(inject, "--no-calibrate ", kFacts));
  EXPECT_EQ(without.exit_code, 0) << without.output;
  EXPECT_THAT(without.output, Not(HasSubstr("calibration")));
  const Ran first = Kdn(absl::StrCat(inject, facts));
  EXPECT_EQ(first.exit_code, 0) << first.output;
  EXPECT_THAT(first.output, AllOf(HasSubstr("the cluster has no calibration"),
                                  HasSubstr("is stored on n1, n2, n3")));
  const Ran second = Kdn(absl::StrCat(inject, facts));
  EXPECT_EQ(second.exit_code, 0) << second.output;
  EXPECT_THAT(second.output, Not(HasSubstr("calibration")));
  const Ran status = Kdn(absl::StrCat("status --connect ", addresses_[2]));
  EXPECT_THAT(status.output, AllOf(HasSubstr("of model"), HasSubstr("none")));
  EXPECT_TRUE(WIFEXITED(Stop(SIGTERM))) << Log();
  unsetenv("XDG_CACHE_HOME");
}

TEST_F(UpTest, ANodeThatDiesIsStartedAgain) {
  const std::set<pid_t> before = Nodes();
  ASSERT_EQ(before.size(), addresses_.size());
  kill(*before.begin(), SIGKILL);
  EXPECT_TRUE(Eventually([&] {
    const std::set<pid_t> now = Nodes();
    return now.size() == before.size() && now != before;
  })) << Log();
  EXPECT_TRUE(Eventually([&] { return AllLive(); })) << Log();
  EXPECT_THAT(Log(), HasSubstr("was killed by"));
  EXPECT_TRUE(WIFEXITED(Stop(SIGINT))) << Log();
}

}  // namespace
}  // namespace kdn::integration
