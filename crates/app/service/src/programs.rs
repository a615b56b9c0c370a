//! Names of programs that the service may not learn, but their user may.

use partyline_model::{OfferedPort, Reply};
use partyline_platform::{ListeningSocket, listening_sockets};

/// Names the programs in a list of ports that the service could not name: it has no right to look into the programs of
/// other users, but this process may look into those of its own user. Reads the files of all processes.
pub fn name_programs(reply: &mut Reply) {
    if let Reply::OfferedPorts(ports) = reply
        && ports.iter().any(|port| port.listening && port.program.is_none())
    {
        // Where the system says nothing, the names stay unknown.
        fill_in(ports, &listening_sockets().unwrap_or_default());
    }
}

fn fill_in(ports: &mut [OfferedPort], sockets: &[ListeningSocket]) {
    for offered in ports.iter_mut().filter(|offered| offered.listening && offered.program.is_none()) {
        let named =
            sockets.iter().filter(|socket| socket.port == offered.port && !socket.address.is_loopback());
        offered.program = named.filter_map(|socket| socket.program.clone()).next();
    }
}

#[cfg(test)]
mod tests {
    use partyline_model::{PortAccess, ServicePort};

    use super::*;

    #[test]
    fn names_that_the_service_knows_are_kept_and_others_are_filled_in() {
        let offered = |port, program: Option<&str>| OfferedPort {
            port: ServicePort::tcp(port),
            listening: true,
            program: program.map(str::to_owned),
            service: None,
            access: PortAccess::Reachable,
        };
        let socket = |port, address: &str, program: &str| ListeningSocket {
            port: ServicePort::tcp(port),
            address: address.parse().unwrap(),
            program: Some(program.to_owned()),
            own: false,
        };
        let mut ports = [offered(1, Some("known")), offered(2, None), offered(3, None)];
        fill_in(
            &mut ports,
            &[socket(1, "::", "other"), socket(2, "127.0.0.1", "local"), socket(2, "0.0.0.0", "game")],
        );
        assert_eq!(ports.map(|port| port.program), [Some("known".into()), Some("game".into()), None]);
    }
}
