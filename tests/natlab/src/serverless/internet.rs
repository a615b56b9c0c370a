//! An internet without Partyline servers: a DHT, and homes.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    Line, RouterOptions, Site,
    dht::{Dht, Makeup},
    party::{Member, World},
};

/// The lines of the homes, which are 40 ms of round trip apart.
const LINE: Line = Line { latency: Duration::from_millis(10), jitter: Duration::from_millis(1), loss: 0 };

/// A port-restricted home.
pub(super) const HOME: RouterOptions = RouterOptions { line: Some(LINE), ..RouterOptions::HOME };
/// The same, at 40 ms from computers whose line has no delay.
pub(super) const FAR_HOME: RouterOptions = RouterOptions { line: Some(Line::FAR), ..RouterOptions::HOME };
/// A home whose router allocates a random port per destination.
pub(super) const SYMMETRIC: RouterOptions = RouterOptions { line: Some(LINE), ..RouterOptions::SYMMETRIC };
/// A carrier's NAT.
pub(super) const CARRIER: RouterOptions = RouterOptions { carrier: true, ..HOME };

/// A lab with a DHT.
pub(super) struct Internet<'w> {
    pub world: &'w World,
    pub dht: Dht<'w>,
}

impl<'w> Internet<'w> {
    /// Starts the DHT.
    pub fn new(world: &'w World) -> Result<Self> {
        Self::of(world, Makeup { mainline: 0, ..Makeup::USUAL })
    }

    /// Starts a DHT of these nodes.
    pub fn of(world: &'w World, makeup: Makeup) -> Result<Self> {
        Ok(Self { world, dht: Dht::start(&world.lab, makeup)? })
    }

    /// Adds a home with one computer, on which the service runs and knows the DHT's routers.
    pub fn member(&self, name: &str, options: RouterOptions) -> Result<Member> {
        self.member_at(&self.world.lab.site(name, options)?, name)
    }

    /// Adds a computer with the service on a LAN.
    pub fn member_at(&self, site: &Site<'_>, name: &str) -> Result<Member> {
        self.settled(self.world.member(site.host(name)?)?)
    }

    /// Adds a computer with the service and a public address. Its card is plain, since the end of a line looks like another
    /// VPN's; so its line has no delay.
    pub fn open_member(&self, name: &str) -> Result<Member> {
        self.settled(self.world.member(self.world.lab.server(name)?)?)
    }

    fn settled(&self, member: Member) -> Result<Member> {
        let routers = self.dht.routers();
        let routers: Vec<&str> = routers.iter().map(String::as_str).collect();
        set(&member, "bootstrap", &routers)?;
        Ok(member)
    }
}

/// Changes a setting.
pub(super) fn set(member: &Member, key: &str, values: &[&str]) -> Result<()> {
    let said = member.partyline(&[&["config", "set", key], values].concat());
    said.map(drop).with_context(|| format!("set {key} to {values:?}"))
}
