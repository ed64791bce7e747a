#include "cli/certificates.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "rpc/tls/credentials.h"
#include "rpc/tls/issue.h"
#include "rpc/tls/openssl.h"
#include "rpc/tls/pem_file.h"
#include "storage/new_file.h"

namespace kdn::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kAuthorityLifetime = absl::Hours(24 * 3650);
// The clocks of hosts may differ by this much.
constexpr absl::Duration kClockSkew = absl::Hours(1);

// The files that begin with `front`: a certificate and its key.
struct Pair {
  std::string certificate;
  std::string key;
  bool has_certificate = false;
  bool has_key = false;

  bool has_both() const { return has_certificate && has_key; }
  bool has_one() const { return has_certificate != has_key; }
};

// True for a link too, wherever it points.
bool IsThere(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0;
}

Pair PairAt(const std::string& directory, const std::string& front) {
  Pair pair;
  pair.certificate = absl::StrCat(directory, "/", front, ".pem");
  pair.key = absl::StrCat(directory, "/", front, ".key");
  pair.has_certificate = IsThere(pair.certificate);
  pair.has_key = IsThere(pair.key);
  return pair;
}

absl::Status Errno(const std::string& what, const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

// Makes the directory, and locks it until the descriptor is closed.
absl::StatusOr<int> OpenDirectory(const std::string& path) {
  std::error_code error;
  const fs::path parent = fs::path(path).parent_path();
  if (!parent.empty()) fs::create_directories(parent, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "cannot make the directory ", parent.string(), ": ", error.message()));
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Errno("cannot make the directory", path);
  }
  const int directory = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return Errno("cannot open the directory", path);
  if (flock(directory, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(directory);
    return absl::UnavailableError(absl::StrCat(
        "another process makes certificates in ", path, " at this moment"));
  }
  return directory;
}

// Both files are on disk before the first of them gets its name.
absl::Status WritePair(const Pair& pair, const rpc::IssuedCertificate& issued) {
  absl::StatusOr<storage::NewFile> key =
      storage::NewFile::Write(pair.key, issued.key, 0600);
  if (!key.ok()) return key.status();
  absl::StatusOr<storage::NewFile> certificate =
      storage::NewFile::Write(pair.certificate, issued.certificate);
  if (!certificate.ok()) return certificate.status();
  if (absl::Status s = key->Commit(); !s.ok()) return s;
  return certificate->Commit();
}

absl::Status CheckAuthorityFiles(const Pair& files) {
  if (files.has_key && !files.has_certificate) {
    return absl::FailedPreconditionError(
        absl::StrCat(files.key, " is there, but ", files.certificate,
                     " is not: copy it back from a node, or remove ", files.key,
                     " to make a new authority"));
  }
  return absl::OkStatus();
}

std::string AuthorityName(const ClusterConfig& config) {
  const std::string& name = config.name;
  const bool fits =
      name.size() <= 60 &&  // a certificate has at most 64 bytes of name
      std::all_of(name.begin(), name.end(), absl::ascii_isprint);
  return fits ? absl::StrCat("KDN ", name) : "KDN";
}

// Makes certificates in one directory, which is locked.
class Maker {
 public:
  Maker(const ClusterConfig& config, const CertificateOptions& options,
        absl::Time now)
      : config_(config),
        options_(options),
        now_(now),
        authority_files_(PairAt(options.directory, "ca")) {
    for (const NodeConfig& node : config.nodes) {
      pairs_.push_back(PairAt(options.directory, node.id.name()));
    }
  }

  absl::StatusOr<CertificateReport> Run() {
    if (absl::Status s = Check(); !s.ok()) return s;
    if (absl::Status s = GetAuthority(); !s.ok()) return s;
    CertificateReport report;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (!IsWanted(pairs_[i])) continue;
      if (absl::Status s = Issue(config_.nodes[i], pairs_[i]); !s.ok()) {
        return s;
      }
    }
    report.authority = AuthorityState();
    for (size_t i = 0; i < pairs_.size(); ++i) {
      report.nodes.push_back(StateOf(config_.nodes[i], pairs_[i]));
    }
    return report;
  }

 private:
  bool IsWanted(const Pair& pair) const {
    return options_.renew || !pair.has_both();
  }

  // Finds what is wrong before anything is written.
  absl::Status Check() const {
    for (const NodeConfig& node : config_.nodes) {
      if (absl::Status s = CheckCertificateName(node.id); !s.ok()) return s;
    }
    for (const Pair& pair : pairs_) {
      if (options_.renew || !pair.has_one()) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          pair.has_key ? pair.key : pair.certificate, " is there without ",
          pair.has_key ? pair.certificate : pair.key,
          ": copy the other file back, or use --renew to replace both"));
    }
    return CheckAuthorityFiles(authority_files_);
  }

  absl::Status GetAuthority() {
    if (!authority_files_.has_certificate) return NewAuthority();
    if (std::none_of(pairs_.begin(), pairs_.end(),
                     [this](const Pair& pair) { return IsWanted(pair); })) {
      return absl::OkStatus();
    }
    if (!authority_files_.has_key) {
      return absl::FailedPreconditionError(absl::StrCat(
          authority_files_.certificate, " is there, but ", authority_files_.key,
          " is not, which signs certificates: run this where the key is, or "
          "name another directory with -o to begin with a new authority"));
    }
    return ReadAuthority();
  }
  absl::Status ReadAuthority() {
    absl::StatusOr<std::string> certificate = rpc::ReadPemFile(
        authority_files_.certificate, rpc::FileAccess::kAnybody);
    if (!certificate.ok()) return certificate.status();
    absl::StatusOr<std::string> key =
        rpc::ReadPemFile(authority_files_.key, rpc::FileAccess::kOwnerAndGroup);
    if (!key.ok()) return key.status();
    authority_ = {*std::move(certificate), *std::move(key)};
    return absl::OkStatus();
  }
  absl::Status NewAuthority() {
    absl::StatusOr<rpc::IssuedCertificate> made = rpc::MakeAuthority(
        AuthorityName(config_), {now_ - kClockSkew, now_ + kAuthorityLifetime});
    if (!made.ok()) return made.status();
    authority_ = *std::move(made);
    authority_is_new_ = true;
    return WritePair(authority_files_, authority_);
  }

  absl::Status Issue(const NodeConfig& node, const Pair& pair) const {
    const absl::StatusOr<rpc::IssuedCertificate> issued = rpc::IssueCertificate(
        authority_, {node.id.name(), HostsOf(node, options_.hosts)},
        {now_ - kClockSkew, now_ + options_.lifetime});
    if (issued.ok()) return WritePair(pair, *issued);
    return absl::Status(
        issued.status().code(),
        absl::StrCat("authority ", authority_files_.certificate, ", node ",
                     node.id.name(), ": ", issued.status().message()));
  }

  CertificateState AuthorityState() const {
    CertificateState state;
    state.name = AuthorityName(config_);
    state.certificate = authority_files_.certificate;
    state.key = authority_files_.key;
    state.written = authority_is_new_;
    const absl::StatusOr<std::string> text =
        rpc::ReadPemFile(state.certificate, rpc::FileAccess::kAnybody);
    const auto parsed =
        text.ok() ? rpc::ParseCertificates(*text) : text.status();
    if (parsed.ok()) {
      state.name = rpc::CommonNameOf(*parsed->front());
      state.end = rpc::EndOf(*parsed->front());
    } else {
      state.problem = std::string(parsed.status().message());
    }
    return state;
  }

  // Reads the files as a node reads them.
  CertificateState StateOf(const NodeConfig& node, const Pair& pair) const {
    CertificateState state;
    state.name = node.id.name();
    state.certificate = pair.certificate;
    state.key = pair.key;
    state.written = IsWanted(pair);
    const auto loaded = rpc::TlsCredentials::Load(
        {authority_files_.certificate, pair.certificate, pair.key}, now_);
    if (!loaded.ok()) {
      state.problem = std::string(loaded.status().message());
    } else if ((*loaded)->name() != state.name) {
      state.problem =
          absl::StrCat("it is the certificate of ", (*loaded)->name());
    } else {
      state.end = (*loaded)->expires();
      state.problem = MissingNames(node, pair);
    }
    return state;
  }
  std::string MissingNames(const NodeConfig& node, const Pair& pair) const {
    const absl::StatusOr<std::string> text =
        rpc::ReadPemFile(pair.certificate, rpc::FileAccess::kAnybody);
    if (!text.ok()) return std::string(text.status().message());
    const auto parsed = rpc::ParseCertificates(*text);
    if (!parsed.ok()) return std::string(parsed.status().message());
    std::vector<std::string> missing;
    for (const std::string& host : HostsOf(node, options_.hosts)) {
      if (X509_check_host(parsed->front().get(), host.data(), host.size(), 0,
                          nullptr) != 1) {
        missing.push_back(host);
      }
    }
    return missing.empty() ? ""
                           : absl::StrCat("the certificate lacks the names ",
                                          absl::StrJoin(missing, ", "));
  }

  const ClusterConfig& config_;
  const CertificateOptions& options_;
  const absl::Time now_;
  const Pair authority_files_;
  std::vector<Pair> pairs_;           // by node
  rpc::IssuedCertificate authority_;  // empty if there is nothing to sign
  bool authority_is_new_ = false;
};

}  // namespace

std::vector<std::string> HostsOf(const NodeConfig& node,
                                 const std::vector<std::string>& hosts) {
  std::vector<std::string> all = {node.host};
  const bool every_interface = node.listen == "0.0.0.0" || node.listen == "::";
  if (!node.listen.empty() && !every_interface) all.push_back(node.listen);
  all.insert(all.end(), hosts.begin(), hosts.end());
  // Engines of the same host may dial these.
  for (const char* loopback : {"localhost", "127.0.0.1", "::1"}) {
    all.emplace_back(loopback);
  }
  return all;
}

absl::StatusOr<CertificateReport> MakeCertificates(
    const ClusterConfig& config, const CertificateOptions& options,
    absl::Time now) {
  const absl::StatusOr<int> directory = OpenDirectory(options.directory);
  if (!directory.ok()) return directory.status();
  const absl::Cleanup closes = [&directory] { close(*directory); };
  return Maker(config, options, now).Run();
}

}  // namespace kdn::cli
