//! A party of four behind different NATs, and what is done to it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use partyline_model::{Allocation, Filtering, Mapping};
use partyline_nat::Rules;

use super::trouble::{NAMES, Trouble, WITNESS};
use crate::{
    Line, Nat, RouterOptions, Site,
    party::{CONNECT_TIMEOUT, Member, Server, World, pairs},
    until,
};

const DISTANCE: Line = Line { latency: Duration::from_millis(5), jitter: Duration::from_millis(2), loss: 0 };
const HOME: RouterOptions = RouterOptions { line: Some(DISTANCE), ..RouterOptions::HOME };
/// How long a cable is out, a router's line is down, and a computer sleeps.
const OUTAGE: Duration = Duration::from_secs(3);
/// The ranges that the party moves through.
const RANGES: [&str; 3] = ["10.80.1.0/24", "10.90.2.0/24", "172.29.3.0/24"];

/// The party.
pub(super) struct Life<'lab> {
    sites: Vec<Site<'lab>>,
    server: Server,
    members: Vec<Member>,
    /// The link by which members come back, another one after each kick. One for each return would exceed what a party may
    /// have open.
    invite: String,
    range: usize,
}

impl<'lab> Life<'lab> {
    /// Builds the homes and connects the party.
    pub(super) fn new(world: &'lab World) -> Result<Self> {
        let server = world.far_server("server", DISTANCE)?;
        let full_cone =
            Rules::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent, Allocation::Preserving);
        let homes = [
            HOME,
            // The witness opens many sockets for its paths.
            RouterOptions { nat: Nat::Symmetric, ..HOME },
            RouterOptions { nat: Nat::Modelled(full_cone), ..HOME },
            RouterOptions { ipv6: true, ..HOME },
        ];
        let sites: Vec<_> =
            NAMES.iter().zip(homes).map(|(name, home)| world.lab.site(name, home)).collect::<Result<_>>()?;
        let hosts = sites.iter().zip(NAMES).map(|(site, name)| site.host(name)).collect::<Result<_>>()?;
        let members = world.party(Some(&server), hosts)?;
        let invite = members[0].invite()?;
        Ok(Self { sites, server, members, invite, range: 0 })
    }

    /// Returns the process of the service that runs from the beginning to the end.
    pub(super) fn witness(&self) -> Result<u32> {
        self.members[WITNESS].process_id()
    }

    /// Makes a trouble and waits until it is over.
    pub(super) fn suffer(&mut self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Rejoin(who) => {
                self.members[who].partyline(&["leave"])?;
                self.join_again(who)
            }
            Trouble::Kick(who) => {
                self.members[0].partyline(&["kick", NAMES[who]])?;
                until(&format!("{} to notice", NAMES[who]), CONNECT_TIMEOUT, || {
                    ensure!(self.members[who].party()?.problem.is_some(), "still in the party");
                    Ok(())
                })?;
                // A removed device stays out, so its place is taken by a new one; and so does the link by which it came.
                self.members[who].start_afresh()?;
                self.invite = self.members[0].invite()?;
                self.join_again(who)
            }
            Trouble::Range => {
                self.range = (self.range + 1) % RANGES.len();
                self.members[0].partyline(&["range", RANGES[self.range]]).map(drop)
            }
            Trouble::Restart(who) => {
                self.members[who].stop()?;
                self.members[who].start()
            }
            Trouble::Kill(who) => {
                self.members[who].crash()?;
                self.members[who].start()
            }
            Trouble::ServerRestart => {
                self.server.kill()?;
                self.server.restart()
            }
            Trouble::Cable(who) => {
                self.members[who].host.cut()?;
                pass(OUTAGE);
                self.members[who].host.restore()
            }
            Trouble::Router(who) => {
                self.sites[who].go_down()?;
                pass(OUTAGE);
                self.sites[who].come_up_again()
            }
            Trouble::Sleep(who) => {
                self.members[who].sleep()?;
                pass(OUTAGE);
                self.members[who].wake()
            }
        }
    }

    fn join_again(&self, who: usize) -> Result<()> {
        self.members[who].join(&self.invite)
    }

    /// Waits until everybody lists everybody else, and has an answer from there. Returns who was waited for longest, and
    /// by whom.
    pub(super) fn everybody_answers(&self, trouble: Trouble) -> Result<String> {
        let mut longest = (Duration::ZERO, String::new());
        for (from, to) in pairs(&self.members) {
            let since = Instant::now();
            let what = format!("{} to answer {} after: {trouble}", to.name(), from.name());
            until(&what, CONNECT_TIMEOUT, || {
                let seen = from.sees(to.name())?;
                let address = seen.address.context("no address")?;
                let own = to.address()?;
                ensure!(address == own, "listed at {address}, which is at {own}");
                from.ping(address).with_context(|| format!("path {:?}", seen.path.map(|path| path.kind)))
            })?;
            longest = longest.max((since.elapsed(), format!("{} by {}", to.name(), from.name())));
        }
        Ok(longest.1)
    }
}

/// The time itself is the trouble.
fn pass(time: Duration) {
    thread::sleep(time);
}
