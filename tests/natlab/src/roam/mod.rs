//! What happens to paths while people play: each trouble comes under a game's stream both ways and a TCP connection,
//! and what counts is how long nothing arrives, what is lost, and that the connection lasts.

mod report;
mod stories;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use partyline_model::{Command, Reply};
use serde::Serialize;

use self::stories::{Story, stories};
use crate::{
    Host, Line,
    matrix::side_by_side,
    party::{Member, Server, World, connected},
    stream::Stream,
    sweep::sweep,
    traffic::Flow,
    until,
    wait::that,
};

/// The game's port.
const GAME: u16 = 27_015;
/// Between two datagrams of the game.
const PACE: Duration = Duration::from_millis(20);
/// How long members get to be back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Datagrams that are to arrive each way before and after the trouble.
const STEADY: usize = 100;
/// Two of these lie between any two: 20 ms one way.
const LINE: Line = Line { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0 };

/// What to play.
#[derive(Debug, Args)]
pub struct Options {
    /// Only stories whose names contain one of these.
    names: Vec<String>,
    /// Seconds that a computer sleeps.
    #[arg(long, default_value_t = 60)]
    sleep: u64,
    /// Stories that are played side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Ends with one JSON object.
    #[arg(long)]
    json: bool,
}

/// How one story went.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    about: &'static str,
    /// What the outage should be at most, in seconds.
    bar_s: f64,
    /// The longest time in which no datagram arrived one way, from the trouble on, or from its end where nothing can
    /// work during it.
    outage_s: Option<f64>,
    /// Datagrams lost, both ways.
    lost: u32,
    /// Datagrams that came again.
    twice: u32,
    /// The longest wait for an answer on the TCP connection.
    tcp_gap_s: Option<f64>,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Plays the chosen stories. It fails if members do not come back, or a connection breaks.
///
/// # Errors
/// When none is chosen.
pub fn play(options: &Options) -> Result<ExitCode> {
    sweep()?;
    let named = |story: &&Story| {
        options.names.is_empty() || options.names.iter().any(|name| story.name.contains(name.as_str()))
    };
    let chosen: Vec<_> = stories().iter().filter(named).collect();
    ensure!(!chosen.is_empty(), "no story of that name");
    let sleep = Duration::from_secs(options.sleep);
    let outcomes = side_by_side(options.jobs, &chosen, |story| one(story, sleep));
    report::print(&outcomes, options.json)?;
    Ok(if outcomes.iter().all(|outcome| outcome.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(story: &Story, sleep: Duration) -> Outcome {
    let blank = Outcome {
        name: story.name,
        about: story.about,
        bar_s: story.bar,
        outage_s: None,
        lost: 0,
        twice: 0,
        tcp_gap_s: None,
        passed: false,
        error: None,
    };
    let failed = |error: anyhow::Error| Outcome { error: Some(format!("{error:#}")), ..blank };
    let world = match World::new() {
        Ok(world) => world,
        Err(error) => return failed(error),
    };
    let played = (story.play)(&world, sleep);
    let limit = Duration::from_secs_f64(story.bar);
    if played.as_ref().map_or(true, |measured| measured.outage > limit) {
        // Whoever wants to know why finds the logs.
        let _ = world.last_words(&format!("roam-{}", story.name));
    }
    let outcome = match played {
        Ok(Measured { outage, lost, twice, tcp }) => Outcome {
            outage_s: Some(outage.as_secs_f64()),
            lost,
            twice,
            tcp_gap_s: Some(tcp.as_secs_f64()),
            passed: true,
            ..blank
        },
        Err(error) => failed(error),
    };
    eprintln!("{}", report::line(&outcome));
    outcome
}

/// What a story measured.
struct Measured {
    outage: Duration,
    lost: u32,
    twice: u32,
    tcp: Duration,
}

/// A party of two with a game running between them.
struct Game {
    members: [Member; 2],
    streams: [Stream; 2],
    flow: Flow,
}

impl Game {
    /// Makes the party and waits until both reach each other; the game begins later.
    fn party(world: &World, servers: &[&Server], hosts: [Host; 2]) -> Result<[Member; 2]> {
        let [one, other] = hosts.map(|host| world.member(host));
        let members = [one?, other?];
        let remote = members[0].remote()?;
        let create = Command::Create {
            name: "Friday night".into(),
            display_name: members[0].name().into(),
            servers: servers.iter().map(|server| server.url()).collect(),
            range: None,
        };
        let Reply::Created { link, .. } = remote.request(create)? else {
            anyhow::bail!("no party was created")
        };
        members[1].join(&link)?;
        connected(&members)?;
        Ok(members)
    }

    /// Begins to play, and waits until all runs.
    fn start(members: [Member; 2]) -> Result<Self> {
        let addresses = [members[0].address()?, members[1].address()?];
        let stream = |from: usize, to: usize| {
            Stream::start(&members[from].host, &members[to].host, (addresses[to], GAME).into(), PACE)
        };
        let streams = [stream(0, 1)?, stream(1, 0)?];
        let flow = Flow::start(&members[0].host, &members[1].host, addresses[1].into())?;
        let game = Self { members, streams, flow };
        game.more()?;
        Ok(game)
    }

    /// Waits until many more datagrams have arrived both ways.
    fn more(&self) -> Result<()> {
        let before = self.streams.each_ref().map(Stream::count);
        until("the game to run", PATIENCE, || {
            let now = self.streams.each_ref().map(Stream::count);
            let steady = now.iter().zip(before).all(|(now, before)| *now >= before + STEADY);
            that(steady, || format!("{before:?} datagrams, later {now:?}"))
        })
    }

    /// Waits until datagrams sent after the trouble arrive both ways, and some time more; then ends the game.
    fn end(self, trouble: Instant) -> Result<Measured> {
        until("the game to go on", PATIENCE, || {
            let first = self.streams.each_ref().map(|stream| stream.book().first_sent_after(trouble));
            that(first.iter().all(Option::is_some), || format!("arrived again: {first:?}"))
        })?;
        self.more()?;
        let tcp = self.flow.stop()?.longest;
        let (mut outage, mut lost, mut twice) = (Duration::ZERO, 0, 0);
        for stream in self.streams {
            let book = stream.stop()?;
            outage = outage.max(book.longest_silence(trouble));
            let counts = book.lost_and_twice();
            lost += counts.0;
            twice += counts.1;
        }
        Ok(Measured { outage, lost, twice, tcp })
    }

    /// The relay by which the first member reaches the other.
    fn relay(&self) -> Result<String> {
        let seen = self.members[0].sees(self.members[1].name())?;
        seen.path.and_then(|path| path.relay).context("not relayed")
    }
}

/// Time that passes outside, for as long as somebody sleeps.
fn pass(time: Duration) {
    thread::sleep(time);
}
