//! The configuration: flags override environment variables, which override the TOML file, which overrides the defaults.

mod args;
mod file;
mod warnings;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use partyline_rendezvous::{Limits, RelayOffer};
use partyline_wire::rendezvous::{MAX_RELAYS, MAX_TEXT, RelayServer};
use rand::RngCore;

use crate::{
    StartError,
    relay::{ListenAddress, PeerPolicy, Quotas, RelayAddress, RelayConfig, Secret, Settings},
    tls,
};
pub use crate::{limiter::ConnectionLimits, tls::TlsFiles};
pub use args::{Args, Command};
use file::{File, RelaySection};

/// Minimum length of a relay secret in bytes.
const MIN_SECRET_LENGTH: usize = 16;

/// Maximum length of the relay's realm in bytes. With a longer one, the challenge to an Allocate request without any
/// optional attribute would be more than four times as long as the request, and would not be sent.
const MAX_REALM_LENGTH: usize = 28;

/// A complete and checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses of HTTPS, WebSockets and TURN over TCP.
    pub listen: Vec<SocketAddr>,
    /// The certificate; without one, everything is served without TLS.
    pub tls: Option<TlsFiles>,
    /// The server's public name.
    pub host: Option<String>,
    /// Address on which only metrics and health are served.
    pub admin: Option<SocketAddr>,
    /// The relay, unless it is disabled.
    pub relay: Option<Relay>,
    /// Limits of the rendezvous server.
    pub limits: Limits,
    /// Maximum numbers of TCP connections.
    pub sockets: ConnectionLimits,
}

/// The relay, and what is offered to members.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Configuration of the relay itself.
    pub config: RelayConfig,
    /// Further relays that share the secret, and the credentials' lifetime; this server's own URLs are added when it starts.
    pub offer: RelayOffer,
    /// The region of this server, a text of the operator's choice.
    pub region: String,
    /// Serves TURN over plain TCP on the relay's port.
    pub tcp: bool,
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// A file cannot be read or a setting is invalid; the error says what to do.
    pub fn load(args: &Args) -> Result<Self, StartError> {
        args::refuse_unknown_variables()?;
        let mut file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        args.override_file(&mut file);
        Self::resolve(file, args.dev)
    }

    fn resolve(file: File, dev: bool) -> Result<Self, StartError> {
        let tls = file.tls.map(|tls| TlsFiles { certificate: tls.certificate, key: tls.key });
        let listen = file.listen.unwrap_or_else(|| default_listen(tls.is_some(), dev));
        check_plain(&listen, tls.is_some(), file.insecure_plain.unwrap_or(false))?;
        tls.as_ref().map(tls::check).transpose()?;
        let host = file.host.filter(|host| !host.is_empty());
        check_host(host.as_deref())?;
        let relay = file.relay.enabled.unwrap_or(true).then(|| resolve_relay(file.relay, dev)).transpose()?;
        let limits = file.limits.override_defaults(Limits::default());
        let streams = relay.as_ref().map_or(0, |relay| relay.config.max_streams);
        // Twice as many as rendezvous sessions, so that each member has room for a stream to the relay.
        let sockets = ConnectionLimits {
            total: limits.connections + streams + 1024,
            per_address: limits.connections_per_address * 2,
            per_prefix56: limits.connections_per_prefix56 * 2,
            per_prefix48: limits.connections_per_prefix48 * 2,
        };
        Ok(Self { listen, tls, host, admin: file.admin, relay, limits, sockets })
    }
}

fn default_listen(tls: bool, dev: bool) -> Vec<SocketAddr> {
    match (tls, dev) {
        (_, true) => vec![(Ipv4Addr::LOCALHOST, 4480).into()],
        (true, false) => vec![(Ipv6Addr::UNSPECIFIED, 443).into()],
        (false, false) => vec![(Ipv4Addr::LOCALHOST, 4480).into()],
    }
}

fn check_plain(listen: &[SocketAddr], tls: bool, insecure_plain: bool) -> Result<(), StartError> {
    if listen.is_empty() {
        return Err(StartError::Contradiction("`listen` is empty: give at least one address".to_owned()));
    }
    let open = listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match open {
        Some(address) if !tls && !insecure_plain => Err(StartError::Contradiction(format!(
            "{address} would be served without TLS, so that anyone on the network path could tamper with it\n\
             Give a certificate (--tls-certificate and --tls-key), listen on loopback behind a proxy, or confirm with --insecure-plain."
        ))),
        _ => Ok(()),
    }
}

fn check_host(host: Option<&str>) -> Result<(), StartError> {
    let good = |host: &str| {
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']');
        host.len() < MAX_TEXT - 32 && host.bytes().all(allowed)
    };
    match host {
        Some(host) if !good(host) => {
            Err(StartError::Contradiction(format!("`host` is the server's public name alone, not {host:?}")))
        }
        _ => Ok(()),
    }
}

fn resolve_relay(section: RelaySection, dev: bool) -> Result<Relay, StartError> {
    let secret = relay_secret(&section, dev)?;
    let others: Vec<_> = section
        .others
        .into_iter()
        .map(|other| RelayServer { url: other.url, region: other.region })
        .collect();
    check_others(&others)?;
    let region = section.region.unwrap_or_default();
    let addresses = section.listen.unwrap_or_else(|| default_relay_addresses(dev));
    if addresses.iter().any(IpAddr::is_unspecified) {
        let message = "`relay.listen` needs specific addresses, because members are sent to them";
        return Err(StartError::Contradiction(message.to_owned()));
    }
    let realm = section.realm.unwrap_or_else(|| "partyline".to_owned());
    if realm.len() > MAX_REALM_LENGTH {
        let message = format!("`relay.realm` has more than {MAX_REALM_LENGTH} bytes: {realm:?}");
        return Err(StartError::Contradiction(message));
    }
    let external = section.external.unwrap_or_default();
    let defaults = Quotas::default();
    let settings = Settings {
        realm,
        shared_secret: Some(Secret::new(secret.as_str())),
        ports: section.ports.map_or_else(|| Settings::default().ports, |[first, last]| first..=last),
        peers: PeerPolicy {
            allow_private: section.allow_private_peers.unwrap_or(dev),
            denied: section.denied_peers.unwrap_or_default(),
        },
        quotas: Quotas {
            allocations: section.allocations.unwrap_or(defaults.allocations),
            allocations_per_user: section.allocations_per_user.unwrap_or(defaults.allocations_per_user),
            allocations_per_address: section
                .allocations_per_address
                .unwrap_or(defaults.allocations_per_address),
            bandwidth_per_allocation: bandwidth(
                section.bandwidth_per_allocation,
                defaults.bandwidth_per_allocation,
            ),
            bandwidth_per_network: bandwidth(section.bandwidth_per_network, defaults.bandwidth_per_network),
            bandwidth: bandwidth(section.bandwidth, defaults.bandwidth),
            ..defaults
        },
        foreign_payloads: section.foreign_payloads.unwrap_or(false),
        ..Settings::default()
    };
    let config = RelayConfig {
        listen: addresses.iter().map(|bind| listen_address(*bind, &external)).collect(),
        port: section.port.unwrap_or(3478),
        alternate_port: section.alternate_port.or(Some(3479)).filter(|port| *port != 0),
        relay: relay_addresses(&addresses, &external),
        max_streams: section.streams.unwrap_or(10_000),
        settings,
    };
    let lifetime = Duration::from_secs(section.credential_hours.unwrap_or(12).clamp(1, 24 * 30) * 3600);
    let realm = config.settings.realm.clone();
    let offer = RelayOffer { servers: others, secret: secret.into_bytes(), realm, lifetime };
    Ok(Relay { config, offer, region, tcp: section.tcp.unwrap_or(true) })
}

/// A bandwidth of 0 is no limit.
fn bandwidth(given: Option<u64>, default: Option<u64>) -> Option<u64> {
    given.or(default).filter(|bytes_per_second| *bytes_per_second > 0)
}

fn relay_secret(section: &RelaySection, dev: bool) -> Result<String, StartError> {
    let secret = match (&section.secret, &section.secret_file) {
        (Some(_), Some(_)) => Err("give `relay.secret` or `relay.secret_file`, not both".to_owned()),
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(path)) => read_secret(path),
        (None, None) if dev || section.others.is_empty() => Ok(random_secret()),
        (None, None) => {
            Err("other relays are listed, so they and this server need the same `relay.secret`".to_owned())
        }
    };
    let secret = secret.map_err(StartError::Contradiction)?;
    if secret.len() < MIN_SECRET_LENGTH {
        let message = format!(
            "the relay secret has fewer than {MIN_SECRET_LENGTH} characters; try `openssl rand -hex 32`"
        );
        return Err(StartError::Contradiction(message));
    }
    Ok(secret)
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    text.map(|text| text.trim().to_owned())
        .map_err(|cause| format!("cannot read the relay secret {}: {cause}", path.display()))
}

/// A random secret is valid until the server stops, which is enough for a single relay: members request new credentials
/// after a restart.
fn random_secret() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_others(others: &[RelayServer]) -> Result<(), StartError> {
    // This server offers two URLs of its own.
    if others.len() + 2 > MAX_RELAYS {
        return Err(StartError::Contradiction(format!(
            "at most {} other relays can be listed",
            MAX_RELAYS - 2
        )));
    }
    let bad = others.iter().find(|other| {
        let turn = other.url.starts_with("turn:") || other.url.starts_with("turns:");
        !turn || other.url.len() > MAX_TEXT || other.region.len() > MAX_TEXT
    });
    bad.map_or(Ok(()), |bad| {
        let message =
            format!("{:?} is not a relay URL; it should look like turn:host:3478?transport=udp", bad.url);
        Err(StartError::Contradiction(message))
    })
}

fn listen_address(bind: IpAddr, external: &[IpAddr]) -> ListenAddress {
    ListenAddress { bind, external: of_family(bind, external) }
}

/// Relayed ports are opened on the first listening address of each family.
fn relay_addresses(addresses: &[IpAddr], external: &[IpAddr]) -> Vec<RelayAddress> {
    let first = |v6: bool| addresses.iter().copied().find(|address| address.is_ipv6() == v6);
    let relay = |local| RelayAddress { local, public: of_family(local, external).unwrap_or(local) };
    [first(false), first(true)].into_iter().flatten().map(relay).collect()
}

fn of_family(address: IpAddr, among: &[IpAddr]) -> Option<IpAddr> {
    among.iter().copied().find(|other| other.is_ipv6() == address.is_ipv6())
}

fn default_relay_addresses(dev: bool) -> Vec<IpAddr> {
    if dev {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    // Connecting a UDP socket sends nothing; it only asks the routing table which address would be used.
    let outward = |bind: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((bind, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let v4 = outward(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = outward(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let found: Vec<_> = [v4, v6].into_iter().flatten().collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, StartError> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&Args { config: Some(path), ..Args::default() })
    }

    fn error_text(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn empty_configuration_is_a_plain_server_on_loopback() {
        let config = load("").unwrap();
        assert!(config.listen.iter().all(|address| address.ip().is_loopback()));
        assert!(config.tls.is_none());
        assert!(config.relay.is_some());
    }

    #[test]
    fn unknown_key_is_reported_with_its_line_and_the_known_ones() {
        let message = error_text("host = \"party.example\"\nlissen = []\n");
        assert!(
            message.contains("line 2") && message.contains("lissen") && message.contains("listen"),
            "{message}"
        );
        assert!(error_text("[limits]\nconections = 5\n").contains("connections"));
    }

    #[test]
    fn plain_listening_is_limited_to_loopback_unless_confirmed() {
        assert!(error_text("listen = [\"0.0.0.0:80\"]").contains("--insecure-plain"));
        assert!(load("listen = [\"0.0.0.0:80\"]\ninsecure_plain = true").is_ok());
        assert!(load("listen = [\"127.0.0.1:80\", \"[::1]:80\"]").is_ok());
    }

    #[test]
    fn missing_files_are_reported_with_their_paths() {
        let missing =
            Config::load(&Args { config: Some("/nonexistent/server.toml".into()), ..Args::default() });
        assert!(matches!(missing, Err(StartError::ConfigUnreadable { .. })));
        assert!(
            error_text("[tls]\ncertificate = \"/nonexistent/a\"\nkey = \"/nonexistent/b\"")
                .contains("/nonexistent/a")
        );
    }

    #[test]
    fn flags_override_the_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("server.toml");
        std::fs::write(&path, "listen = [\"127.0.0.1:1\"]\n[relay]\nport = 1\nregion = \"eu\"").unwrap();
        let listen = vec!["127.0.0.1:2".parse().unwrap()];
        let args =
            Args { config: Some(path), listen: listen.clone(), relay_port: Some(2), ..Args::default() };
        let config = Config::load(&args).unwrap();
        assert_eq!(config.listen, listen);
        let relay = config.relay.unwrap();
        assert_eq!((relay.config.port, relay.region.as_str()), (2, "eu"));
    }

    #[test]
    fn relay_secrets_are_checked_and_required_with_other_relays() {
        assert!(error_text("[relay]\nsecret = \"short\"").contains("openssl"));
        let other = "[[relay.others]]\nurl = \"turn:b.example:3478?transport=udp\"\n";
        assert!(error_text(other).contains("same `relay.secret`"));
        let config = load(&format!("[relay]\nsecret = \"0123456789abcdef\"\n{other}")).unwrap();
        assert_eq!(config.relay.unwrap().offer.servers.len(), 1);
        let wrong = "[relay]\nsecret = \"0123456789abcdef\"\n[[relay.others]]\nurl = \"http://b.example\"\n";
        assert!(error_text(wrong).contains("turn:host"));
    }

    #[test]
    fn external_addresses_apply_by_family() {
        let text = "[relay]\nlisten = [\"10.0.0.1\", \"fd00::1\"]\nexternal = [\"203.0.113.1\"]";
        let relay = load(text).unwrap().relay.unwrap().config;
        assert_eq!(relay.listen[0].external, Some("203.0.113.1".parse().unwrap()));
        assert_eq!(relay.listen[1].external, None);
        assert_eq!(relay.relay[0].public, "203.0.113.1".parse::<IpAddr>().unwrap());
        assert_eq!(relay.relay[1].public, "fd00::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn bandwidths_have_defaults_and_zero_is_no_limit() {
        let quotas = |text: &str| load(text).unwrap().relay.unwrap().config.settings.quotas;
        let default = quotas("");
        assert!(default.bandwidth.is_some() && default.bandwidth_per_network.is_some());
        let unlimited =
            quotas("[relay]\nbandwidth = 0\nbandwidth_per_network = 0\nbandwidth_per_allocation = 0");
        assert_eq!(
            (unlimited.bandwidth, unlimited.bandwidth_per_network, unlimited.bandwidth_per_allocation),
            (None, None, None)
        );
        assert_eq!(quotas("[relay]\nbandwidth_per_network = 5").bandwidth_per_network, Some(5));
    }

    #[test]
    fn realm_that_is_too_long_for_challenges_is_refused() {
        assert!(load(&format!("[relay]\nrealm = \"{}\"", "r".repeat(28))).is_ok());
        assert!(error_text(&format!("[relay]\nrealm = \"{}\"", "r".repeat(29))).contains("28 bytes"));
    }

    #[test]
    fn relay_can_be_disabled() {
        assert!(load("[relay]\nenabled = false").unwrap().relay.is_none());
    }

    /// The shipped example names every key, so it must be valid and agree with the defaults.
    #[test]
    fn example_file_is_valid_and_states_the_defaults() {
        let example = include_str!("../../../../../installers/server/partyline-server.toml");
        let (before, rest) = example.split_once("[tls]").unwrap();
        let (_, relay) = rest.split_once("[relay]").unwrap();
        let plain = before.replace("[::]:443", "127.0.0.1:443");
        let config = load(&format!("{plain}[relay]\n{relay}")).unwrap();
        assert_eq!(config.limits, Limits::default());
        let (relay, default) = (config.relay.unwrap(), load("").unwrap().relay.unwrap());
        assert_eq!(relay.offer.lifetime, default.offer.lifetime);
        assert_eq!(relay.config.max_streams, default.config.max_streams);
        assert_eq!(relay.config.alternate_port, default.config.alternate_port);
        assert_eq!(format!("{:?}", relay.config.settings), format!("{:?}", default.config.settings));
    }
}
