// Reading and checking an OCSP response before it is stapled.
#include "certificate_checks.h"
#include "pem_file.h"

namespace weir::net::tls {
namespace {

constexpr size_t kResponseBytesMax = 64 * 1024;

struct SingleFree {
  void operator()(OCSP_CERTID* id) const noexcept { OCSP_CERTID_free(id); }
};
using OwnedId = std::unique_ptr<OCSP_CERTID, SingleFree>;

// The issuer signed the response, or a responder that the issuer delegated this to.
bool signed_for(OCSP_BASICRESP* basic, const ParsedChain& chain) {
  const OwnedStore store(X509_STORE_new());
  const OwnedChain untrusted(sk_X509_new_null());
  for (size_t i = 1; i < chain.certificates.size(); ++i) {
    X509_STORE_add_cert(store.get(), chain.certificates[i].get());
    X509_up_ref(chain.certificates[i].get());
    sk_X509_push(untrusted.get(), chain.certificates[i].get());
  }
  // The chain was checked already and its root may not be here: an intermediate is anchor enough.
  // Times are checked by the caller, against its clock.
  X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
  const bool good = OCSP_basic_verify(basic, untrusted.get(), store.get(), 0) == 1;
  ERR_clear_error();
  return good;
}

// The entry for the chain's first certificate; nullptr: there is none.
OCSP_SINGLERESP* find_single(OCSP_BASICRESP* basic, const ParsedChain& chain) {
  X509* issuer = chain.certificates[1].get();
  for (const EVP_MD* digest : {EVP_sha1(), EVP_sha256()}) {
    const OwnedId id(OCSP_cert_to_id(digest, chain.leaf(), issuer));
    const int at = id == nullptr ? -1 : OCSP_resp_find(basic, id.get(), -1);
    if (at >= 0) return OCSP_resp_get0(basic, at);
  }
  return nullptr;
}

}  // namespace

void load_ocsp(const std::string& path, const ParsedChain& chain, int64_t now_s,
               Certificate& certificate, Sentences& errors, Sentences& warnings) {
  auto bytes = read_secret_file(path, kResponseBytesMax);
  if (!bytes) return errors.push_back(std::move(bytes.error()));
  const unsigned char* at = bytes->data();
  const OwnedOcsp response(d2i_OCSP_RESPONSE(nullptr, &at, static_cast<long>(bytes->size())));
  if (response == nullptr || at != bytes->data() + bytes->size()) {
    ERR_clear_error();
    return errors.push_back(path + " is not an OCSP response (DER)");
  }
  if (OCSP_response_status(response.get()) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
    return errors.push_back(path + " is an OCSP response without an answer: " +
                            OCSP_response_status_str(OCSP_response_status(response.get())));
  }
  if (chain.certificates.size() < 2) {
    return errors.push_back(path + " cannot be checked: " + chain.path +
                            " must hold the issuer's certificate behind the server's");
  }
  const OwnedOcspBasic basic(OCSP_response_get1_basic(response.get()));
  OCSP_SINGLERESP* single = basic == nullptr ? nullptr : find_single(basic.get(), chain);
  if (single == nullptr) {
    ERR_clear_error();
    return errors.push_back(path + " is an OCSP response for another certificate than " +
                            chain.place(0));
  }
  if (!signed_for(basic.get(), chain)) {
    return errors.push_back(path + " is an OCSP response that the issuer of " + chain.place(0) +
                            " did not sign");
  }
  ASN1_GENERALIZEDTIME* next_update = nullptr;
  const int status = OCSP_single_get0_status(single, nullptr, nullptr, nullptr, &next_update);
  if (status != V_OCSP_CERTSTATUS_GOOD) {
    return warnings.push_back(path + " says that " + chain.place(0) + " is " +
                              OCSP_cert_status_str(status) + "; it is not stapled");
  }
  const int64_t until = next_update == nullptr ? 0 : unix_time(next_update);
  if (until != 0 && until < now_s) {
    return warnings.push_back(path + " is out of date since " + date_text(until) +
                              "; it is not stapled");
  }
  certificate.ocsp_next_update_s = until;
  certificate.ocsp_response.assign(bytes->data(), bytes->data() + bytes->size());
}

}  // namespace weir::net::tls
