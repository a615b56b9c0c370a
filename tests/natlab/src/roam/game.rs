//! A game between two members that keeps running while a path, a network or a router breaks.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use partyline_model::{Command, Reply};

use crate::{
    Host, Line,
    party::{Member, Server, World, connected},
    stream::Stream,
    traffic::Flow,
    until,
    wait::that,
};

const GAME_PORT: u16 = 27_015;
/// Interval between two datagrams of the game.
const SEND_INTERVAL: Duration = Duration::from_millis(20);
/// Time limit for the members to exchange packets again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of datagrams that have to arrive in each direction before and after the fault.
const STEADY_DATAGRAMS: usize = 100;
/// The line of every computer. Two lie between any two computers, which makes 20 ms one way.
pub(super) const LINE: Line = Line { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0 };

/// The measurements of one scenario.
pub(super) struct Measured {
    pub outage: Duration,
    pub lost: u32,
    pub twice: u32,
    /// Longest wait for a response on the TCP connection.
    pub tcp: Duration,
}

/// A party of two members with a game running between them.
pub(super) struct Game {
    pub members: [Member; 2],
    streams: [Stream; 2],
    flow: Flow,
}

impl Game {
    /// Creates the party and waits until both members reach each other. [`Game::start`] starts the game.
    pub fn party(world: &World, servers: &[&Server], hosts: [Host; 2]) -> Result<[Member; 2]> {
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

    /// Starts the game and waits until datagrams arrive steadily in both directions.
    pub fn start(members: [Member; 2]) -> Result<Self> {
        let addresses = [members[0].address()?, members[1].address()?];
        let stream = |from: usize, to: usize| {
            Stream::start(
                &members[from].host,
                &members[to].host,
                (addresses[to], GAME_PORT).into(),
                SEND_INTERVAL,
            )
        };
        let streams = [stream(0, 1)?, stream(1, 0)?];
        let flow = Flow::start(&members[0].host, &members[1].host, addresses[1].into())?;
        let game = Self { members, streams, flow };
        game.more()?;
        Ok(game)
    }

    /// Waits until [`STEADY_DATAGRAMS`] more datagrams have arrived in each direction.
    fn more(&self) -> Result<()> {
        let before = self.streams.each_ref().map(Stream::count);
        until("the game to run", RECOVERY_TIMEOUT, || {
            let now = self.streams.each_ref().map(Stream::count);
            let steady = now.iter().zip(before).all(|(now, before)| *now >= before + STEADY_DATAGRAMS);
            that(steady, || format!("{before:?} datagrams, later {now:?}"))
        })
    }

    /// Waits until datagrams sent after the fault arrive in both directions and the stream is steady again, then ends
    /// the game.
    pub fn end(self, trouble: Instant) -> Result<Measured> {
        until("the game to go on", RECOVERY_TIMEOUT, || {
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

    /// Returns the name of the relay on the first member's path to the second.
    pub fn relay(&self) -> Result<String> {
        let seen = self.members[0].sees(self.members[1].name())?;
        seen.path.and_then(|path| path.relay).context("not relayed")
    }
}

/// Waits for a fixed time. Only scenarios about sleep and restarts, where the time itself is tested, use it.
pub(super) fn pass(time: Duration) {
    thread::sleep(time);
}
