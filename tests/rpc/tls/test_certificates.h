#ifndef KDN_TESTS_RPC_TLS_TEST_CERTIFICATES_H_
#define KDN_TESTS_RPC_TLS_TEST_CERTIFICATES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "rpc/tls/credentials.h"
#include "rpc/tls/issue.h"

namespace kdn::rpc {

// An authority, and a directory for the files of the nodes that it signs. The
// destructor removes the directory. Failures abort.
class TestCertificates {
 public:
  TestCertificates();
  ~TestCertificates();
  TestCertificates(const TestCertificates&) = delete;
  TestCertificates& operator=(const TestCertificates&) = delete;

  // A certificate for a node that is valid from an hour ago to in an hour.
  IssuedCertificate Issue(const std::string& name,
                          const std::vector<std::string>& hosts = {
                              "localhost", "127.0.0.1", "::1"}) const;
  IssuedCertificate Issue(const CertificateSubject& subject,
                          Validity validity) const;

  // Writes NAME.pem and NAME.key, and the authority's ca.pem.
  TlsFiles Write(const std::string& name,
                 const IssuedCertificate& certificate) const;
  TlsFiles Write(const std::string& name) const {
    return Write(name, Issue(name));
  }
  std::shared_ptr<const TlsCredentials> Load(const std::string& name) const;

  const IssuedCertificate& authority() const { return authority_; }
  const std::string& directory() const { return directory_; }
  std::string ca_file() const { return directory_ + "/ca.pem"; }
  // The path of the file with this text, mode 0600.
  std::string WriteFile(const std::string& name, const std::string& text) const;

 private:
  std::string directory_;
  IssuedCertificate authority_;
};

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_TLS_TEST_CERTIFICATES_H_
