#include "rpc/tls/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/time/clock.h"
#include "rpc/tls/context.h"
#include "rpc/tls/openssl.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

using testing::HasSubstr;

class CredentialsTest : public testing::Test {
 protected:
  absl::Status Load(const TlsFiles& files, absl::Time now = absl::Now()) {
    return TlsCredentials::Load(files, now).status();
  }
  void ExpectError(const absl::Status& status, absl::StatusCode code,
                   const std::string& part) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
  void ExpectInvalid(const TlsFiles& files, const std::string& part) {
    ExpectError(Load(files), absl::StatusCode::kInvalidArgument, part);
  }

  TestCertificates certificates_;
};

TEST_F(CredentialsTest, ANodeHasTheNameAndTheEndOfItsCertificate) {
  const absl::Time end =
      absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) + 60);
  const TlsFiles files = certificates_.Write(
      "n1", certificates_.Issue({"n1", {}}, {absl::Now(), end}));
  const auto credentials = TlsCredentials::Load(files, absl::Now());
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_EQ((*credentials)->name(), "n1");
  EXPECT_EQ((*credentials)->expires(), end);
}

TEST_F(CredentialsTest, ItExpiresWithTheFirstCertificateOfItsChain) {
  const absl::Time end =
      absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) + 60);
  const IssuedCertificate soon =
      MakeAuthority("test", {absl::Now() - absl::Hours(1), end}).value();
  const TlsFiles files = certificates_.Write(
      "n1", IssueCertificate(soon, {"n1", {}},
                             {absl::Now(), absl::Now() + absl::Hours(9)})
                .value());
  certificates_.WriteFile("ca.pem", soon.certificate);
  EXPECT_EQ(TlsCredentials::Load(files, absl::Now()).value()->expires(), end);
}

TEST_F(CredentialsTest, AFileThatIsMissingIsNamedWithTheCommandThatMakesIt) {
  TlsFiles files = certificates_.Write("n1");
  unlink(files.certificate.c_str());
  ExpectError(Load(files), absl::StatusCode::kNotFound,
              "certificate " + files.certificate);
  ExpectError(Load(files), absl::StatusCode::kNotFound, "kdn certs");
  files = certificates_.Write("n1");
  unlink(files.key.c_str());
  ExpectError(Load(files), absl::StatusCode::kNotFound, "key " + files.key);
  files = certificates_.Write("n1");
  unlink(files.ca.c_str());
  ExpectError(Load(files), absl::StatusCode::kNotFound, "ca " + files.ca);
}

TEST_F(CredentialsTest, AKeyThatEveryUserMayReadIsRefused) {
  const TlsFiles files = certificates_.Write("n1");
  for (const mode_t mode : {0604, 0644, 0602}) {
    chmod(files.key.c_str(), mode);
    ExpectError(Load(files), absl::StatusCode::kPermissionDenied,
                "chmod 600 " + files.key);
  }
  // A Kubernetes secret with an fsGroup has these modes.
  for (const mode_t mode : {0400, 0440, 0600, 0640}) {
    chmod(files.key.c_str(), mode);
    EXPECT_TRUE(Load(files).ok()) << Load(files);
  }
}

TEST_F(CredentialsTest, AFifoInsteadOfAFileDoesNotBlock) {
  const TlsFiles files = certificates_.Write("n1");
  unlink(files.certificate.c_str());
  ASSERT_EQ(mkfifo(files.certificate.c_str(), 0600), 0);
  ExpectInvalid(files, "expected a regular file");
}

TEST_F(CredentialsTest, AFileThatIsNotPemIsRefused) {
  const std::string good = certificates_.Issue("n1").certificate;
  const std::string damaged = good.substr(0, 60) + "!!" + good.substr(62);
  for (const std::string& text :
       {std::string("hello"), std::string(), damaged, good.substr(0, 200),
        std::string(2 << 20, 'x')}) {
    TlsFiles files = certificates_.Write("n1");
    certificates_.WriteFile("n1.pem", text);
    ExpectInvalid(files, "certificate " + files.certificate);
    files = certificates_.Write("n1");
    certificates_.WriteFile("n1.key", text);
    ExpectInvalid(files, "key " + files.key);
    files = certificates_.Write("n1");
    certificates_.WriteFile("ca.pem", text);
    ExpectInvalid(files, "ca " + files.ca);
    certificates_.WriteFile("ca.pem", certificates_.authority().certificate);
  }
}

constexpr char kKeyWithPassphrase[] = R"(-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhK0vDgb4/1HAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEDzTf9UihNN77/QMiBr0JTIEgZAz
QyQ1OA7v/3b998MOp/kFlPeiYJCNj7fm+eBBJWTQ7CPK07+ISzZDE0qAIMGJSYiP
pOmaF4pHbQUXlmZtYzTuNoZcDOHNLZCSKKSQ/DceOwDF1fWmx2fGh3x71j9wFHxZ
d5bxI6/BcjiLC91Of0W0LhvVade0xwxRVoVj+B6T68kMj6VWssuqVvZNIDMK+Lk=
-----END ENCRYPTED PRIVATE KEY-----
)";

TEST_F(CredentialsTest, AKeyWithAPassphraseIsRefusedAndNobodyIsAsked) {
  const TlsFiles files = certificates_.Write("n1");
  certificates_.WriteFile("n1.key", kKeyWithPassphrase);
  ExpectInvalid(files, "a passphrase protects the key");
}

TEST_F(CredentialsTest, TheKeyMustBeTheCertificates) {
  const TlsFiles files = certificates_.Write("n1");
  certificates_.WriteFile("n1.key", certificates_.Issue("n1").key);
  ExpectInvalid(files, "it is not the key of the certificate");
}

TEST_F(CredentialsTest, TheAuthorityMustHaveSignedTheCertificate) {
  const TestCertificates others;
  ExpectInvalid(certificates_.Write("n1", others.Issue("n1")),
                "no certificate in " + certificates_.ca_file());
  // A certificate that a node's key has signed.
  const IssuedCertificate itself =
      MakeAuthority("n1", {absl::Now(), absl::Now() + absl::Hours(1)}).value();
  EXPECT_FALSE(Load(certificates_.Write("n1", itself)).ok());
}

TEST_F(CredentialsTest, OneOfSeveralAuthoritiesIsEnough) {
  const TestCertificates others;
  const TlsFiles files = certificates_.Write("n1", others.Issue("n1"));
  certificates_.WriteFile("ca.pem", certificates_.authority().certificate +
                                        others.authority().certificate);
  EXPECT_TRUE(Load(files).ok()) << Load(files);
}

TEST_F(CredentialsTest, AnAuthorityMayBeInTheFileTwice) {
  const std::string& authority = certificates_.authority().certificate;
  const TlsFiles files = certificates_.Write("n1");
  certificates_.WriteFile("ca.pem", authority + authority);
  const auto credentials = TlsCredentials::Load(files, absl::Now());
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  (*credentials)->NewSslContext();
}

// The certificate and key of n1, with another key and name.
IssuedCertificate Changed(const TestCertificates& certificates,
                          EVP_PKEY& new_key, const std::string& new_name) {
  const auto parsed =
      ParseCertificates(certificates.Issue("n1").certificate).value();
  X509* const certificate = parsed.front().get();
  X509_set_pubkey(certificate, &new_key);
  X509_NAME* const subject = X509_get_subject_name(certificate);
  X509_NAME_ENTRY_free(X509_NAME_delete_entry(subject, 0));
  if (!new_name.empty()) {
    X509_NAME_add_entry_by_txt(
        subject, "CN", MBSTRING_ASC,
        reinterpret_cast<const unsigned char*>(new_name.c_str()), -1, -1, 0);
  }
  X509_sign(certificate, ParseKey(certificates.authority().key).value().get(),
            EVP_sha256());
  return {ToPem(*certificate), ToPem(new_key)};
}

TEST_F(CredentialsTest, AKeyThatOpensslTakesForTooWeakIsRefused) {
  const Owned<EVP_PKEY> weak(EVP_RSA_gen(1024));
  ExpectInvalid(certificates_.Write("n1", Changed(certificates_, *weak, "n1")),
                "key too weak");
}

TEST_F(CredentialsTest, TheNameMustBeTheCommonNameAndADnsName) {
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  EXPECT_TRUE(
      Load(certificates_.Write("n1", Changed(certificates_, *key, "n1"))).ok());
  ExpectInvalid(certificates_.Write("n1", Changed(certificates_, *key, "")),
                "it has no common name");
  ExpectInvalid(certificates_.Write("n1", Changed(certificates_, *key, "n2")),
                "its common name is n2, and none of its DNS names is");
}

TEST_F(CredentialsTest, ACertificateIsValidFromItsBeginToItsEnd) {
  const absl::Time now = absl::Now();
  const TlsFiles files = certificates_.Write(
      "n1", certificates_.Issue(
                {"n1", {}}, {now - absl::Minutes(1), now + absl::Minutes(1)}));
  EXPECT_TRUE(Load(files, now).ok());
  const absl::Status late = Load(files, now + absl::Minutes(2));
  ExpectError(late, absl::StatusCode::kInvalidArgument, "n1 ended at");
  ExpectError(late, absl::StatusCode::kInvalidArgument, "kdn certs --renew");
  ExpectError(Load(files, now - absl::Minutes(2)),
              absl::StatusCode::kInvalidArgument, "n1 begins at");
  ExpectError(Load(files, now + absl::Hours(2)),
              absl::StatusCode::kInvalidArgument, "test ended at");
}

TEST_F(CredentialsTest, AnEngineNeedsAnAuthorityThatCanBeRead) {
  EXPECT_TRUE(EngineContext(certificates_.ca_file()).ok());
  EXPECT_EQ(EngineContext("/nowhere/ca.pem").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(
      EngineContext(certificates_.WriteFile("no.pem", "no")).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kdn::rpc
