#include "rpc/tls/issue.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/ec.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "rpc/tls/openssl.h"

namespace kdn::rpc {
namespace {

// Why an OpenSSL call with good arguments fails.
constexpr char kFailed[] = "OpenSSL has no memory or no random bytes";
constexpr size_t kCommonNameBytesMax = 64;  // RFC 5280, ub-common-name
constexpr int kSerialBits = 127;  // RFC 5280 allows 20 bytes, all positive

absl::Status CheckCommonName(const std::string& name) {
  if (!name.empty() && name.size() <= kCommonNameBytesMax &&
      std::all_of(name.begin(), name.end(), absl::ascii_isprint)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name,
                   "' cannot be the name in a certificate: expected "
                   "1 to ",
                   kCommonNameBytesMax, " printable ASCII letters"));
}

absl::Status CheckHost(const std::string& host) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' ||
           c == '_' || c == '.' || c == ':';
  };
  if (!host.empty() && std::all_of(host.begin(), host.end(), allowed)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", host,
                   "' cannot be a DNS name: expected ASCII letters, "
                   "digits, '-', '_' and '.'"));
}

// The bytes of an address; empty for a name.
std::string AddressBytes(const std::string& host) {
  std::string bytes(sizeof(in6_addr), '\0');
  if (inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1) return bytes;
  bytes.resize(sizeof(in_addr));
  if (inet_pton(AF_INET, host.c_str(), bytes.data()) == 1) return bytes;
  return "";
}

void AddAlternativeName(GENERAL_NAMES& names, int type,
                        const std::string& bytes) {
  GENERAL_NAME* const name = GENERAL_NAME_new();
  ASN1_STRING* const value =
      type == GEN_DNS ? ASN1_IA5STRING_new() : ASN1_OCTET_STRING_new();
  KDN_CHECK(name != nullptr && value != nullptr, kFailed);
  KDN_CHECK(
      ASN1_STRING_set(value, bytes.data(), static_cast<int>(bytes.size())) == 1,
      kFailed);
  GENERAL_NAME_set0_value(name, type, value);
  KDN_CHECK(sk_GENERAL_NAME_push(&names, name) > 0, kFailed);
}

void AddAlternativeNames(X509& certificate, const CertificateSubject& subject) {
  std::vector<std::string> hosts = {subject.name};
  hosts.insert(hosts.end(), subject.hosts.begin(), subject.hosts.end());
  const Owned<GENERAL_NAMES> names(GENERAL_NAMES_new());
  std::set<std::string> seen;
  for (const std::string& host : hosts) {
    if (!seen.insert(host).second) continue;
    AddAlternativeName(*names, GEN_DNS, host);
    const std::string address = AddressBytes(host);
    if (!address.empty()) AddAlternativeName(*names, GEN_IPADD, address);
  }
  KDN_CHECK(X509_add1_ext_i2d(&certificate, NID_subject_alt_name, names.get(),
                              /*crit=*/0, X509V3_ADD_DEFAULT) == 1,
            kFailed);
}

void AddExtension(X509& certificate, X509& issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension =
      X509V3_EXT_nconf_nid(nullptr, &context, nid, value);
  KDN_CHECK(extension != nullptr, kFailed);
  KDN_CHECK(X509_add_ext(&certificate, extension, -1) == 1, kFailed);
  X509_EXTENSION_free(extension);
}

void SetSerial(X509& certificate) {
  BIGNUM* const serial = BN_new();
  KDN_CHECK(BN_rand(serial, kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY),
            kFailed);
  KDN_CHECK(BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(&certificate)),
            kFailed);
  BN_free(serial);
}

// A certificate of version 3 without issuer, extensions and signature.
Owned<X509> NewCertificate(const std::string& name, EVP_PKEY& key,
                           Validity validity) {
  Owned<X509> certificate(X509_new());
  KDN_CHECK(certificate != nullptr, kFailed);
  KDN_CHECK(X509_set_version(certificate.get(), X509_VERSION_3) == 1, kFailed);
  SetSerial(*certificate);
  KDN_CHECK(ASN1_TIME_set(X509_getm_notBefore(certificate.get()),
                          absl::ToTimeT(validity.begin)),
            kFailed);
  KDN_CHECK(ASN1_TIME_set(X509_getm_notAfter(certificate.get()),
                          absl::ToTimeT(validity.end)),
            kFailed);
  KDN_CHECK(
      X509_NAME_add_entry_by_NID(
          X509_get_subject_name(certificate.get()), NID_commonName,
          MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
          static_cast<int>(name.size()), -1, 0) == 1,
      kFailed);
  KDN_CHECK(X509_set_pubkey(certificate.get(), &key) == 1, kFailed);
  return certificate;
}

// INVALID_ARGUMENT for a signer of a kind that cannot sign certificates.
absl::StatusOr<IssuedCertificate> Sign(X509& certificate, EVP_PKEY& key,
                                       EVP_PKEY& signer) {
  int digest = NID_undef;
  // Ed25519 has a digest of its own, and takes no other.
  const bool fixed = EVP_PKEY_get_default_digest_nid(&signer, &digest) == 2;
  const EVP_MD* const hash =
      fixed && digest == NID_undef ? nullptr : EVP_sha256();
  if (X509_sign(&certificate, &signer, hash) <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the authority's key cannot sign: ", TakeOpensslError()));
  }
  return IssuedCertificate{ToPem(certificate), ToPem(key)};
}

struct Authority {
  Owned<X509> certificate;
  Owned<EVP_PKEY> key;
};

absl::StatusOr<Authority> Parse(const IssuedCertificate& authority) {
  absl::StatusOr<std::vector<Owned<X509>>> certificates =
      ParseCertificates(authority.certificate);
  if (!certificates.ok()) return certificates.status();
  absl::StatusOr<Owned<EVP_PKEY>> key = ParseKey(authority.key);
  if (!key.ok()) return key.status();
  // The file of an authority that was replaced has several certificates.
  for (Owned<X509>& certificate : *certificates) {
    if (X509_check_private_key(certificate.get(), key->get()) != 1) continue;
    if (X509_check_ca(certificate.get()) == 0) {
      return absl::InvalidArgumentError(
          "the certificate is not an authority's (basicConstraints CA:TRUE)");
    }
    return Authority{std::move(certificate), *std::move(key)};
  }
  TakeOpensslError();
  return absl::InvalidArgumentError(
      "the key is not the key of the authority's certificate");
}

}  // namespace

absl::StatusOr<IssuedCertificate> MakeAuthority(const std::string& name,
                                                Validity validity) {
  if (absl::Status s = CheckCommonName(name); !s.ok()) return s;
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  KDN_CHECK(key != nullptr, kFailed);
  const Owned<X509> certificate = NewCertificate(name, *key, validity);
  X509_set_issuer_name(certificate.get(),
                       X509_get_subject_name(certificate.get()));
  const std::pair<int, const char*> extensions[] = {
      {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
      {NID_key_usage, "critical,keyCertSign,cRLSign"},
      {NID_subject_key_identifier, "hash"}};
  for (const auto& [nid, value] : extensions) {
    AddExtension(*certificate, *certificate, nid, value);
  }
  return Sign(*certificate, *key, *key);
}

absl::StatusOr<IssuedCertificate> IssueCertificate(
    const IssuedCertificate& authority, const CertificateSubject& subject,
    Validity validity) {
  if (absl::Status s = CheckCommonName(subject.name); !s.ok()) return s;
  if (absl::Status s = CheckHost(subject.name); !s.ok()) return s;
  for (const std::string& host : subject.hosts) {
    if (absl::Status s = CheckHost(host); !s.ok()) return s;
  }
  absl::StatusOr<Authority> issuer = Parse(authority);
  if (!issuer.ok()) return issuer.status();
  validity.end = std::min(validity.end, EndOf(*issuer->certificate));
  if (validity.end <= validity.begin) {
    return absl::FailedPreconditionError(
        absl::StrCat("the authority's certificate ended at ",
                     absl::FormatTime("%Y-%m-%d %H:%M UTC", validity.end,
                                      absl::UTCTimeZone())));
  }
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  KDN_CHECK(key != nullptr, kFailed);
  const Owned<X509> certificate = NewCertificate(subject.name, *key, validity);
  X509_set_issuer_name(certificate.get(),
                       X509_get_subject_name(issuer->certificate.get()));
  const std::pair<int, const char*> extensions[] = {
      {NID_basic_constraints, "critical,CA:FALSE"},
      {NID_key_usage, "critical,digitalSignature"},
      {NID_ext_key_usage, "serverAuth,clientAuth"},
      {NID_subject_key_identifier, "hash"}};
  for (const auto& [nid, value] : extensions) {
    AddExtension(*certificate, *issuer->certificate, nid, value);
  }
  // An authority that this project has not made may lack the identifier.
  if (X509_get0_subject_key_id(issuer->certificate.get()) != nullptr) {
    AddExtension(*certificate, *issuer->certificate,
                 NID_authority_key_identifier, "keyid:always");
  }
  AddAlternativeNames(*certificate, subject);
  return Sign(*certificate, *key, *issuer->key);
}

}  // namespace kdn::rpc
