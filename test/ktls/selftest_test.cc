// The start-up self-test against what the kernel is known to have.
//   ktls_selftest            everything works; new keys on a live socket from Linux 6.14 on
//   ktls_selftest CIPHER     everything but that cipher, whose module was taken away
//   ktls_selftest none       a kernel without TLS
#include <cerrno>
#include <cstdio>
#include <string_view>

#include <weir/net/tls/ktls.h>

#include "rig.h"

using namespace weir::net::tls;
using namespace weir::test::ktls;

int main(int count, char** words) {
  const std::string_view missing = count > 1 ? words[1] : "";
  Tally tally;
  const int64_t errors_before = tls_stat("TlsDecryptError");
  const KernelSupport support = KernelSupport::probe();
  for (const std::string& line : support.lines()) std::printf("  %s\n", line.c_str());
  if (missing == "none") {
    tally.check(!support.present && support.os != 0, "the missing ULP is noticed");
    tally.check(!support.any() && !support.rekey.works, "nothing is said to work");
    tally.check(support.lines().size() == 1, "one line says so");
    return tally.finish();
  }
  tally.check(support.present, "the ULP is there");
  tally.check(support.any(), "something works");
  for (const uint16_t version : KernelSupport::kVersions) {
    for (const KernelCipher cipher : KernelSupport::kCiphers) {
      const bool expected = to_string(cipher) != missing;
      const auto& [tx, rx] = support.at(version, cipher);
      tally.check(tx.works == expected, title(version, cipher) + " sending", tx.failed);
      tally.check(rx.works == expected, title(version, cipher) + " receiving", rx.failed);
      tally.check(support.can(version, cipher) == expected, title(version, cipher) + " can()");
      if (!expected) tally.equal(tx.os, ENOENT, title(version, cipher) + " errno");
    }
  }
  tally.check(support.rekey.works == kernel_rekeys(), "new keys on a live socket",
              support.rekey.failed);
  if (!kernel_rekeys()) tally.equal(support.rekey.os, EBUSY, "EBUSY for new keys");
  tally.check(support.polls_half_records == kernel_polls_half_records(),
              "what poll says of half a record");
  // A kernel may be right or wrong here; which, only the self-test knows.
  const bool known =
      support.no_pad.works || support.no_pad.failed == "receiving what is behind a padded record";
  tally.check(known, "padded records with the option", support.no_pad.failed);
  tally.check(tls_stat_becomes("TlsCurrTxSw", 0) && tls_stat_becomes("TlsCurrRxSw", 0),
              "no socket is left");
  tally.equal(tls_stat("TlsDecryptError"), errors_before, "no decryption error");
  return tally.finish();
}
