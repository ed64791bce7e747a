#include "rpc/tls/openssl.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn::rpc {
namespace {

Owned<BIO> ReaderOf(absl::string_view text) {
  return Owned<BIO>(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string TextOf(BIO& memory) {
  char* bytes = nullptr;
  const long size =
      BIO_get_mem_data(&memory, &bytes);  // NOLINT(google-runtime-int)
  return std::string(bytes, static_cast<size_t>(size));
}

// OpenSSL asks for a passphrase with this. Its own function would ask at the
// terminal, where a node has nobody to answer.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm fields{};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return absl::InfinitePast();
  return absl::FromTM(fields, absl::UTCTimeZone());
}

}  // namespace

std::string TakeOpensslError() {
  const unsigned long code =
      ERR_peek_last_error();  // NOLINT(google-runtime-int)
  const char* const reason = ERR_reason_error_string(code);
  std::string text = reason != nullptr ? reason : absl::StrCat("error ", code);
  ERR_clear_error();
  return text;
}

std::string CertificateProblem(long verdict,  // NOLINT(google-runtime-int)
                               const std::string& host) {
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "it has expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "it is not valid yet";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return absl::StrCat("it does not name ", host);
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "an unknown authority has signed it";
    default:
      return X509_verify_cert_error_string(verdict);
  }
}

absl::StatusOr<std::vector<Owned<X509>>> ParseCertificates(
    absl::string_view pem) {
  ERR_clear_error();
  const Owned<BIO> reader = ReaderOf(pem);
  std::vector<Owned<X509>> certificates;
  while (X509* const next =
             PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next);
  }
  const auto last = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(last) == ERR_LIB_PEM &&
                      ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
  const std::string reason = TakeOpensslError();
  if (!at_end) {
    return absl::InvalidArgumentError(
        absl::StrCat("a damaged certificate: ", reason));
  }
  if (certificates.empty()) {
    return absl::InvalidArgumentError("no certificate in PEM");
  }
  return certificates;
}

absl::StatusOr<Owned<EVP_PKEY>> ParseKey(absl::string_view pem) {
  ERR_clear_error();
  bool asked = false;
  Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(ReaderOf(pem).get(), nullptr,
                                              NoPassphrase, &asked));
  if (key != nullptr) return key;
  const std::string reason = TakeOpensslError();
  if (asked) {
    return absl::InvalidArgumentError(
        "a passphrase protects the key, and a node has nobody to ask for one: "
        "`openssl pkey -in FILE -out NEW` removes it");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no private key in PEM: ", reason));
}

std::string ToPem(X509& certificate) {
  const Owned<BIO> writer(BIO_new(BIO_s_mem()));
  KDN_CHECK(PEM_write_bio_X509(writer.get(), &certificate) == 1,
            "OpenSSL has no memory");
  return TextOf(*writer);
}

std::string ToPem(EVP_PKEY& key) {
  const Owned<BIO> writer(BIO_new(BIO_s_mem()));
  KDN_CHECK(PEM_write_bio_PKCS8PrivateKey(writer.get(), &key, nullptr, nullptr,
                                          0, nullptr, nullptr) == 1,
            "OpenSSL has no memory");
  return TextOf(*writer);
}

std::string CommonNameOf(const X509& certificate) {
  const X509_NAME* const subject = X509_get_subject_name(&certificate);
  const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (index < 0) return "";
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(
      &text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
  if (size < 0) return "";
  std::string name(reinterpret_cast<char*>(text), static_cast<size_t>(size));
  OPENSSL_free(text);
  return name.find('\0') == std::string::npos ? name : "";
}

absl::Time BeginOf(const X509& certificate) {
  return TimeOf(X509_get0_notBefore(&certificate));
}

absl::Time EndOf(const X509& certificate) {
  return TimeOf(X509_get0_notAfter(&certificate));
}

}  // namespace kdn::rpc
