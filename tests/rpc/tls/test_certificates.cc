#include "tests/rpc/tls/test_certificates.h"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "kv/check.h"

namespace kdn::rpc {
namespace {

Validity AroundNow() {
  return {absl::Now() - absl::Hours(1), absl::Now() + absl::Hours(1)};
}

}  // namespace

TestCertificates::TestCertificates() : directory_("/tmp/kdn-tls-XXXXXX") {
  KDN_CHECK(mkdtemp(directory_.data()) != nullptr, "/tmp takes a directory");
  authority_ = MakeAuthority("test", AroundNow()).value();
  WriteFile("ca.pem", authority_.certificate);
}

TestCertificates::~TestCertificates() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

IssuedCertificate TestCertificates::Issue(
    const std::string& name, const std::vector<std::string>& hosts) const {
  return Issue({name, hosts}, AroundNow());
}

IssuedCertificate TestCertificates::Issue(const CertificateSubject& subject,
                                          Validity validity) const {
  return IssueCertificate(authority_, subject, validity).value();
}

TlsFiles TestCertificates::Write(const std::string& name,
                                 const IssuedCertificate& certificate) const {
  return {ca_file(), WriteFile(name + ".pem", certificate.certificate),
          WriteFile(name + ".key", certificate.key)};
}

std::shared_ptr<const TlsCredentials> TestCertificates::Load(
    const std::string& name) const {
  return TlsCredentials::Load(Write(name), absl::Now()).value();
}

std::string TestCertificates::WriteFile(const std::string& name,
                                        const std::string& text) const {
  const std::string path = directory_ + "/" + name;
  std::ofstream(path) << text;
  KDN_CHECK(chmod(path.c_str(), 0600) == 0, "the test owns the file");
  return path;
}

}  // namespace kdn::rpc
