//! The user's settings, which apply to all parties of this computer.

use serde::{Deserialize, Serialize};

use crate::{AppError, ErrorCode};

/// The maximum number of rendezvous servers for new parties.
const MAX_SERVERS: usize = 8;
/// The maximum number of relays that the user may add.
const MAX_RELAYS: usize = 8;
/// The maximum length of the display name in characters.
const MAX_NAME_CHARS: usize = 32;
/// The maximum length of a URL, user name or password in bytes.
const MAX_TEXT_BYTES: usize = 512;
/// The maximum number of nodes by which the DHT is found.
const MAX_BOOTSTRAP: usize = 8;
/// Long-lived nodes, run by makers of BitTorrent programs for everybody.
const BOOTSTRAP: [&str; 3] =
    ["dht.libtorrent.org:25401", "dht.transmissionbt.com:6881", "router.bt.ouinet.work:6881"];
/// Packet sizes of network devices in bytes: from IPv6's minimum to what a tunnel leaves of Ethernet's.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 1280..=1420;
/// Seconds.
const DIRECT_TIMEOUT_RANGE: std::ops::RangeInclusive<u16> = 1..=60;

/// All settings. Those that a file does not contain have their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Settings {
    /// The name that friends see in parties created or joined from now on, at most 32 characters; empty until the user
    /// has chosen one.
    pub display_name: String,
    /// Rendezvous servers for new parties (`wss://…`, or `ws://` where allowed), at most 8.
    pub servers: Vec<String>,
    /// The user's own relays, in addition to those that rendezvous servers grant; at most 8.
    pub relays: Vec<RelaySetting>,
    /// True if NAT behavior is measured. Without it every way of connecting is tried.
    pub nat_detection: bool,
    /// True if the router is asked to open a port.
    pub port_mapping: bool,
    /// True if direct paths are tried.
    pub direct: bool,
    /// True if relay servers are used.
    pub relay: bool,
    /// The ways of connecting that are tried.
    pub methods: Methods,
    /// True if this computer forwards packets between friends that cannot reach each other directly.
    pub serve_friends: bool,
    /// True if this computer announces itself on local networks, sealed for its parties.
    pub lan_beacon: bool,
    /// True if parties without a server use the BitTorrent DHT to find friends.
    pub dht: bool,
    /// Nodes by which this computer gets to know the DHT, as `host:port`, at most 8.
    pub bootstrap: Vec<String>,
    /// The UDP port that all parties share; 0 lets the system choose one.
    pub port: u16,
    /// Seconds for which a new direct path is tried before it counts as failed and is retried with growing pauses,
    /// 1 to 60.
    pub direct_timeout_s: u16,
    /// The MTU of the parties' network devices in bytes, 1280 to 1420.
    pub mtu: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            display_name: String::new(),
            servers: Vec::new(),
            relays: Vec::new(),
            nat_detection: true,
            port_mapping: true,
            direct: true,
            relay: true,
            methods: Methods::default(),
            serve_friends: true,
            lan_beacon: true,
            dht: true,
            bootstrap: BOOTSTRAP.map(str::to_owned).to_vec(),
            port: 0,
            direct_timeout_s: 5,
            mtu: 1400,
        }
    }
}

/// The ways of connecting, each of which can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Methods {
    /// Addresses on a shared local network.
    pub lan: bool,
    /// Global IPv6 addresses.
    pub ipv6: bool,
    /// Ports that the router opens on request.
    pub mapped: bool,
    /// Simultaneous connectivity checks between reflexive addresses.
    pub punch: bool,
    /// Connectivity checks to predicted ports.
    pub predict: bool,
    /// Connectivity checks from many sockets to many ports.
    pub spray: bool,
    /// Forwarding by another member.
    pub member_relay: bool,
}

impl Default for Methods {
    fn default() -> Self {
        Self {
            lan: true,
            ipv6: true,
            mapped: true,
            punch: true,
            predict: true,
            spray: true,
            member_relay: true,
        }
    }
}

/// One of the user's own relays.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct RelaySetting {
    /// The relay's URL: `turn:host[:port][?transport=udp|tcp]` or `turns:host[:port]` (RFC 7065).
    pub url: String,
    /// The user name of the long-term credentials.
    pub username: String,
    /// The password of the long-term credentials. It never reaches clients: snapshots have an empty one, and an empty
    /// one that comes back with the same URL and user name stands for the stored password.
    pub password: String,
}

impl std::fmt::Debug for RelaySetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySetting({} as {})", self.url, self.username)
    }
}

impl Settings {
    /// Checks that everything is within its limits.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidInput`], with what is wrong and what is allowed.
    pub fn validate(&self) -> Result<(), AppError> {
        let name = &self.display_name;
        if name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            return refuse("The name is too long or not plain text.", "Use at most 32 letters.");
        }
        let short = |text: &String| text.len() <= MAX_TEXT_BYTES;
        let servers = self.servers.len() <= MAX_SERVERS && self.servers.iter().all(short);
        let url = |server: &String| server.starts_with("wss://") || server.starts_with("ws://");
        if !servers || !self.servers.iter().all(url) {
            return refuse("Those are not rendezvous servers.", "Name at most 8, as wss://host.");
        }
        if self.relays.len() > MAX_RELAYS || !self.relays.iter().all(RelaySetting::is_plausible) {
            return refuse(
                "Those are not relays.",
                "Name at most 8, as turn:host:port or turns:host:port, with user name and password.",
            );
        }
        let router = |router: &String| {
            let port =
                router.rsplit_once(':').map(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            short(router) && port == Some(true)
        };
        if self.bootstrap.len() > MAX_BOOTSTRAP || !self.bootstrap.iter().all(router) {
            return refuse("Those are not nodes of the DHT.", "Name at most 8, as host:port.");
        }
        if !MTU_RANGE.contains(&self.mtu) {
            return refuse(
                format!("An MTU of {} bytes does not work.", self.mtu),
                "Use 1280 to 1420; 1400 is usual.",
            );
        }
        if !DIRECT_TIMEOUT_RANGE.contains(&self.direct_timeout_s) {
            return refuse("That timeout for direct connections does not work.", "Use 1 to 60 seconds.");
        }
        if !self.direct && !self.relay {
            return refuse(
                "Without direct connections and without relays nobody can be reached.",
                "Leave one of the two on.",
            );
        }
        Ok(())
    }

    /// Returns the settings without passwords, as clients see them.
    #[must_use]
    pub fn without_passwords(&self) -> Self {
        let mut shown = self.clone();
        shown.relays.iter_mut().for_each(|relay| relay.password.clear());
        shown
    }

    /// Restores the passwords of relays that came back from a client without, from the settings that have them.
    pub fn restore_passwords(&mut self, known: &Self) {
        self.relays.iter_mut().for_each(|relay| known.fill_in_password(relay));
    }

    /// Fills in the stored password of a relay that has none.
    pub fn fill_in_password(&self, relay: &mut RelaySetting) {
        let same = |old: &&RelaySetting| (&old.url, &old.username) == (&relay.url, &relay.username);
        if let Some(known) = self.relays.iter().find(same).filter(|_| relay.password.is_empty()) {
            relay.password.clone_from(&known.password);
        }
    }
}

impl RelaySetting {
    fn is_plausible(&self) -> bool {
        let scheme = self.url.starts_with("turn:") || self.url.starts_with("turns:");
        let texts = [&self.url, &self.username, &self.password];
        scheme && texts.iter().all(|text| text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control))
    }
}

fn refuse(what: impl Into<String>, hint: &str) -> Result<(), AppError> {
    Err(AppError::new(ErrorCode::InvalidInput, what, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(password: &str) -> RelaySetting {
        RelaySetting { url: "turn:relay.example".into(), username: "ann".into(), password: password.into() }
    }

    #[test]
    fn passwords_are_hidden_from_clients_and_restored() {
        let known = Settings { relays: vec![relay("secret")], ..Settings::default() };
        let mut shown = known.without_passwords();
        assert_eq!(shown.relays, [relay("")]);
        shown.mtu = 1300;
        shown.restore_passwords(&known);
        assert_eq!(shown.relays, known.relays);
        let mut other =
            Settings { relays: vec![RelaySetting { username: "bob".into(), ..relay("") }], ..known.clone() };
        other.restore_passwords(&known);
        assert_eq!(other.relays[0].password, "", "another user's password is not guessed");
        assert!(!format!("{known:?}").contains("secret"));
    }

    #[test]
    fn missing_settings_have_their_defaults() {
        let read: Settings = serde_json::from_str(r#"{ "port": 7, "methods": { "spray": false } }"#).unwrap();
        let methods = Methods { spray: false, ..Methods::default() };
        assert_eq!(read, Settings { port: 7, methods, ..Settings::default() });
    }

    #[test]
    fn values_outside_their_limits_are_rejected() {
        let usual = Settings::default;
        assert_eq!(usual().validate(), Ok(()));
        let relays = vec![relay("x"), RelaySetting { url: "turns:a:443".into(), ..relay("x") }];
        assert_eq!(Settings { servers: vec!["wss://a".into()], relays, ..usual() }.validate(), Ok(()));
        for bad in [
            Settings { display_name: "x".repeat(33), ..usual() },
            Settings { display_name: "a\u{1b}b".into(), ..usual() },
            Settings { servers: vec!["https://a".into()], ..usual() },
            Settings { servers: vec!["wss://a".into(); 9], ..usual() },
            Settings { relays: vec![RelaySetting { url: "stun:a".into(), ..relay("") }], ..usual() },
            Settings { relays: vec![relay(&"x".repeat(513))], ..usual() },
            Settings { mtu: 1279, ..usual() },
            Settings { mtu: 1421, ..usual() },
            Settings { direct_timeout_s: 0, ..usual() },
            Settings { bootstrap: vec!["node.example".into()], ..usual() },
            Settings { bootstrap: vec!["node.example:x".into()], ..usual() },
            Settings { bootstrap: vec!["node.example:1".into(); 9], ..usual() },
            Settings { direct: false, relay: false, ..usual() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
