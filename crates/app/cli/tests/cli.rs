//! The real program against a real local socket, with an engine that answers from a script.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use partyline_ipc::{Access, Call, Endpoint, Server};
use partyline_model::{
    AppError, Attempt, AttemptOutcome, Badge, ClientCommand, Command, DeviceId, DeviceView, DoctorFinding,
    EngineCommand, ErrorCode, InviteId, InviteLifetime, InviteTerms, InviteView, KickScope, MemberView,
    Method, NetworkView, PartyId, PartyPhase, PartyView, PathKind, PathView, Phase, PingSample, Quality,
    Reply, Role, ServerView, Settings, SharedNat, Snapshot, TrafficView, Verdict,
};
use partyline_wire::{
    exact::Signature,
    invite::Invite,
    membership::{Expiry, Issuer, Stamp},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::{mpsc, watch},
};

const LINK: &str = "https://play.example/join#AAECAwQFBgcICQ";
/// An invite that can be read, to a party of this name.
fn link(party: &str) -> String {
    Invite {
        party: PartyId([7; 32]),
        name: party.into(),
        inviter: "Zoë".into(),
        members: 3,
        lobby: [2; 32],
        floor: Stamp { version: 1, amendment: 0, digest: [0; 8] },
        servers: vec!["wss://play.example".into()],
        addresses: Vec::new(),
        nodes: Vec::new(),
        seed: [3; 32],
        not_after: Expiry::from_wire(0),
        uses: None,
        role: Role::Member,
        issuer: Issuer::Authority,
        signature: Signature([4; 64]),
    }
    .app_link()
}

const METRICS: &str = "# TYPE partyline_path_attempts_total counter\npartyline_path_attempts_total 1\n";

fn member(number: u8, name: &str) -> MemberView {
    MemberView {
        id: DeviceId([number; 32]),
        name: name.into(),
        alike: false,
        role: Role::Member,
        me: false,
        confirmed: true,
        invite: InviteId([9; 32]),
        joined_at: 0,
        online: true,
        address: Some([10, 80, 7, number].into()),
        address_v6: None,
        badge: Some(Badge::Symmetric),
        path: Some(PathView {
            kind: PathKind::Relay,
            remote: "192.0.2.7:3478".parse().unwrap(),
            relay: Some("fra".into()),
            via: None,
            age_s: 40,
            handshake_s: Some(12),
            why: vec![Attempt {
                method: Method::Punch,
                outcome: AttemptOutcome::NoAnswer,
                took_ms: 1500,
                note: "both routers change ports".into(),
            }],
        }),
        quality: Quality { rtt_ms: Some(31.4), jitter_ms: Some(1.0), loss: Some(0.02), ..Quality::default() },
        traffic: TrafficView { received_bytes: 2048.0, sent_bytes: 10.0, ..TrafficView::default() },
        history: Vec::new(),
        notices: Default::default(),
    }
}

fn party(number: u8, name: &str) -> PartyView {
    let me = MemberView { me: true, path: None, role: Role::Owner, ..member(1, "Zoë") };
    PartyView {
        id: PartyId([number; 32]),
        name: name.into(),
        phase: PartyPhase::Up,
        role: Role::Owner,
        range: Some("10.80.7.0/24".parse().unwrap()),
        range_requested: false,
        incoming: partyline_model::IncomingPolicy::default(),
        interface: Some("partyline0".into()),
        members: vec![me, member(2, "雪だるま"), member(3, "Bob\u{1b}[2J")],
        invites: Vec::new(),
        approval: false,
        join_requests: Vec::new(),
        waits_for: None,
        servers: vec![ServerView { url: "wss://play.example".into(), connected: true, problem: None }],
        discovery: None,
        problem: None,
    }
}

fn snapshot(parties: Vec<PartyView>) -> Snapshot {
    Snapshot {
        revision: 1,
        phase: Phase::Ready,
        device: DeviceView { id: DeviceId([1; 32]), version: "0".into() },
        parties,
        former_parties: Vec::new(),
        network: NetworkView { badge: Some(Badge::FullCone), ..NetworkView::default() },
        settings: Settings::default(),
    }
}

fn usual(command: &ClientCommand) -> Result<Reply, AppError> {
    let command = match command {
        ClientCommand::Node(command) => command,
        ClientCommand::Engine(_) => return Ok(Reply::Metrics { text: METRICS.into() }),
    };
    Ok(match command {
        Command::Create { .. } => Reply::Created { party: PartyId([7; 32]), link: LINK.into() },
        Command::Join { link, .. } if Invite::find(link).is_ok_and(|invite| invite.name == "old") => {
            return Err(AppError::new(
                ErrorCode::InviteExpired,
                "The invite has expired.",
                "Ask for a new one.",
            ));
        }
        Command::Join { .. } => Reply::Joined { party: PartyId([7; 32]) },
        Command::Invite { .. } => Reply::Invite { link: LINK.into() },
        Command::Ping { member, .. } if *member == DeviceId([2; 32]) => {
            Reply::Pong(PingSample { rtt_ms: 20.0 })
        }
        Command::Ping { .. } => return Err(AppError::new(ErrorCode::Timeout, "No answer.", "Wait.")),
        Command::Doctor => Reply::Doctor(vec![DoctorFinding {
            what: "network device".into(),
            verdict: Verdict::Good,
            note: "can be made".into(),
        }]),
        _ => Reply::Done,
    })
}

/// A service that answers as [`usual`] and writes down what it was asked.
struct Service {
    directory: TempDir,
    asked: Arc<Mutex<Vec<ClientCommand>>>,
    state: watch::Sender<Arc<Snapshot>>,
}

impl Service {
    fn start(parties: Vec<PartyView>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(&Endpoint::in_dir(directory.path()), Access::default()).unwrap();
        let (calls, mut inbox) = mpsc::channel::<Call>(8);
        let (state, snapshots) = watch::channel(Arc::new(snapshot(parties)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, shown) = (asked.clone(), snapshots.clone());
        tokio::spawn(server.serve(calls, snapshots));
        tokio::spawn(async move {
            while let Some((command, answer)) = inbox.recv().await {
                if command == Command::Snapshot {
                    let now = shown.borrow().as_ref().clone();
                    let _ = answer.send(Ok(Reply::Snapshot(Box::new(now))));
                } else {
                    log.lock().unwrap().push(command.clone());
                    let _ = answer.send(usual(&command));
                }
            }
        });
        Self { directory, asked, state }
    }

    async fn run(&self, words: &[&str]) -> Output {
        run(self.directory.path(), words).await
    }

    fn asked(&self) -> Vec<ClientCommand> {
        self.asked.lock().unwrap().clone()
    }
}

fn program(directory: &Path, words: &[&str]) -> tokio::process::Command {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_partyline"));
    program.args(words).env("PARTYLINE_RUNTIME_DIR", directory).env("USER", "ann").env_remove("SUDO_USER");
    program.stdin(Stdio::null()).kill_on_drop(true);
    program
}

async fn run(directory: &Path, words: &[&str]) -> Output {
    program(directory, words).output().await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn create_prints_the_link_and_its_qr_code() {
    let service = Service::start(vec![party(7, "Friday")]);
    let made = service.run(&["create", "Friday", "--qr"]).await;
    assert_eq!(code(&made), 0, "{}", err(&made));
    assert!(out(&made).contains(LINK));
    assert!(out(&made).contains('▀') || out(&made).contains('█'), "{}", out(&made));
    let expected = Command::Create {
        name: "Friday".into(),
        display_name: "ann".into(),
        servers: Vec::new(),
        range: None,
    };
    assert_eq!(service.asked(), [expected]);
    let json = service.run(&["create", "Friday", "--json"]).await;
    let reply: Reply = serde_json::from_slice(&json.stdout).unwrap();
    assert!(matches!(reply, Reply::Created { .. }));
}

#[tokio::test]
async fn create_watch_waits_for_the_party_to_appear() {
    let service = Service::start(Vec::new());
    let mut child = program(service.directory.path(), &["create", "Friday", "--watch"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while lines.next_line().await.unwrap().unwrap() != LINK {}
    // A snapshot from before the party was made must not be shown.
    service.state.send_replace(Arc::new(snapshot(Vec::new())));
    service.state.send_replace(Arc::new(snapshot(vec![party(7, "Friday")])));
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("Friday  on"));
}

#[tokio::test]
async fn what_is_no_invite_is_refused_without_a_service() {
    let nobody = tempfile::tempdir().unwrap();
    let mut cut = link("Friday");
    cut.truncate(cut.len() - 20);
    for (word, said) in
        [("abc", "no Partyline invite in this text"), (cut.as_str(), "the end of this invite is missing")]
    {
        let result = run(nobody.path(), &["join", word]).await;
        assert_eq!(code(&result), 6, "{}", err(&result));
        assert!(err(&result).to_lowercase().contains(&said.to_lowercase()), "{}", err(&result));
    }
    assert_eq!(code(&run(nobody.path(), &["join", &link("Friday")]).await), 3);
}

#[tokio::test]
async fn invite_is_read_from_a_sentence_and_from_standard_input() {
    let service = Service::start(Vec::new());
    let invite = link("Friday");
    let (start, end) = invite.split_at(90);
    let sentence = format!("**{start}\n> {end}**.");
    let expected = |asked: &ClientCommand| matches!(asked, ClientCommand::Node(Command::Join { link, .. }) if *link == invite);
    let words = ["join", "Come", "and", "play:", &sentence, "tonight", "--no-wait"];
    assert_eq!(code(&service.run(&words).await), 0);
    let mut child = program(service.directory.path(), &["join", "-", "--no-wait"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(sentence.as_bytes()).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert_eq!(service.asked.lock().unwrap().iter().filter(|asked| expected(asked)).count(), 2);
}

#[tokio::test]
async fn servers_of_an_invite_are_confirmed_only_if_asked_for_and_the_others_are_named() {
    let mut view = party(7, "Friday");
    let url = "ws://192.168.1.2:4480";
    let hint = format!("Confirm it with `partyline trust {url}`.");
    let problem = AppError::new(ErrorCode::ServerPrivate, "The server is at 192.168.1.2.", hint.clone());
    view.servers = vec![ServerView { url: url.into(), connected: false, problem: Some(problem) }];
    view.members.truncate(1);
    let service = Service::start(vec![view]);
    let joined = service.run(&["join", &link("Friday")]).await;
    assert_eq!(code(&joined), 1, "waiting would not help");
    assert!(err(&joined).contains(&hint), "{}", err(&joined));
    assert!(out(&service.run(&["status"]).await).contains(&hint));
    let trusts = |asked: &ClientCommand| matches!(asked, ClientCommand::Node(Command::TrustServer { .. }));
    assert!(!service.asked().iter().any(trusts));
    assert_eq!(code(&service.run(&["trust", url]).await), 0);
    let confirmed = |url: &str| ClientCommand::from(Command::TrustServer { url: url.to_owned() });
    assert_eq!(service.asked().last(), Some(&confirmed(url)));
    let words = ["join", &link("Friday"), "--trust-servers", "--no-wait"];
    assert_eq!(code(&service.run(&words).await), 0);
    let asked = service.asked();
    let [.., trusted, ClientCommand::Node(Command::Join { .. })] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(*trusted, confirmed("wss://play.example"));
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn invite_in_an_argument_is_not_shown_to_other_users() {
    let service = Service::start(vec![party(7, "Friday")]);
    let invite = link("Friday");
    let mut child = program(service.directory.path(), &["join", "Come:", &invite, "--watch"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while lines.next_line().await.unwrap().unwrap() != "Joined." {}
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id().unwrap())).unwrap();
    let words: Vec<_> = shown.split('\0').filter(|word| !word.is_empty()).skip(1).collect();
    assert_eq!(words, ["join", "-", "-", "--watch"]);
    assert_eq!(service.asked().len(), 1, "it was used all the same");
}

#[tokio::test]
async fn member_with_the_digits_of_anothers_id_as_name_is_not_kicked_for_it() {
    let mut view = party(7, "Friday");
    view.members[2].name = "02020202".into();
    let service = Service::start(vec![view]);
    assert_eq!(code(&service.run(&["kick", "02020202"]).await), 0);
    let party = PartyId([7; 32]);
    assert_eq!(
        service.asked(),
        [Command::Kick { party, member: DeviceId([2; 32]), scope: KickScope::default() }]
    );
}

#[tokio::test]
async fn members_with_names_that_look_alike_are_told_apart() {
    let mut view = party(7, "Friday");
    view.members[1].name = "Anna".into();
    // With a Cyrillic A.
    view.members[2].name = "\u{410}nna".into();
    view.members[1..].iter_mut().for_each(|member| member.alike = true);
    let service = Service::start(vec![view]);
    let status = out(&service.run(&["status"]).await);
    assert!(status.contains("Anna (02020202)") && status.contains("\u{410}nna (03030303)"), "{status}");
    assert!(status.contains("Zoë (owner)"), "{status}");
    let kicked = service.run(&["kick", "Anna"]).await;
    assert_eq!(code(&kicked), 2);
    assert!(err(&kicked).contains("02020202") && err(&kicked).contains("03030303"), "{}", err(&kicked));
    assert_eq!(service.asked().len(), 0);
}

#[tokio::test]
async fn every_command_ends_quietly_on_a_closed_pipe() {
    let service = Service::start(vec![party(7, "Friday")]);
    let invite = link("old");
    for words in [
        &["completions", "bash"][..],
        &["--help"],
        &["create", "--help"],
        &["version"],
        &["status"],
        &["status", "--json"],
        &["list"],
        &["invite", "--list"],
        &["config"],
        &["doctor"],
        &["doctor", "--metrics"],
        &["create", "Friday", "--qr"],
        &["ping", "10.80.7.2", "-c", "2", "-i", "0"],
        &["join", &invite],
        &["dance"],
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let mut program = program(service.directory.path(), words);
        let status = program.stdout(closed()).stderr(closed()).status().await.unwrap();
        // A panic ends with 101, SIGPIPE with no code.
        assert!(status.code().is_some_and(|code| code < 100), "{words:?}: {status}");
    }
}

#[tokio::test]
async fn create_warns_if_friends_elsewhere_cannot_join() {
    let problem =
        AppError::new(ErrorCode::ServerUnreachable, "The server cannot be reached.", "Check its address.");
    let unreached = ServerView { url: "wss://play.example".into(), connected: false, problem: Some(problem) };
    for (servers, said) in [(vec![], "has no server"), (vec![unreached], "wss://play.example: The server")] {
        let service = Service::start(vec![PartyView { servers, ..party(7, "Friday") }]);
        let made = service.run(&["create", "Friday"]).await;
        assert_eq!(code(&made), 0, "{}", err(&made));
        assert!(
            out(&made).contains(said) && out(&made).contains("on this network can join"),
            "{}",
            out(&made)
        );
    }
}

#[tokio::test]
async fn status_says_what_a_shared_router_or_carrier_keeps_from_being_direct() {
    for (shared, said) in
        [(SharedNat::Router, "client isolation"), (SharedNat::Carrier, "IPv6 on both sides")]
    {
        let mut view = party(7, "Friday");
        view.members[1].notices.no_hairpin = Some(shared);
        let status = Service::start(vec![view]).run(&["status"]).await;
        assert!(out(&status).contains("雪だるま is not reached directly") && out(&status).contains(said));
        assert!(!out(&status).contains("Bob is not reached"), "{}", out(&status));
    }
}

#[tokio::test]
async fn join_reports_each_step_and_ends_when_connected() {
    let service = Service::start(Vec::new());
    let mut child = program(service.directory.path(), &["join", &link("Friday"), "--name", "Ann"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Joined.");
    let reach = lines.next_line().await.unwrap().unwrap();
    assert!(reach.starts_with("Friends can reach your games, but not system services"), "{reach}");
    let unreached = vec![ServerView { url: "wss://play.example".into(), connected: false, problem: None }];
    let mut view = PartyView { phase: PartyPhase::Connecting, servers: unreached, ..party(7, "Friday") };
    view.members.truncate(1);
    service.state.send_replace(Arc::new(snapshot(vec![view.clone()])));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Reaching wss://play.example…");
    view.servers[0].connected = true;
    service.state.send_replace(Arc::new(snapshot(vec![view.clone()])));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Waiting for a member to let us in…");
    view.phase = PartyPhase::Up;
    view.members.push(MemberView { path: None, ..member(2, "Bob") });
    service.state.send_replace(Arc::new(snapshot(vec![view.clone()])));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Finding a path to Bob…");
    view.members[1] = member(2, "Bob");
    service.state.send_replace(Arc::new(snapshot(vec![view])));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Bob: relay fra, 31 ms");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn exit_codes_distinguish_failures() {
    let service = Service::start(vec![party(7, "Friday"), party(8, "Saturday")]);
    for (words, expected) in [
        (&["join", &link("old")][..], 6),
        (&["leave", "Sunday"], 5),
        (&["ping", "Nobody"], 5),
        (&["ping", "Bob\u{1b}[2J", "--party", "Friday", "-c", "2", "-i", "0"], 7),
        (&["leave"], 2),
        (&["dance"], 2),
        (&["doctor"], 0),
    ] {
        let result = service.run(words).await;
        assert_eq!(code(&result), expected, "{words:?}: {}", err(&result));
    }
    let nobody = tempfile::tempdir().unwrap();
    let result = run(nobody.path(), &["status"]).await;
    assert_eq!(code(&result), 3);
    assert!(
        err(&result).contains("not running") && err(&result).contains("service install"),
        "{}",
        err(&result)
    );
    assert_eq!(code(&run(nobody.path(), &["doctor"]).await), 1);
}

#[tokio::test]
async fn metrics_are_printed_as_the_service_counted_them() {
    let service = Service::start(Vec::new());
    let printed = service.run(&["doctor", "--metrics"]).await;
    assert_eq!((code(&printed), out(&printed)), (0, METRICS.to_owned()), "{}", err(&printed));
    assert_eq!(service.asked(), [ClientCommand::from(EngineCommand::Metrics)]);
}

#[tokio::test]
async fn errors_in_json_have_code_message_and_hint() {
    let service = Service::start(Vec::new());
    let result = service.run(&["join", &link("old"), "--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&result.stdout).unwrap();
    assert_eq!(answer["error"]["code"], "invite_expired");
    assert_eq!(answer["error"]["hint"], "Ask for a new one.");
}

#[tokio::test]
async fn parties_and_members_are_found_by_name_address_and_id() {
    let service = Service::start(vec![party(7, "Friday"), party(8, "Saturday")]);
    assert_eq!(code(&service.run(&["down", "fRIDAY"]).await), 0);
    assert_eq!(code(&service.run(&["down", "080808"]).await), 0);
    assert_eq!(code(&service.run(&["kick", "10.80.7.3", "--party", "Saturday"]).await), 0);
    assert_eq!(code(&service.run(&["invite", "Friday", "--expires", "7d"]).await), 0);
    let (friday, saturday) = (PartyId([7; 32]), PartyId([8; 32]));
    let expected = [
        Command::Down { party: friday },
        Command::Down { party: saturday },
        Command::Kick { party: saturday, member: DeviceId([3; 32]), scope: KickScope::default() },
        Command::Invite {
            party: friday,
            terms: InviteTerms { lifetime: InviteLifetime::Week, ..InviteTerms::FRIENDS },
        },
    ];
    assert_eq!(service.asked(), expected);
    let myself = service.run(&["ping", "Zoë", "--party", "Friday"]).await;
    assert_eq!(code(&myself), 2, "{}", out(&myself));
    let ambiguous = service.run(&["kick", "雪だるま"]).await;
    assert_eq!(code(&ambiguous), 2);
    let said = err(&ambiguous);
    assert!(said.contains("02020202 in Friday") && said.contains("02020202 in Saturday"), "{said}");
}

#[tokio::test]
async fn invites_are_listed_and_revoked_and_parties_move() {
    let invite =
        InviteView { id: InviteId([0xab; 32]), expires: None, used: 0, uses: None, role: Role::CoOwner };
    let service = Service::start(vec![
        PartyView { invites: vec![invite.clone()], ..party(7, "Friday") },
        party(8, "Saturday"),
    ]);
    let listed = service.run(&["invite", "--list", "Friday"]).await;
    assert!(out(&listed).contains("abababab  never  0     co-owner"), "{}", out(&listed));
    let json = service.run(&["invite", "--list", "Friday", "--json"]).await;
    assert_eq!(
        serde_json::from_slice::<Vec<InviteView>>(&json.stdout).unwrap(),
        std::slice::from_ref(&invite)
    );
    assert_eq!(code(&service.run(&["revoke", "ABABAB"]).await), 0);
    assert_eq!(code(&service.run(&["revoke", "cdcdcd"]).await), 2);
    assert_eq!(code(&service.run(&["range", "10.90.1.0/24", "--party", "Saturday"]).await), 0);
    let expected = [
        Command::Revoke { party: PartyId([7; 32]), invite: invite.id },
        Command::SetRange { party: PartyId([8; 32]), range: "10.90.1.0/24".parse().ok() },
    ];
    assert_eq!(service.asked(), expected);
}

#[tokio::test]
async fn status_is_aligned_and_cannot_control_the_terminal() {
    let service = Service::start(vec![party(7, "Friday")]);
    let status = out(&service.run(&["status", "--why"]).await);
    let expected = "\
Friday  on  10.80.7.0/24  on partyline0  owner
MEMBER       ADDRESS    CONNECTION     PING   LOSS  NETWORK    RECEIVED  SENT
Zoë (owner)  10.80.7.1  this computer  –      –     symmetric  2.0 KiB   10 B
雪だるま     10.80.7.2  relay fra      31 ms  2%    symmetric  2.0 KiB   10 B
    192.0.2.7:3478 for 40 s, handshake 12 s ago; no direct path answers; it is looked for again from time to time
    hole punching    no answer    1500 ms  both routers change ports
Bob\u{fffd}[2J      10.80.7.3  relay fra      31 ms  2%    symmetric  2.0 KiB   10 B
    192.0.2.7:3478 for 40 s, handshake 12 s ago; no direct path answers; it is looked for again from time to time
    hole punching    no answer    1500 ms  both routers change ports

This computer's network: full cone
";
    assert_eq!(status, expected, "\n{status}");
    let list = out(&service.run(&["list"]).await);
    assert!(list.contains("Friday  07070707  on     3 of 3 online  10.80.7.0/24  owner"), "{list}");
}

#[tokio::test]
async fn json_is_the_snapshot_itself() {
    let service = Service::start(vec![party(7, "Friday"), party(8, "Saturday")]);
    let status = service.run(&["status", "--json"]).await;
    let seen: Snapshot = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(seen, snapshot(vec![party(7, "Friday"), party(8, "Saturday")]));
    let one = service.run(&["status", "Saturday", "--json"]).await;
    let seen: Snapshot = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(seen.parties, [party(8, "Saturday")]);
    let ping = service.run(&["ping", "10.80.7.2", "--party", "Friday", "-c", "3", "-i", "0", "--json"]).await;
    let tally: serde_json::Value = serde_json::from_slice(&ping.stdout).unwrap();
    assert_eq!(tally, serde_json::json!({ "sent": 3, "received": 3, "rtt_ms": [20.0, 20.0, 20.0] }));
}

#[tokio::test]
async fn watching_shows_changes_and_survives_the_service() {
    let Service { directory, state, .. } = Service::start(vec![party(7, "Friday")]);
    let mut child = program(directory.path(), &["status", "--watch"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while lines.next_line().await.unwrap().unwrap() != "This computer's network: full cone" {}
    let mut changed = party(7, "Friday");
    changed.members[1].path.as_mut().unwrap().kind = PathKind::Direct;
    state.send_replace(Arc::new(snapshot(vec![changed])));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Friday: 雪だるま direct");
    drop(state);
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "The service has stopped; waiting for it…");

    let server = Server::bind(&Endpoint::in_dir(directory.path()), Access::default()).unwrap();
    let (calls, _inbox) = mpsc::channel(1);
    let (_state, snapshots) = watch::channel(Arc::new(snapshot(Vec::new())));
    tokio::spawn(server.serve(calls, snapshots));
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("No parties."));
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn other_users_are_refused() {
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0) {
        eprintln!("NOT RUN: only root can act as another user");
        return;
    }
    let service = Service::start(Vec::new());
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(service.directory.path(), open).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_partyline"));
    let copy = service.directory.path().join("partyline");
    std::fs::copy(program, &copy).unwrap();
    let mut words = tokio::process::Command::new("setpriv");
    words.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).arg("status");
    let result = words.env("PARTYLINE_RUNTIME_DIR", service.directory.path()).output().await.unwrap();
    assert_eq!(code(&result), 4, "{}", err(&result));
    assert!(err(&result).contains("user 65534"), "{}", err(&result));
}

#[tokio::test]
async fn completions_exist_for_every_shell() {
    let nobody = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(nobody.path(), &["completions", shell]).await;
        assert!(out(&script).contains("partyline"), "{shell}");
    }
}
