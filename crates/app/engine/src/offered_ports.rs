//! Lists the ports that programs of this computer offer to a party.

use std::{collections::BTreeMap, io, net::IpAddr};

use partyline_model::{AppError, ErrorCode, IncomingPolicy, OfferedPort, PartyView, Reply, ServicePort};
use partyline_platform::{ListeningSocket, listening_sockets};

use crate::answers::{self, Answer};

/// Reads the sockets in a thread of its own, since that may take a while, and answers with the list.
pub(crate) fn spawn(party: &PartyView, answer: Answer) {
    let policy = party.incoming.clone();
    let me = party.members.iter().find(|member| member.me);
    let addresses: Vec<IpAddr> = me
        .map(|me| me.address.map(IpAddr::from).into_iter().chain(me.address_v6.map(IpAddr::from)).collect())
        .unwrap_or_default();
    tokio::task::spawn_blocking(move || {
        let listed = listening_sockets().map_err(|error| unreadable(&error));
        answers::send(answer, listed.map(|sockets| Reply::OfferedPorts(list(&policy, &addresses, sockets))));
    });
}

/// Returns the error for a party that this computer is not in.
pub(crate) fn unknown_party() -> AppError {
    AppError::new(
        ErrorCode::UnknownParty,
        "There is no such party on this computer.",
        "`partyline list` shows the parties it is in.",
    )
}

fn unreadable(error: &io::Error) -> AppError {
    AppError::new(
        ErrorCode::Internal,
        format!("The ports that programs offer are unknown: {error}."),
        "Rules for ports work all the same; `partyline ports block` and `allow` take any port.",
    )
}

/// Returns the ports that a party reaches by these addresses, and those with a rule, by protocol and number.
fn list(policy: &IncomingPolicy, addresses: &[IpAddr], sockets: Vec<ListeningSocket>) -> Vec<OfferedPort> {
    let mut programs: BTreeMap<ServicePort, (bool, Option<String>)> = BTreeMap::new();
    for port in policy.allowed.iter().chain(&policy.blocked) {
        programs.entry(*port).or_default();
    }
    for socket in sockets.into_iter().filter(|socket| !socket.own && is_offered(socket.address, addresses)) {
        let (listening, program) = programs.entry(socket.port).or_default();
        *listening = true;
        *program = program.take().or(socket.program);
    }
    let offered = |(port, (listening, program)): (ServicePort, (bool, Option<String>))| OfferedPort {
        port,
        listening,
        program,
        service: port.system_service().map(str::to_owned),
        access: policy.access(port),
    };
    programs.into_iter().map(offered).collect()
}

/// Returns true if a socket with this address takes packets from the party: it is bound to all addresses, to one of
/// the party, or to a group.
fn is_offered(address: IpAddr, party: &[IpAddr]) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    address.is_unspecified() || address.is_multicast() || is_broadcast || party.contains(&address)
}

#[cfg(test)]
mod tests {
    use partyline_model::{IncomingLevel, PortAccess, PortRule};

    use super::*;

    fn socket(port: ServicePort, address: &str, program: Option<&str>) -> ListeningSocket {
        let address = address.parse().expect("an address");
        ListeningSocket { port, address, program: program.map(str::to_owned), own: false }
    }

    #[test]
    fn ports_that_the_party_reaches_are_listed_with_what_holds_for_them() {
        let mut policy = IncomingPolicy::of(IncomingLevel::Games);
        policy.set_rule(ServicePort::tcp(445), Some(PortRule::Allow));
        policy.set_rule(ServicePort::udp(9), Some(PortRule::Block));
        let own = ListeningSocket { own: true, ..socket(ServicePort::udp(41_641), "::", Some("partyline")) };
        let sockets = vec![
            own,
            socket(ServicePort::tcp(22), "0.0.0.0", None),
            socket(ServicePort::tcp(22), "::", Some("sshd")),
            socket(ServicePort::tcp(631), "127.0.0.1", Some("cupsd")),
            socket(ServicePort::tcp(445), "10.77.0.1", Some("smbd")),
            socket(ServicePort::tcp(8080), "192.168.1.2", Some("elsewhere")),
            socket(ServicePort::udp(27_015), "0.0.0.0", Some("srcds")),
        ];
        let listed = list(&policy, &["10.77.0.1".parse().expect("an address")], sockets);
        let shown: Vec<_> = listed
            .iter()
            .map(|offered| (offered.port, offered.listening, offered.program.as_deref(), offered.access))
            .collect();
        assert_eq!(
            shown,
            [
                (ServicePort::tcp(22), true, Some("sshd"), PortAccess::BlockedByDefault),
                (ServicePort::tcp(445), true, Some("smbd"), PortAccess::AllowedByUser),
                (ServicePort::udp(9), false, None, PortAccess::BlockedByUser),
                (ServicePort::udp(27_015), true, Some("srcds"), PortAccess::Reachable),
            ]
        );
        assert_eq!(listed[0].service.as_deref(), Some("Remote login (SSH)"));
    }
}
