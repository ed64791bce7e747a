#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "rpc/tls/context.h"
#include "rpc/tls/credentials.h"
#include "rpc/tls/openssl.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

// Both ends of a connection.
class SslPair {
 public:
  SslPair(SslContext client, const std::string& host, SslContext server)
      : contexts_{std::move(client), std::move(server)} {
    BIO* ends[2] = {nullptr, nullptr};
    BIO_new_bio_pair(&ends[0], 0, &ends[1], 0);
    for (int i = 0; i < 2; ++i) {
      ends_[i] = SSL_new(contexts_[i].get());
      SSL_set_bio(ends_[i], ends[i], ends[i]);
    }
    SSL_set1_host(ends_[0], host.c_str());
    SSL_set_connect_state(ends_[0]);
    SSL_set_accept_state(ends_[1]);
  }
  ~SslPair() {
    for (SSL* end : ends_) SSL_free(end);
  }
  SslPair(const SslPair&) = delete;
  SslPair& operator=(const SslPair&) = delete;

  bool Handshake() {
    for (int round = 0; round < 10; ++round) {
      const int client = SSL_do_handshake(ends_[0]);
      const int server = SSL_do_handshake(ends_[1]);
      if (client == 1 && server == 1) return true;
    }
    TakeOpensslError();
    return false;
  }
  std::string ClientName() {
    const Owned<X509> shown(SSL_get1_peer_certificate(ends_[1]));
    return shown == nullptr ? "" : CommonNameOf(*shown);
  }

 private:
  SslContext contexts_[2];
  SSL* ends_[2] = {nullptr, nullptr};
};

class HandshakeTest : public testing::Test {
 protected:
  HandshakeTest() : a_(certificates_.Load("a")), b_(certificates_.Load("b")) {}

  // Whether a client that dials `host` and a server accept each other.
  static bool Connects(SslContext client, const std::string& host,
                       SslContext server) {
    return SslPair(std::move(client), host, std::move(server)).Handshake();
  }

  TestCertificates certificates_;
  const std::shared_ptr<const TlsCredentials> a_;
  const std::shared_ptr<const TlsCredentials> b_;
};

TEST_F(HandshakeTest, NodesProveTheirNamesToEachOther) {
  SslPair pair(a_->NewSslContext(), "b", b_->NewSslContext());
  EXPECT_TRUE(pair.Handshake());
  EXPECT_EQ(pair.ClientName(), "a");
}

TEST_F(HandshakeTest, ANodeOfAnotherNameIsRefused) {
  EXPECT_FALSE(Connects(a_->NewSslContext(), "c", b_->NewSslContext()));
}

TEST_F(HandshakeTest, ANodeOfAnotherAuthorityIsRefused) {
  const TestCertificates others;
  const auto a = others.Load("a");
  EXPECT_FALSE(Connects(a->NewSslContext(), "b", b_->NewSslContext()));
  EXPECT_FALSE(Connects(b_->NewSslContext(), "a", a->NewSslContext()));
}

TEST_F(HandshakeTest, APeerWithoutACertificateIsRefused) {
  EXPECT_FALSE(Connects(*EngineContext(certificates_.ca_file()), "b",
                        b_->NewSslContext()));
}

TEST_F(HandshakeTest, AnEngineVerifiesTheHostThatItDials) {
  for (const char* host : {"b", "localhost"}) {
    SslPair pair(*EngineContext(certificates_.ca_file()), host,
                 GatewayContext(*b_));
    EXPECT_TRUE(pair.Handshake()) << host;
    EXPECT_EQ(pair.ClientName(), "");
  }
  EXPECT_FALSE(Connects(*EngineContext(certificates_.ca_file()), "elsewhere",
                        GatewayContext(*b_)));
}

TEST_F(HandshakeTest, AnEngineTrustsEveryAuthorityInItsFile) {
  const TestCertificates others;
  const std::string both = certificates_.WriteFile(
      "both.pem",
      others.authority().certificate + certificates_.authority().certificate);
  EXPECT_TRUE(Connects(*EngineContext(both), "b", GatewayContext(*b_)));
  EXPECT_FALSE(
      Connects(*EngineContext(others.ca_file()), "b", GatewayContext(*b_)));
}

// An authority, which `issuer` signs, or itself if `issuer` is null.
IssuedCertificate MakeAuthorityBelow(const IssuedCertificate* issuer,
                                     const std::string& name) {
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const Owned<X509> certificate(X509_new());
  X509* const made = certificate.get();
  X509_set_version(made, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made), issuer == nullptr ? 1 : 2);
  X509_gmtime_adj(X509_getm_notBefore(made), -60);
  X509_gmtime_adj(X509_getm_notAfter(made), 3600);
  X509_set_pubkey(made, key.get());
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(made), "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_EXTENSION* const extension = X509V3_EXT_nconf_nid(
      nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
  X509_add_ext(made, extension, -1);
  X509_EXTENSION_free(extension);
  if (issuer == nullptr) {
    X509_set_issuer_name(made, X509_get_subject_name(made));
    X509_sign(made, key.get(), EVP_sha256());
  } else {
    const auto above = ParseCertificates(issuer->certificate).value();
    X509_set_issuer_name(made, X509_get_subject_name(above.front().get()));
    X509_sign(made, ParseKey(issuer->key).value().get(), EVP_sha256());
  }
  return {ToPem(*made), ToPem(*key)};
}

// As companies have it: the root signs an authority, which signs the nodes.
TEST_F(HandshakeTest, ANodeShowsTheAuthoritiesBelowTheRoot) {
  const IssuedCertificate root = MakeAuthorityBelow(nullptr, "root");
  const IssuedCertificate middle = MakeAuthorityBelow(&root, "middle");
  certificates_.WriteFile("ca.pem", root.certificate);
  const auto load = [&](const std::string& name) {
    IssuedCertificate issued =
        IssueCertificate(middle, {name, {}},
                         {absl::Now(), absl::Now() + absl::Hours(1)})
            .value();
    issued.certificate += middle.certificate;
    return TlsCredentials::Load(certificates_.Write(name, issued), absl::Now())
        .value();
  };
  const auto a = load("a");
  const auto b = load("b");
  EXPECT_TRUE(Connects(a->NewSslContext(), "b", b->NewSslContext()));
  EXPECT_TRUE(Connects(*EngineContext(certificates_.ca_file()), "b",
                       GatewayContext(*b)));
}

}  // namespace
}  // namespace kdn::rpc
