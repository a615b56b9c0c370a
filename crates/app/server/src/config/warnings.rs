//! What works as configured, but probably not as the operator means it.

use std::net::IpAddr;

use partyline_model::is_public;

use super::{Config, Relay};

impl Config {
    /// Returns what the operator should look at, one text each with the setting that mends it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let relay = self.relay.iter().filter(|_| self.is_meant_for_the_internet());
        relay.flat_map(private_relays).collect()
    }

    /// A server that only this computer or a LAN reaches relays on private addresses rightly.
    fn is_meant_for_the_internet(&self) -> bool {
        match self.host.as_deref() {
            Some(host) => literal(host).map_or(!is_local_name(host), is_public),
            None => self.listen.iter().any(|address| !address.ip().to_canonical().is_loopback()),
        }
    }
}

fn private_relays(relay: &Relay) -> impl Iterator<Item = String> {
    relay.config.relay.iter().filter(|address| !is_public(address.public)).map(|address| {
        let family = if address.public.is_ipv4() { "IPv4" } else { "IPv6" };
        format!(
            "the relay gives members the address {}, which nobody outside this network reaches; where this server is behind \
             a router, give its public {family} address with --relay-external (relay.external in the file) and forward \
             the relay's ports to this computer",
            address.public
        )
    })
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// Returns true for names that only a LAN knows (RFC 6761, RFC 6762, RFC 8375).
fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    !host.contains('.')
        || [".local", ".localhost", ".lan", ".home.arpa", ".internal"].iter().any(|end| host.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Args;

    fn warnings(host: &str, listen: &str, external: &[&str]) -> Vec<String> {
        let ip = |text: &&str| text.parse().unwrap();
        let args = Args {
            host: Some(host.to_owned()),
            insecure_plain: true,
            listen: vec!["0.0.0.0:4480".parse().unwrap()],
            relay_listen: vec![ip(&listen)],
            relay_external: external.iter().map(ip).collect(),
            ..Args::default()
        };
        Config::load(&args).unwrap().warnings()
    }

    #[test]
    fn private_relay_of_a_public_server_is_warned_about_with_the_setting() {
        for private in
            ["192.168.1.2", "10.0.0.2", "100.64.0.2", "169.254.1.2", "127.0.0.1", "fd00::1", "fe80::1"]
        {
            for host in ["party.example", "203.0.113.1", ""] {
                let warnings = warnings(host, private, &[]);
                assert_eq!(warnings.len(), 1, "{host} {private}");
                assert!(warnings[0].contains(private) && warnings[0].contains("--relay-external"));
            }
        }
    }

    #[test]
    fn public_relays_and_servers_of_a_lan_are_not_warned_about() {
        assert_eq!(warnings("party.example", "203.0.113.1", &[]), [""; 0]);
        assert_eq!(warnings("party.example", "192.168.1.2", &["203.0.113.1"]), [""; 0]);
        assert_eq!(warnings("party.example", "2001:db8::1", &[]), [""; 0]);
        for lan in ["192.168.1.2", "box", "box.local", "box.home.arpa"] {
            assert_eq!(warnings(lan, "192.168.1.2", &[]), [""; 0], "{lan}");
        }
        let wrong = warnings("party.example", "192.168.1.2", &["100.64.0.1"]);
        assert!(wrong[0].contains("100.64.0.1"), "an external address that is private, too");
        assert_eq!(Config::load(&Args { dev: true, ..Args::default() }).unwrap().warnings(), [""; 0]);
    }
}
