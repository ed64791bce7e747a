#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <string>

#include "rpc/tls/credentials.h"
#include "rpc/tls/openssl.h"
#include "tests/rpc/tls/test_certificates.h"

namespace kdn::rpc {
namespace {

// The ends of a connection on which a byte went both ways.
struct Ends {
  std::string client_name;  // empty: the client showed no certificate
  std::string error;        // empty: the handshake succeeded
};

class HandshakeTest : public testing::Test {
 protected:
  // Connects `client`, which dials `host`, with `server`.
  Ends Connect(kj::TlsContext& client, const char* host,
               kj::TlsContext& server) {
    Ends ends;
    auto io = kj::setupAsyncIo();
    const auto error = kj::runCatchingExceptions([&] {
      auto pipe = io.provider->newTwoWayPipe();
      auto dialled = client.wrapClient(kj::mv(pipe.ends[0]), host)
                         .then([](kj::Own<kj::AsyncIoStream> stream) {
                           return Exchange(kj::mv(stream));
                         })
                         .eagerlyEvaluate(nullptr);
      auto accepted =
          server.wrapServer(Unauthenticated(pipe.ends[1])).wait(io.waitScope);
      ends.client_name = NameOf(*accepted.peerIdentity);
      Exchange(kj::mv(accepted.stream)).wait(io.waitScope);
      dialled.wait(io.waitScope);
    });
    KJ_IF_MAYBE (exception, error) {
      ends.error = exception->getDescription().cStr();
      if (ends.error.empty()) ends.error = "failed";
    }
    return ends;
  }

  static kj::AuthenticatedStream Unauthenticated(
      kj::Own<kj::AsyncIoStream>& stream) {
    return {kj::mv(stream), kj::UnknownPeerIdentity::newInstance()};
  }
  static std::string NameOf(kj::PeerIdentity& identity) {
    auto& peer = kj::downcast<kj::TlsPeerIdentity>(identity);
    return peer.hasCertificate() ? peer.getCommonName().cStr() : "";
  }
  static kj::Promise<void> Exchange(kj::Own<kj::AsyncIoStream> stream) {
    static constexpr char kByte = 'k';
    auto buffer = kj::heapArray<char>(1);
    auto& open = *stream;
    kj::ArrayPtr<char> read = buffer;
    return open.write(&kByte, 1)
        .then([&open, read]() mutable {
          return open.read(read.begin(), read.size());
        })
        .attach(kj::mv(buffer), kj::mv(stream));
  }

  TestCertificates certificates_;
};

TEST_F(HandshakeTest, NodesProveTheirNamesToEachOther) {
  const auto a = certificates_.Load("a");
  const auto b = certificates_.Load("b");
  const Ends ends = Connect(*a->NewPeerContext(), "b", *b->NewPeerContext());
  EXPECT_EQ(ends.error, "");
  EXPECT_EQ(ends.client_name, "a");
}

TEST_F(HandshakeTest, ANodeOfAnotherNameIsRefused) {
  const auto a = certificates_.Load("a");
  const auto b = certificates_.Load("b");
  EXPECT_NE(Connect(*a->NewPeerContext(), "c", *b->NewPeerContext()).error, "");
}

TEST_F(HandshakeTest, ANodeOfAnotherAuthorityIsRefused) {
  const TestCertificates others;
  const auto a = others.Load("a");
  const auto b = certificates_.Load("b");
  EXPECT_NE(Connect(*a->NewPeerContext(), "b", *b->NewPeerContext()).error, "");
  EXPECT_NE(Connect(*b->NewPeerContext(), "a", *a->NewPeerContext()).error, "");
}

TEST_F(HandshakeTest, APeerWithoutACertificateIsRefused) {
  const auto b = certificates_.Load("b");
  auto stranger = NewEngineContext(certificates_.ca_file()).value();
  EXPECT_NE(Connect(*stranger, "b", *b->NewPeerContext()).error, "");
}

TEST_F(HandshakeTest, AnEngineVerifiesTheHostThatItDials) {
  const auto b = certificates_.Load("b");
  auto engine = NewEngineContext(certificates_.ca_file()).value();
  for (const char* host : {"b", "localhost", "127.0.0.1", "::1"}) {
    const Ends ends = Connect(*engine, host, *b->NewGatewayContext());
    EXPECT_EQ(ends.error, "") << host;
    EXPECT_EQ(ends.client_name, "");
  }
  EXPECT_NE(Connect(*engine, "10.0.0.1", *b->NewGatewayContext()).error, "");
}

TEST_F(HandshakeTest, AnEngineTrustsEveryAuthorityInItsFile) {
  const TestCertificates others;
  const auto b = certificates_.Load("b");
  const std::string both = certificates_.WriteFile(
      "both.pem",
      others.authority().certificate + certificates_.authority().certificate);
  EXPECT_EQ(
      Connect(*NewEngineContext(both).value(), "b", *b->NewGatewayContext())
          .error,
      "");
  EXPECT_NE(Connect(*NewEngineContext(others.ca_file()).value(), "b",
                    *b->NewGatewayContext())
                .error,
            "");
}

// Both ends of a connection over OpenSSL's own contexts.
class SslPair {
 public:
  SslPair(const TlsCredentials& client, const std::string& host,
          const TlsCredentials& server)
      : contexts_{client.NewSslContext(), server.NewSslContext()} {
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
  TlsCredentials::SslContext contexts_[2];
  SSL* ends_[2] = {nullptr, nullptr};
};

TEST_F(HandshakeTest, OpensslsOwnContextProvesNamesToo) {
  const auto a = certificates_.Load("a");
  const auto b = certificates_.Load("b");
  SslPair pair(*a, "b", *b);
  EXPECT_TRUE(pair.Handshake());
  EXPECT_EQ(pair.ClientName(), "a");
  EXPECT_FALSE(SslPair(*a, "c", *b).Handshake());
  const TestCertificates others;
  EXPECT_FALSE(SslPair(*others.Load("a"), "b", *b).Handshake());
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
  EXPECT_EQ(Connect(*a->NewPeerContext(), "b", *b->NewPeerContext()).error, "");
  EXPECT_TRUE(SslPair(*a, "b", *b).Handshake());
  auto engine = NewEngineContext(certificates_.ca_file()).value();
  EXPECT_EQ(Connect(*engine, "b", *b->NewGatewayContext()).error, "");
}

}  // namespace
}  // namespace kdn::rpc
