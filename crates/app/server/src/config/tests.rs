use super::*;

fn load(text: &str) -> Result<Config, StartError> {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&Args { config: Some(path), ..Args::default() })
}

fn complaint(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn nothing_at_all_is_a_plain_server_on_loopback() {
    let config = load("").unwrap();
    assert!(config.listen.iter().all(|address| address.ip().is_loopback()));
    assert!(config.tls.is_none());
    assert!(config.relay.is_some());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
    let message = complaint("host = \"party.example\"\nlissen = []\n");
    assert!(
        message.contains("line 2") && message.contains("lissen") && message.contains("listen"),
        "{message}"
    );
    assert!(complaint("[limits]\nconections = 5\n").contains("connections"));
}

#[test]
fn plain_is_for_loopback_unless_insisted_on() {
    assert!(complaint("listen = [\"0.0.0.0:80\"]").contains("--insecure-plain"));
    assert!(load("listen = [\"0.0.0.0:80\"]\ninsecure_plain = true").is_ok());
    assert!(load("listen = [\"127.0.0.1:80\", \"[::1]:80\"]").is_ok());
}

#[test]
fn a_missing_file_and_a_missing_certificate_are_named() {
    let missing = Config::load(&Args { config: Some("/nonexistent/server.toml".into()), ..Args::default() });
    assert!(matches!(missing, Err(StartError::ConfigUnreadable { .. })));
    assert!(
        complaint("[tls]\ncertificate = \"/nonexistent/a\"\nkey = \"/nonexistent/b\"")
            .contains("/nonexistent/a")
    );
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("server.toml");
    std::fs::write(&path, "listen = [\"127.0.0.1:1\"]\n[relay]\nport = 1\nregion = \"eu\"").unwrap();
    let listen = vec!["127.0.0.1:2".parse().unwrap()];
    let args = Args { config: Some(path), listen: listen.clone(), relay_port: Some(2), ..Args::default() };
    let config = Config::load(&args).unwrap();
    assert_eq!(config.listen, listen);
    let relay = config.relay.unwrap();
    assert_eq!((relay.config.port, relay.region.as_str()), (2, "eu"));
}

#[test]
fn relay_secrets_are_checked_and_shared_ones_must_be_given() {
    assert!(complaint("[relay]\nsecret = \"short\"").contains("openssl"));
    let other = "[[relay.others]]\nurl = \"turn:b.example:3478?transport=udp\"\n";
    assert!(complaint(other).contains("same `relay.secret`"));
    let config = load(&format!("[relay]\nsecret = \"0123456789abcdef\"\n{other}")).unwrap();
    assert_eq!(config.relay.unwrap().offer.servers.len(), 1);
    let wrong = "[relay]\nsecret = \"0123456789abcdef\"\n[[relay.others]]\nurl = \"http://b.example\"\n";
    assert!(complaint(wrong).contains("turn:host"));
}

#[test]
fn each_family_has_its_external_address() {
    let text = "[relay]\nlisten = [\"10.0.0.1\", \"fd00::1\"]\nexternal = [\"203.0.113.1\"]";
    let relay = load(text).unwrap().relay.unwrap().config;
    assert_eq!(relay.listen[0].external, Some("203.0.113.1".parse().unwrap()));
    assert_eq!(relay.listen[1].external, None);
    assert_eq!(relay.relay[0].public, "203.0.113.1".parse::<IpAddr>().unwrap());
    assert_eq!(relay.relay[1].public, "fd00::1".parse::<IpAddr>().unwrap());
}

#[test]
fn the_relay_can_be_left_out() {
    assert!(load("[relay]\nenabled = false").unwrap().relay.is_none());
}

/// The example that is shipped names every key, so it must be one that is understood, and say what the defaults are.
#[test]
fn the_example_file_is_understood_and_states_the_defaults() {
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
