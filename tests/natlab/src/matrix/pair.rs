//! One pair of NAT types: two homes with a member each, and the measurements.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use partyline_model::{AttemptOutcome, Command, MemberView, Method, PartyView, PathKind, Reply, Snapshot};
use partyline_nat::{Rules, oracle};
use serde::Serialize;

use crate::{
    Line, Nat, RouterOptions,
    party::{Member, Remote, Server, World},
    stream::Stream,
    until,
    wait::that,
};

/// Interval between two snapshots of both engines.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Interval between two datagrams of the game.
const SEND_INTERVAL: Duration = Duration::from_millis(10);
/// Number of datagrams that have to arrive after a path became direct, to show what the change cost.
const DATAGRAMS_AFTER_CHANGE: usize = 50;
/// Time limit for the first member to settle, and for the datagrams after a change to arrive.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for which a pair that cannot become direct is observed after it connected.
const RELAYED_OBSERVATION: Duration = Duration::from_secs(2);
const GAME_PORT: u16 = 27_015;

/// The NAT types of the two homes.
#[derive(Debug, Clone, Copy)]
pub struct Pair([Rules; 2]);

/// Time limit for each step of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

/// The result of a pair. Times count from the moment when the second member is connected to its server, at which both
/// are online.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub a: String,
    pub b: String,
    /// True if a direct path is possible for these types.
    pub possible: bool,
    /// True if datagrams arrived in both directions.
    pub connected: bool,
    /// True if both members use a direct path.
    pub direct: bool,
    /// Method of the direct path, or else of the path in use.
    pub method: Option<Method>,
    /// Seconds until datagrams had arrived in both directions.
    pub first_packet_s: Option<f64>,
    /// Seconds until both members had a direct path.
    pub direct_s: Option<f64>,
    /// Seconds from the join request until both members were online.
    pub joined_s: Option<f64>,
    /// True if a relay was used before the direct path.
    pub relayed: bool,
    /// Datagrams of the game lost after the first arrival, in both directions.
    pub lost: u32,
    /// Duplicates received in both directions.
    pub twice: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Pair {
    pub const fn new(types: [Rules; 2]) -> Self {
        Self(types)
    }

    /// Returns the short names of the two types.
    pub fn names(&self) -> [String; 2] {
        self.0.map(|rules| rules.short())
    }

    /// Runs the pair in a lab of its own. Errors become part of the result. The logs of unexpected or slow pairs are
    /// kept.
    pub fn run(&self, line: Line, patience: Patience) -> Outcome {
        let [a, b] = self.names();
        let blank = Outcome {
            a,
            b,
            possible: oracle::direct(&self.0[0], &self.0[1]).is_ok(),
            connected: false,
            direct: false,
            method: None,
            first_packet_s: None,
            direct_s: None,
            joined_s: None,
            relayed: false,
            lost: 0,
            twice: 0,
            error: None,
        };
        let played = World::new().and_then(|world| {
            let outcome = self.run_in(&world, line, patience, blank.clone());
            if outcome.as_ref().map_or(true, |outcome| !outcome.is_as_expected() || outcome.is_slow()) {
                let _ = world.last_words(&format!("matrix/{}", blank.name().replace('/', "-")));
            }
            outcome
        });
        let outcome =
            played.unwrap_or_else(|error| Outcome { error: Some(format!("{error:#}")), ..blank.clone() });
        eprintln!("{}", outcome.line());
        outcome
    }

    fn run_in(&self, world: &World, line: Line, patience: Patience, blank: Outcome) -> Result<Outcome> {
        let server = world.far_server("server", line)?;
        let home = |name, rules| {
            let options =
                RouterOptions { nat: Nat::Modelled(rules), line: Some(line), ..RouterOptions::HOME };
            world.member(world.lab.home(name, options)?)
        };
        let members = [home("anna", self.0[0])?, home("ben", self.0[1])?];
        let link = settled_party(&members[0], &server)?;
        let mut trial = Connecting::start(&members, &link)?;
        trial.run(patience, &blank)?;
        trial.conclude(blank)
    }
}

impl Outcome {
    /// Returns the names of both types, separated by `~`.
    pub fn name(&self) -> String {
        format!("{}~{}", self.a, self.b)
    }

    /// Returns true if the pair connected, and has a direct path if one is possible.
    pub fn is_as_expected(&self) -> bool {
        self.error.is_none() && self.connected && (self.direct || !self.possible)
    }

    /// Returns true if the first datagram took longer than the bar for the 95th percentile, or the direct path longer than
    /// any should.
    fn is_slow(&self) -> bool {
        let exceeds = |value: Option<f64>, bar| value.is_some_and(|value| value > bar);
        exceeds(self.first_packet_s, 1.0) || exceeds(self.direct_s, 4.0)
    }

    fn line(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let verdict = match (self.is_as_expected(), self.connected, self.direct) {
            (_, false, _) => "NOT CONNECTED",
            (false, ..) => "NOT DIRECT",
            (true, _, true) => "direct",
            (true, _, false) => "relayed",
        };
        let method = self.method.map_or(String::new(), |method| format!("{method:?}"));
        let (first, direct) = (seconds(self.first_packet_s), seconds(self.direct_s));
        let name = self.name();
        let error = self.error.as_deref().unwrap_or_default();
        format!(
            "{name:18} {verdict:13} {method:10} first {first:>5} direct {direct:>5} lost {} twice {} {error}",
            self.lost, self.twice
        )
    }
}

/// Creates a party, waits until its owner is online and has measured its network, and returns the invite link.
fn settled_party(owner: &Member, server: &Server) -> Result<String> {
    let remote = owner.remote()?;
    let create = Command::Create {
        name: "Friday night".into(),
        display_name: owner.name().into(),
        servers: vec![server.url()],
        range: None,
    };
    let Reply::Created { link, .. } = remote.request(create)? else { bail!("no party was created") };
    until("the owner to settle", SETTLE_TIMEOUT, || {
        let snapshot = remote.snapshot()?;
        that(is_online(&snapshot), || "not online".into())?;
        let report = &snapshot.network.report;
        that(!report.running && report.measured_at.is_some(), || format!("still measuring: {report:?}"))
    })?;
    Ok(link)
}

fn is_online(snapshot: &Snapshot) -> bool {
    let party = snapshot.parties.first();
    party.is_some_and(|party| party.servers.iter().any(|server| server.connected))
}

/// The state of two members while they connect.
struct Connecting<'a> {
    members: &'a [Member; 2],
    remotes: [Remote; 2],
    joined: Instant,
    online: Option<Instant>,
    streams: [Option<Stream>; 2],
    first: Option<Instant>,
    direct: Option<Instant>,
    relayed: bool,
    seen: [Option<MemberView>; 2],
}

impl<'a> Connecting<'a> {
    fn start(members: &'a [Member; 2], link: &str) -> Result<Self> {
        let remotes = [members[0].remote()?, members[1].remote()?];
        let joined = Instant::now();
        let join = Command::Join { link: link.to_owned(), display_name: members[1].name().to_owned() };
        remotes[1].request(join)?;
        Ok(Self {
            members,
            remotes,
            joined,
            online: None,
            streams: [None, None],
            first: None,
            direct: None,
            relayed: false,
            seen: [None, None],
        })
    }

    /// Polls both members until no further change is expected.
    fn run(&mut self, patience: Patience, blank: &Outcome) -> Result<()> {
        let wait = if blank.possible { patience.0 } else { RELAYED_OBSERVATION };
        let mut at_change = None;
        loop {
            self.look()?;
            let since = self.first.unwrap_or(self.joined);
            match (self.first, self.direct) {
                (None, _) => ensure!(since.elapsed() < patience.0, "{}", self.why()),
                (Some(_), None) if since.elapsed() > wait => return Ok(()),
                (Some(_), None) => {}
                (Some(_), Some(direct)) => {
                    let at_change = *at_change.get_or_insert_with(|| self.counts());
                    let more = self
                        .counts()
                        .iter()
                        .zip(at_change)
                        .all(|(now, then)| *now > then + DATAGRAMS_AFTER_CHANGE);
                    if more || direct.elapsed() > SETTLE_TIMEOUT {
                        return Ok(());
                    }
                }
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn look(&mut self) -> Result<()> {
        let snapshots = [self.remotes[0].snapshot()?, self.remotes[1].snapshot()?];
        let now = Instant::now();
        if is_online(&snapshots[1]) {
            self.online.get_or_insert(now);
        }
        let parties = snapshots.each_ref().map(party);
        for (index, party) in parties.iter().enumerate() {
            self.seen[index] = party.and_then(|party| party.members.iter().find(|m| !m.me)).cloned();
        }
        self.send(parties)?;
        let first: Vec<_> = self.streams.iter().flatten().filter_map(Stream::first).collect();
        if let [one, other] = first[..] {
            self.first = Some(one.max(other));
        }
        let kinds = self.seen.each_ref().map(|seen| seen.as_ref()?.path.as_ref().map(|path| path.kind));
        self.relayed |= kinds.contains(&Some(PathKind::Relay));
        if kinds.iter().all(|kind| kind.is_some_and(|kind| kind < PathKind::MemberRelay)) {
            self.direct.get_or_insert(now);
        } else if self.direct.take().is_some() {
            // The direct path was given up again.
            self.relayed = true;
        }
        Ok(())
    }

    /// Starts the game towards each member whose address is known.
    fn send(&mut self, parties: [Option<&PartyView>; 2]) -> Result<()> {
        for (to, party) in parties.into_iter().enumerate() {
            let address = party.and_then(|party| party.members.iter().find(|m| m.me)?.address);
            let (Some(address), None) = (address, &self.streams[to]) else { continue };
            let (from, to_host) = (&self.members[1 - to].host, &self.members[to].host);
            self.streams[to] =
                Some(Stream::start(from, to_host, (address, GAME_PORT).into(), SEND_INTERVAL)?);
        }
        Ok(())
    }

    fn counts(&self) -> [usize; 2] {
        self.streams.each_ref().map(|stream| stream.as_ref().map_or(0, Stream::count))
    }

    fn why(&self) -> String {
        let paths = self.seen.each_ref().map(|seen| seen.as_ref().map(|seen| (seen.online, &seen.path)));
        format!("nothing arrived both ways; {:?} datagrams; paths {paths:?}", self.counts())
    }

    fn conclude(self, blank: Outcome) -> Result<Outcome> {
        let online = self.online.context("never online")?;
        let seconds = |at: Option<Instant>| Some(at?.saturating_duration_since(online).as_secs_f64());
        let method = self.seen.iter().flatten().filter_map(method).max();
        let (mut lost, mut twice) = (0, 0);
        for stream in self.streams.into_iter().flatten() {
            let counts = stream.stop()?.lost_and_twice();
            lost += counts.0;
            twice += counts.1;
        }
        Ok(Outcome {
            connected: self.first.is_some(),
            direct: self.direct.is_some(),
            method,
            first_packet_s: seconds(self.first),
            direct_s: seconds(self.direct),
            joined_s: Some((online - self.joined).as_secs_f64()),
            relayed: self.relayed,
            lost,
            twice,
            ..blank
        })
    }
}

fn party(snapshot: &Arc<Snapshot>) -> Option<&PartyView> {
    snapshot.parties.first()
}

/// Returns the first method that worked and fits the kind of the path in use.
fn method(seen: &MemberView) -> Option<Method> {
    let path = seen.path.as_ref()?;
    let relayed = |method| matches!(method, Method::RelayUdp | Method::RelayTcp | Method::RelayTls);
    let fits = |method| relayed(method) == (path.kind == PathKind::Relay);
    let worked = path.why.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Worked);
    worked.map(|attempt| attempt.method).find(|method| fits(*method))
}
