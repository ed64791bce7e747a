#include "rpc/tls/credentials.h"

#include <openssl/err.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kv/check.h"
#include "rpc/tls/openssl.h"
#include "rpc/tls/pem_file.h"

namespace kdn::rpc {
namespace {

// Of one chain.
constexpr size_t kChainMax = 10;
constexpr char kMake[] =
    "`kdn certs -c FILE -o DIR` makes certificates for the nodes of FILE";
constexpr char kRenew[] = "renew it (`kdn certs --renew`)";

absl::Status InFile(const std::string& what, const std::string& path,
                    const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(what, " ", path, ": ", status.message()));
}

absl::StatusOr<std::string> ReadText(const std::string& what,
                                     const std::string& path,
                                     FileAccess allowed) {
  absl::StatusOr<std::string> text = ReadPemFile(path, allowed);
  if (text.ok()) return text;
  const std::string hint =
      absl::IsNotFound(text.status()) ? absl::StrCat("; ", kMake) : "";
  return absl::Status(text.status().code(),
                      absl::StrCat(what, " ", text.status().message(), hint));
}

absl::StatusOr<std::vector<Owned<X509>>> ReadCertificates(
    const std::string& what, const std::string& path) {
  const absl::StatusOr<std::string> text =
      ReadText(what, path, FileAccess::kAnybody);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<Owned<X509>>> certificates =
      ParseCertificates(*text);
  if (!certificates.ok()) return InFile(what, path, certificates.status());
  return certificates;
}

absl::StatusOr<Owned<EVP_PKEY>> ReadKey(const std::string& path) {
  const absl::StatusOr<std::string> text =
      ReadText("key", path, FileAccess::kOwnerAndGroup);
  if (!text.ok()) return text.status();
  absl::StatusOr<Owned<EVP_PKEY>> key = ParseKey(*text);
  if (!key.ok()) return InFile("key", path, key.status());
  return key;
}

std::string Day(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M UTC", time, absl::UTCTimeZone());
}

// The files of one node, parsed.
struct Parsed {
  const TlsFiles& files;
  std::vector<Owned<X509>> authorities;
  std::vector<Owned<X509>> chain;  // its first certificate is the node's
  Owned<EVP_PKEY> key;

  X509& own() const { return *chain.front(); }
};

absl::StatusOr<Parsed> ReadAll(const TlsFiles& files) {
  absl::StatusOr<std::vector<Owned<X509>>> authorities =
      ReadCertificates("ca", files.ca);
  if (!authorities.ok()) return authorities.status();
  absl::StatusOr<std::vector<Owned<X509>>> chain =
      ReadCertificates("certificate", files.certificate);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<Owned<EVP_PKEY>> key = ReadKey(files.key);
  if (!key.ok()) return key.status();
  return Parsed{files, *std::move(authorities), *std::move(chain),
                *std::move(key)};
}

absl::Status CheckPair(const Parsed& parsed) {
  if (parsed.chain.size() > kChainMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("certificate ", parsed.files.certificate, ": it has ",
                     parsed.chain.size(), " certificates; at most ", kChainMax,
                     " are the node's own and those up to the authority"));
  }
  if (X509_check_private_key(&parsed.own(), parsed.key.get()) == 1) {
    return absl::OkStatus();
  }
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(
      "key ", parsed.files.key, ": it is not the key of the certificate ",
      parsed.files.certificate, ", which must be the first one in its file"));
}

absl::Status CheckName(const Parsed& parsed, const std::string& name) {
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "certificate ", parsed.files.certificate,
        ": it has no common name, expected the node's name there; ", kMake));
  }
  const unsigned flags =
      X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS;
  if (X509_check_host(&parsed.own(), name.data(), name.size(), flags,
                      nullptr) == 1) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "certificate ", parsed.files.certificate, ": its common name is ", name,
      ", and none of its DNS names is; peers look for the name there; ",
      kMake));
}

std::string WhyNotTrusted(const TlsFiles& files, int error,
                          const X509& certificate) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return absl::StrCat("the certificate of ", CommonNameOf(certificate),
                          " ended at ", Day(EndOf(certificate)), ": ", kRenew);
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return absl::StrCat("the certificate of ", CommonNameOf(certificate),
                          " begins at ", Day(BeginOf(certificate)),
                          ": is the clock of this machine right?");
    case X509_V_ERR_INVALID_PURPOSE:
      return "it may not serve both ends of a connection: its extended key "
             "usage must have serverAuth and clientAuth";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return absl::StrCat("no certificate in ", files.ca, " has signed it");
    default:
      return X509_verify_cert_error_string(error);
  }
}

// The level of security that OpenSSL's settings on this machine ask of
// connections. It decides which keys and hashes are too weak.
int SecurityLevel() {
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  return SSL_CTX_get_security_level(context.get());
}

Owned<X509_STORE> NewStore(const std::vector<Owned<X509>>& authorities) {
  Owned<X509_STORE> store(X509_STORE_new());
  for (const Owned<X509>& authority : authorities) {
    KDN_CHECK(X509_STORE_add_cert(store.get(), authority.get()) == 1,
              "OpenSSL has no memory");
  }
  return store;
}

// Verifies the chain for one end of connections. The result is the time when
// the first of its certificates ends.
absl::StatusOr<absl::Time> VerifyChain(const Parsed& parsed, const char* end,
                                       absl::Time now) {
  const Owned<X509_STORE> store = NewStore(parsed.authorities);
  STACK_OF(X509)* const others = sk_X509_new_null();
  for (const Owned<X509>& one : parsed.chain) sk_X509_push(others, one.get());
  const Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  KDN_CHECK(X509_STORE_CTX_init(context.get(), store.get(), &parsed.own(),
                                others) == 1 &&
                X509_STORE_CTX_set_default(context.get(), end) == 1,
            "OpenSSL has no memory");
  X509_VERIFY_PARAM* const settings = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(settings, absl::ToTimeT(now));
  X509_VERIFY_PARAM_set_auth_level(settings, SecurityLevel());
  const bool good = X509_verify_cert(context.get()) == 1;
  sk_X509_free(others);
  ERR_clear_error();
  if (!good) {
    const X509* at = X509_STORE_CTX_get_current_cert(context.get());
    if (at == nullptr) at = &parsed.own();
    return absl::InvalidArgumentError(absl::StrCat(
        "certificate ", parsed.files.certificate, ": ",
        WhyNotTrusted(parsed.files, X509_STORE_CTX_get_error(context.get()),
                      *at)));
  }
  absl::Time first = absl::InfiniteFuture();
  const STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    first = std::min(first, EndOf(*sk_X509_value(chain, i)));
  }
  return first;
}

std::vector<std::string> TextsOf(const std::vector<Owned<X509>>& certificates) {
  std::vector<std::string> texts;
  texts.reserve(certificates.size());
  for (const Owned<X509>& one : certificates) texts.push_back(ToPem(*one));
  return texts;
}

// Gives `context` the certificates and the key. False, with the reason in
// OpenSSL's queue of errors, if OpenSSL refuses one.
bool Fill(SSL_CTX* context, const std::vector<std::string>& authorities,
          const std::string& chain, const std::string& key) {
  for (const std::string& authority : authorities) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context),
                        ParseCertificates(authority)->front().get());
  }
  std::vector<Owned<X509>> certificates = *ParseCertificates(chain);
  if (SSL_CTX_use_certificate(context, certificates.front().get()) != 1) {
    return false;
  }
  for (size_t i = 1; i < certificates.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, certificates[i].get()) != 1) {
      return false;
    }
  }
  return SSL_CTX_use_PrivateKey(context, ParseKey(key)->get()) == 1;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsCredentials>> TlsCredentials::Load(
    const TlsFiles& files, absl::Time now) {
  const absl::StatusOr<Parsed> parsed = ReadAll(files);
  if (!parsed.ok()) return parsed.status();
  if (absl::Status s = CheckPair(*parsed); !s.ok()) return s;
  std::shared_ptr<TlsCredentials> credentials(new TlsCredentials());
  credentials->name_ = CommonNameOf(parsed->own());
  if (absl::Status s = CheckName(*parsed, credentials->name_); !s.ok()) {
    return s;
  }
  for (const char* end : {"ssl_server", "ssl_client"}) {
    const absl::StatusOr<absl::Time> expires = VerifyChain(*parsed, end, now);
    if (!expires.ok()) return expires.status();
    credentials->expires_ = *expires;
  }
  credentials->authorities_ = TextsOf(parsed->authorities);
  credentials->certificate_ = absl::StrJoin(TextsOf(parsed->chain), "");
  credentials->key_ = ToPem(*parsed->key);
  if (credentials->TryNewSslContext() == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("certificate ", files.certificate,
                     ": OpenSSL refuses it: ", TakeOpensslError()));
  }
  return credentials;
}

TlsCredentials::SslContext TlsCredentials::TryNewSslContext() const {
  SslContext context(SSL_CTX_new(TLS_method()), SSL_CTX_free);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  // A stream over non-blocking sockets never has to read in order to write.
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context.get(),
                     SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     nullptr);
  if (!Fill(context.get(), authorities_, certificate_, key_)) context.reset();
  return context;
}

TlsCredentials::SslContext TlsCredentials::NewSslContext() const {
  SslContext context = TryNewSslContext();
  KDN_CHECK(context != nullptr, "Load has made such a context");
  return context;
}

}  // namespace kdn::rpc
