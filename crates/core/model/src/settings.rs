//! What the user may decide about this computer's part in all its parties.

use serde::{Deserialize, Serialize};

use crate::{AppError, ErrorCode};

/// Rendezvous servers for new parties, at most.
const MOST_SERVERS: usize = 8;
/// Relays of one's own, at most.
const MOST_RELAYS: usize = 8;
/// The longest name friends see, in characters.
const LONGEST_NAME: usize = 32;
/// The longest URL, user name or password, in bytes.
const LONGEST_TEXT: usize = 512;
const MTU: std::ops::RangeInclusive<u16> = 1280..=1420;
const DIRECT_TIMEOUT: std::ops::RangeInclusive<u16> = 1..=60;

/// Everything that can be set. A file that lacks some of it gets the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Settings {
    /// The name friends see in parties made or joined from now on, at most 32 characters; empty until it is chosen.
    pub display_name: String,
    /// Rendezvous servers for new parties (`wss://…`, or `ws://` where allowed), at most 8.
    pub servers: Vec<String>,
    /// Relays of one's own, besides those the rendezvous servers grant; at most 8.
    pub relays: Vec<RelaySetting>,
    /// Whether the NAT is measured; without, every way of connecting is tried.
    pub nat_detection: bool,
    /// Whether the router is asked to open a port.
    pub port_mapping: bool,
    /// Whether direct paths are tried at all.
    pub direct: bool,
    /// Whether relay servers are used at all.
    pub relay: bool,
    /// Which ways of connecting are tried.
    pub methods: Methods,
    /// Whether this computer passes packets on between friends that cannot reach each other directly.
    pub serve_friends: bool,
    /// The UDP port all parties share; 0 lets the system choose.
    pub port: u16,
    /// How long a new direct path is tried before it counts as failed and is retried with growing pauses, in seconds,
    /// 1 to 60.
    pub direct_timeout_s: u16,
    /// The packet size of the parties' network devices in bytes, 1280 to 1420.
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
            port: 0,
            direct_timeout_s: 5,
            mtu: 1400,
        }
    }
}

/// Ways of connecting, each of which can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Methods {
    /// Addresses on a shared local network.
    pub lan: bool,
    /// Global IPv6 addresses.
    pub ipv6: bool,
    /// Ports opened by the router.
    pub mapped: bool,
    /// Simultaneous checks between reflexive addresses.
    pub punch: bool,
    /// Predicted ports.
    pub predict: bool,
    /// Many ports at once.
    pub spray: bool,
    /// Another member between the two.
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

/// A relay of one's own.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct RelaySetting {
    /// Where it is: `turn:host[:port][?transport=udp|tcp]` or `turns:host[:port]` (RFC 7065).
    pub url: String,
    /// The user name it knows.
    pub username: String,
    /// The password that goes with it. Never told to clients: in snapshots it is empty, and an empty one that comes
    /// back for the same URL and user name stands for the one that is known.
    pub password: String,
}

impl std::fmt::Debug for RelaySetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySetting({} as {})", self.url, self.username)
    }
}

impl Settings {
    /// Looks whether everything is within its limits.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidInput`] with what is wrong and what is allowed.
    pub fn validate(&self) -> Result<(), AppError> {
        let name = &self.display_name;
        if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return refuse("The name is too long or not plain text.", "Use at most 32 letters.");
        }
        let short = |text: &String| text.len() <= LONGEST_TEXT;
        let servers = self.servers.len() <= MOST_SERVERS && self.servers.iter().all(short);
        let url = |server: &String| server.starts_with("wss://") || server.starts_with("ws://");
        if !servers || !self.servers.iter().all(url) {
            return refuse("Those are not rendezvous servers.", "Name at most 8, as wss://host.");
        }
        if self.relays.len() > MOST_RELAYS || !self.relays.iter().all(RelaySetting::is_plausible) {
            return refuse(
                "Those are not relays.",
                "Name at most 8, as turn:host:port or turns:host:port, with user name and password.",
            );
        }
        if !MTU.contains(&self.mtu) {
            return refuse(
                format!("An MTU of {} bytes does not work.", self.mtu),
                "Use 1280 to 1420; 1400 is usual.",
            );
        }
        if !DIRECT_TIMEOUT.contains(&self.direct_timeout_s) {
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

    /// The same without passwords, for everybody's eyes.
    #[must_use]
    pub fn without_passwords(&self) -> Self {
        let mut shown = self.clone();
        shown.relays.iter_mut().for_each(|relay| relay.password.clear());
        shown
    }

    /// Puts the passwords that `known` has where a relay comes back without.
    pub fn restore_passwords(&mut self, known: &Self) {
        self.relays.iter_mut().for_each(|relay| known.fill_in_password(relay));
    }

    /// Gives a relay without a password the one that is known for it.
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
        scheme && texts.iter().all(|text| text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control))
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
    fn passwords_stay_where_they_are() {
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
    fn what_is_missing_has_its_default() {
        let read: Settings = serde_json::from_str(r#"{ "port": 7, "methods": { "spray": false } }"#).unwrap();
        let methods = Methods { spray: false, ..Methods::default() };
        assert_eq!(read, Settings { port: 7, methods, ..Settings::default() });
    }

    #[test]
    fn limits_are_looked_at() {
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
            Settings { direct: false, relay: false, ..usual() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
