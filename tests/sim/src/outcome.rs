//! How a scenario ended.

use std::time::Duration;

use partyline_model::PathKind;

use crate::{
    judge::{Route, Wrong, is_relayed},
    watch::Outage,
};

/// How long a pair took to connect from the moment at which both were online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairTimes {
    /// The time until packets could flow in both directions.
    pub first: Option<Duration>,
    /// The time until both paths were direct.
    pub direct: Option<Duration>,
}

/// A pair at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The path that its networks allow.
    pub route: Route,
    /// The path that it has.
    pub kind: Option<PathKind>,
    /// True if another VPN connects the two as well.
    pub has_vpn: bool,
    /// How long it took to connect.
    pub times: PairTimes,
}

impl Pair {
    /// Returns true if its path is direct.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.kind.is_some_and(|kind| !is_relayed(kind))
    }
}

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Everything that must not be.
    pub wrong: Vec<Wrong>,
    /// The pairs of those that were members at the end.
    pub pairs: Vec<Pair>,
    /// How long the party took to come to rest after the last event.
    pub rest: Duration,
    /// Messages sent by UDP, on streams and to servers.
    pub messages: u64,
    /// How long the scenario lasted.
    pub lasted: Duration,
    /// The hash of everything sent; the same for every run of the same scenario.
    pub trace: u64,
    /// The number of members.
    pub members: usize,
    /// How long it took for each copy of a member's state until exactly one computer went on.
    pub copies: Vec<Duration>,
    /// The outages after trouble, one for each direction.
    pub outages: Vec<Outage>,
}
