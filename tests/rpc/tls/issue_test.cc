#include "rpc/tls/issue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/time/clock.h"
#include "rpc/tls/openssl.h"

namespace kdn::rpc {
namespace {

using testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
const Validity kYear = {kNow, kNow + absl::Hours(24 * 365)};

Owned<X509> Parsed(const IssuedCertificate& issued) {
  return std::move(ParseCertificates(issued.certificate).value().front());
}

bool HasHost(X509& certificate, const std::string& host) {
  return X509_check_host(&certificate, host.data(), host.size(),
                         X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
}

TEST(IssueTest, AnAuthoritySignsItself) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  const Owned<X509> certificate = Parsed(authority);
  EXPECT_EQ(CommonNameOf(*certificate), "KDN c");
  EXPECT_EQ(BeginOf(*certificate), kYear.begin);
  EXPECT_EQ(EndOf(*certificate), kYear.end);
  EXPECT_EQ(X509_check_ca(certificate.get()), 1);
  const Owned<EVP_PKEY> key = ParseKey(authority.key).value();
  EXPECT_EQ(X509_verify(certificate.get(), key.get()), 1);
}

TEST(IssueTest, ACertificateHasItsNamesAndAddresses) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  const Owned<X509> certificate =
      Parsed(IssueCertificate(
                 authority,
                 {"n1", {"kdn-a.internal", "10.0.0.7", "fd00::7", "n1"}}, kYear)
                 .value());
  EXPECT_EQ(CommonNameOf(*certificate), "n1");
  for (const char* host : {"n1", "kdn-a.internal", "10.0.0.7", "fd00::7"}) {
    EXPECT_TRUE(HasHost(*certificate, host)) << host;
  }
  EXPECT_FALSE(HasHost(*certificate, "n2"));
  for (const char* address : {"10.0.0.7", "fd00::7"}) {
    EXPECT_EQ(X509_check_ip_asc(certificate.get(), address, 0), 1) << address;
  }
  EXPECT_EQ(X509_check_ca(certificate.get()), 0);
  EXPECT_EQ(
      X509_verify(certificate.get(), ParseKey(authority.key).value().get()), 1);
}

TEST(IssueTest, ACertificateEndsWithItsAuthority) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  const Validity longer = {kNow, kYear.end + absl::Hours(1)};
  EXPECT_EQ(
      EndOf(*Parsed(IssueCertificate(authority, {"n1", {}}, longer).value())),
      kYear.end);
  const absl::Status ended =
      IssueCertificate(authority, {"n1", {}},
                       {kYear.end, kYear.end + absl::Hours(1)})
          .status();
  EXPECT_TRUE(absl::IsFailedPrecondition(ended)) << ended;
}

TEST(IssueTest, NoTwoCertificatesHaveTheSameSerialNumberOrKey) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  const IssuedCertificate a =
      IssueCertificate(authority, {"n1", {}}, kYear).value();
  const IssuedCertificate b =
      IssueCertificate(authority, {"n1", {}}, kYear).value();
  EXPECT_NE(a.key, b.key);
  EXPECT_NE(ASN1_INTEGER_cmp(X509_get0_serialNumber(Parsed(a).get()),
                             X509_get0_serialNumber(Parsed(b).get())),
            0);
}

TEST(IssueTest, NamesThatACertificateCannotHoldAreRefused) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  for (const std::string& name :
       {std::string(), std::string(65, 'n'), std::string("n 1"),
        std::string("n\xc3\xa9"), std::string("n\0", 2)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        IssueCertificate(authority, {name, {}}, kYear).status()))
        << name;
  }
  for (const char* host : {"a b", "*", "*.a", "a/b", ""}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        IssueCertificate(authority, {"n1", {host}}, kYear).status()))
        << host;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      MakeAuthority(std::string(65, 'n'), kYear).status()));
}

TEST(IssueTest, WhatIsNotAnAuthorityIsRefused) {
  const IssuedCertificate authority = MakeAuthority("KDN c", kYear).value();
  const IssuedCertificate other = MakeAuthority("KDN c", kYear).value();
  const IssuedCertificate node =
      IssueCertificate(authority, {"n1", {}}, kYear).value();
  const std::pair<IssuedCertificate, const char*> wrong[] = {
      {{authority.certificate, other.key}, "not the key"},
      {{"hello", authority.key}, "no certificate"},
      {{authority.certificate, "hello"}, "no private key"},
      {node, "not an authority's"}};
  for (const auto& [issuer, part] : wrong) {
    const absl::Status status =
        IssueCertificate(issuer, {"n2", {}}, kYear).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

}  // namespace
}  // namespace kdn::rpc
