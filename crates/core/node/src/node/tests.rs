//! Whole nodes, as far as commands and what they ask of the engine go.

use partyline_model::AddressScope;

use super::*;
use crate::testing::start;

const HOME: &str = "ws://192.168.1.2:4480";
const OTHER: &str = "ws://127.0.0.1:631";

fn node(seed: u8, servers: &[&str], saved: Option<&[u8]>) -> Node {
    let servers = servers.iter().map(|url| (*url).to_owned()).collect();
    let config = Config {
        settings: Settings { servers, ..Settings::default() },
        version: "0".to_owned(),
        paths: partyline_paths::Config::default(),
        netcheck: partyline_netcheck::Config::default(),
    };
    Node::new(start(), [seed; 32], config, saved).expect("a node")
}

/// Carries out a command; returns its reply and the servers that are opened, each with its scope.
fn ask(node: &mut Node, command: Command) -> (Result<Reply, AppError>, Vec<(String, AddressScope)>) {
    node.handle_command(start(), 1, command);
    let (mut reply, mut opened) = (None, Vec::new());
    while let Some(output) = node.poll_output() {
        match output {
            Output::Answer { result, .. } => reply = Some(*result),
            Output::ServerOpen { url, scope, .. } => opened.push((url, scope)),
            _ => {}
        }
    }
    (reply.expect("an answer"), opened)
}

fn create(node: &mut Node, servers: &[&str]) -> (String, Vec<(String, AddressScope)>) {
    let servers = servers.iter().map(|url| (*url).to_owned()).collect();
    let command = Command::Create { name: "Friday".into(), display_name: "Ana".into(), servers, range: None };
    match ask(node, command) {
        (Ok(Reply::Created { link, .. }), opened) => (link, opened),
        (other, _) => panic!("{other:?}"),
    }
}

/// Returns the servers that a node opens by itself after a start.
fn opened(node: &mut Node) -> Vec<(String, AddressScope)> {
    ask(node, Command::Snapshot).1
}

#[test]
fn servers_that_the_user_named_need_no_confirmation() {
    let mut ana = node(1, &[HOME], None);
    let any = |url: &str| vec![(url.to_owned(), AddressScope::Any)];
    assert_eq!(create(&mut ana, &[]).1, any(HOME), "from the settings");
    assert_eq!(create(&mut ana, &[OTHER]).1, any(OTHER), "from the command");
    let saved = ana.save();
    let mut restarted = node(1, &[], Some(&saved));
    assert_eq!(opened(&mut restarted), [any(HOME), any(OTHER)].concat());
}

#[test]
fn server_that_the_link_names_is_confirmed_by_a_command_and_stays_so() {
    let (link, _) = create(&mut node(1, &[], None), &[HOME, OTHER]);
    let mut ben = node(2, &[], None);
    let join = Command::Join { link, display_name: "Ben".into() };
    let scopes = |home, other| vec![(HOME.to_owned(), home), (OTHER.to_owned(), other)];
    assert_eq!(ask(&mut ben, join).1, scopes(AddressScope::Public, AddressScope::Public));
    let refused = ask(&mut ben, Command::TrustServer { url: "192.168.1.2".into() }).0;
    assert!(refused.is_err(), "no server");
    let (reply, _) = ask(&mut ben, Command::TrustServer { url: HOME.into() });
    assert_eq!(reply, Ok(Reply::Done));
    let saved = ben.save();
    let mut restarted = node(2, &[], Some(&saved));
    assert_eq!(opened(&mut restarted), scopes(AddressScope::Any, AddressScope::Public));
}

#[test]
fn time_is_asked_of_unconfirmed_servers_at_public_addresses_only() {
    let (link, _) = create(&mut node(1, &[], None), &[HOME]);
    let mut ben = node(2, &[], None);
    // An invite that is over, or a clock that is ahead.
    let late = Now { unix: start().unix.plus(std::time::Duration::from_secs(10 * 86_400)), ..start() };
    ben.handle_command(late, 1, Command::Join { link, display_name: "Ben".into() });
    let asked = std::iter::from_fn(|| ben.poll_output()).find_map(|output| match output {
        Output::AskTime { servers, .. } => Some(servers),
        _ => None,
    });
    assert_eq!(asked, Some(vec![(HOME.to_owned(), AddressScope::Public)]));
}
