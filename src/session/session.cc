#include "src/session/session.h"

#include <utility>

namespace metaprotocol {

Session::Session(ProtocolState& protocol, SnapshotUse& use, ConnectionInfo connection_info,
                 SessionHandle handle)
    : protocol(protocol),
      use(&use),
      table(&use.snapshot->TableFor(connection_info.local_address, connection_info.local_port)),
      info(std::move(connection_info)),
      local_port_text(std::to_string(info.local_port)),
      handle(handle),
      origin{{protocol, *this, mirror_leases, connection}, info, handle},
      decode_state(use.snapshot->codec->NewDecodeState(Direction::kRequest)),
      timer(Timer::Kind::kSession, this) {
  connection.Add(kSourceAddressKey, info.remote_address);
  connection.Add(kDestinationAddressKey, info.local_address);
  connection.Add(kDestinationPortKey, local_port_text);
  if (!info.sni.empty()) connection.Add(kSniKey, info.sni);
  if (!info.peer_subject.empty()) connection.Add(kPeerSubjectKey, info.peer_subject);
  for (const std::string& san : info.peer_uri_sans) connection.Add(kPeerUriSanKey, san);
  for (const std::string& san : info.peer_dns_sans) connection.Add(kPeerDnsSanKey, san);
}

}  // namespace metaprotocol
