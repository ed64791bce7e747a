#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/certificates.h"
#include "cli/commands.h"
#include "cli/config.h"

namespace kdn::cli {
namespace {

constexpr int kDaysMax = 3650;  // the authority ends after as many

struct Flags {
  std::string config;
  int days = 730;
  CertificateOptions options;
};

void PrintState(const char* what, const CertificateState& state) {
  std::printf("%s %s %s and %s", state.written ? "wrote" : "kept ", what,
              state.certificate.c_str(), state.key.c_str());
  if (state.problem.empty()) {
    std::printf(
        ", valid until %s",
        absl::FormatTime("%Y-%m-%d", state.end, absl::UTCTimeZone()).c_str());
  }
  std::printf("\n");
}

// What to do with the files.
void PrintNext(const ClusterConfig& config, const std::string& directory) {
  if (!config.security.has_certificates()) {
    std::printf(
        "\nAdd this to the configuration of every host:\n\n"
        "security:\n  certificates: %s\n",
        directory.c_str());
  }
  std::printf("\nCopy to that directory of each host:\n\n");
  for (const NodeConfig& node : config.nodes) {
    const char* const id = node.id.name().c_str();
    std::printf("  %s: ca.pem %s.pem %s.key\n", node.host.c_str(), id, id);
  }
  std::printf(
      "\nEngines that connect over TCP need ca.pem. ca.key belongs on no host "
      "of a node:\nwhoever has it can make certificates that the cluster "
      "trusts.\n");
}

absl::Status MakeAll(Flags& flags) {
  const absl::StatusOr<ClusterConfig> config = LoadClusterConfig(flags.config);
  if (!config.ok()) return config.status();
  CertificateOptions& options = flags.options;
  if (options.directory.empty()) {
    options.directory = config->security.certificates;
  }
  if (options.directory.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("-o DIR is missing, and ", flags.config,
                     " names no directory as security.certificates"));
  }
  options.lifetime = absl::Hours(24) * flags.days;
  const absl::StatusOr<CertificateReport> report =
      MakeCertificates(*config, options, absl::Now());
  if (!report.ok()) return report.status();
  std::string problems;
  PrintState("authority", report->authority);
  for (const CertificateState& node : report->nodes) {
    PrintState("node     ", node);
    if (node.problem.empty()) continue;
    absl::StrAppend(&problems, problems.empty() ? "" : "\nkdn: ", node.name,
                    ": ", node.problem,
                    "; --renew makes a new certificate and key");
  }
  PrintNext(*config, options.directory);
  std::fflush(stdout);
  return problems.empty() ? absl::OkStatus()
                          : absl::FailedPreconditionError(problems);
}

}  // namespace

void AddCertsCommand(CLI::App& app, Program& program) {
  CLI::App* command = app.add_subcommand(
      "certs",
      "Make the certificates with which nodes prove who they are\n\n"
      "  kdn certs -c cluster.yaml -o certs\n"
      "  kdn certs -c cluster.yaml -o certs --renew\n\n"
      "Makes an authority in the directory (ca.pem, ca.key; ten years) if "
      "there "
      "is none, and for each node of the configuration that has none a "
      "certificate and a private key (NODE.pem, NODE.key). A certificate has "
      "the node's id, its `host` and `listen`, and the loopback addresses.\n\n"
      "Copy ca.pem, NODE.pem and NODE.key to the host of each node, and add "
      "`security: {certificates: DIR}` to the configuration. Then nodes talk "
      "only to nodes of the same authority, and engines over TCP verify the "
      "node with ca.pem. Keep ca.key away from the nodes: whoever has it can "
      "make certificates that the cluster trusts.\n\n"
      "Nothing that is there is overwritten. --renew replaces the nodes' "
      "certificates and keys, never the authority; nodes read the new ones at "
      "their next start, so restart them one after the other.");
  auto flags = std::make_shared<Flags>();
  command
      ->add_option("-c,--config", flags->config, "configuration of the cluster")
      ->required();
  command->add_option("-o,--out", flags->options.directory,
                      "directory of the files; default: security.certificates "
                      "of the configuration");
  command
      ->add_option("--days", flags->days,
                   "days until the certificates of nodes end")
      ->check(CLI::Range(1, kDaysMax))
      ->capture_default_str();
  command->add_option("--host", flags->options.hosts,
                      "further name or address at which engines dial nodes, "
                      "such as the name of a load balancer; may be repeated");
  command->add_flag("--renew", flags->options.renew,
                    "replace the certificates and keys of all nodes");
  command->callback(
      [&program, flags] { program.exit_code = Report(MakeAll(*flags)); });
}

}  // namespace kdn::cli
