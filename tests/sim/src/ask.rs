//! What tests ask of the world: commands, views, packets.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::Ipv4Net;
use partyline_model::{
    AppError, Command, InviteLifetime, MemberView, PartyId, PartyView, PathKind, Reply, Role, Snapshot,
};

use crate::{World, packet};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(10);

impl World {
    /// Has a member carry out a command, and waits for the answer.
    ///
    /// # Errors
    /// What the node answers.
    pub fn command(&mut self, who: usize, command: Command) -> Result<Reply, AppError> {
        self.members[who].next_request += 1;
        let request = self.members[who].next_request;
        self.with(who, |node, now| node.handle_command(now, request, command));
        self.until("an answer", COMMAND, |world| world.members[who].answers.contains_key(&request));
        self.members[who].answers.remove(&request).expect("an answer")
    }

    /// Makes a party; returns it and the link to it.
    pub fn create(&mut self, who: usize, range: Option<&str>) -> (PartyId, String) {
        let range: Option<Ipv4Net> = range.map(|text| text.parse().expect("a range"));
        let command = Command::Create {
            name: "friday".into(),
            display_name: format!("member {who}"),
            servers: Vec::new(),
            range,
        };
        match self.command(who, command) {
            Ok(Reply::Created { party, link }) => (party, link),
            other => panic!("no party: {other:?}"),
        }
    }

    /// Joins a party.
    pub fn join(&mut self, who: usize, link: &str) {
        let command = Command::Join { link: link.to_owned(), display_name: format!("member {who}") };
        self.command(who, command).expect("a way in");
    }

    /// An invite that never ends.
    pub fn invite(&mut self, who: usize, party: PartyId) -> String {
        let command = Command::Invite { party, lifetime: InviteLifetime::Never, role: Role::Member };
        match self.command(who, command) {
            Ok(Reply::Invite { link }) => link,
            other => panic!("no invite: {other:?}"),
        }
    }

    /// So many members of one new party, all connected.
    pub fn party(&mut self, size: usize) -> PartyId {
        let first = self.members.len();
        (0..size).for_each(|_| _ = self.member());
        let (party, link) = self.create(first, None);
        (first + 1..first + size).for_each(|who| self.join(who, &link));
        self.until_mesh(Duration::from_secs(30));
        party
    }

    /// Lets time pass until something is so; returns how long it took.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn until(&mut self, what: &str, limit: Duration, mut is_so: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.now.instant;
        while !is_so(self) {
            let more = self.step(start + limit);
            assert!(more, "waited {limit:?} for {what} in vain");
        }
        self.now.instant - start
    }

    /// Waits until everybody who runs sees everybody else who runs, connected and with an address; returns how long
    /// it took.
    pub fn until_mesh(&mut self, limit: Duration) -> Duration {
        let mut waited = Duration::ZERO;
        while !self.is_mesh() {
            assert!(waited < limit, "no full mesh after {limit:?}: missing {:?}", self.missing());
            self.run(Duration::from_millis(100));
            waited += Duration::from_millis(100);
        }
        waited
    }

    fn is_mesh(&self) -> bool {
        self.missing().is_empty()
    }

    /// Pairs of which the first does not see the second connected.
    #[must_use]
    pub fn missing(&self) -> Vec<(usize, usize)> {
        let mut missing = Vec::new();
        for from in self.running() {
            for to in self.running().filter(|to| *to != from) {
                if !self.sees(from, to).is_some_and(|view| is_connected(&view)) {
                    missing.push((from, to));
                }
            }
        }
        missing
    }

    /// Members whose program runs and has a party that is on.
    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|who| !self.members[*who].devices.is_empty() || self.wants_party(*who))
    }

    fn wants_party(&self, who: usize) -> bool {
        let on = |party: &PartyView| party.phase != partyline_model::PartyPhase::Down;
        self.members[who].node.is_some() && self.snapshot(who).parties.iter().any(on)
    }

    /// What a member shows.
    #[must_use]
    pub fn snapshot(&self, who: usize) -> Snapshot {
        self.members[who].node.as_ref().expect("a running program").snapshot(self.now)
    }

    /// What a member shows of its first party.
    #[must_use]
    pub fn view(&self, who: usize) -> PartyView {
        self.snapshot(who).parties.into_iter().next().expect("a party")
    }

    /// What one member knows of another.
    #[must_use]
    pub fn sees(&self, who: usize, other: usize) -> Option<MemberView> {
        let id = self.members[other].node.as_ref()?.device();
        self.snapshot(who).parties.into_iter().next()?.members.into_iter().find(|member| member.id == id)
    }

    /// What carries packets between two.
    #[must_use]
    pub fn path(&self, who: usize, other: usize) -> Option<PathKind> {
        Some(self.sees(who, other)?.path?.kind)
    }

    /// A member's address in its first party.
    #[must_use]
    pub fn address(&self, who: usize) -> Ipv4Addr {
        self.members[who].devices.values().next().expect("a device").v4.addr()
    }

    /// Puts a packet on a member's device.
    pub fn send_packet(&mut self, who: usize, to: Ipv4Addr, payload: &[u8]) {
        let party = *self.members[who].devices.keys().next().expect("a device");
        let mut packet = packet::udp(self.address(who), to, payload);
        self.with(who, |node, now| node.handle_packet(now.instant, party, &mut packet));
    }

    /// How often a member's devices got this payload, and from whom.
    #[must_use]
    pub fn heard(&self, who: usize, payload: &[u8]) -> Vec<IpAddr> {
        let packets = self.members[who].received.iter();
        let opened = packets.filter_map(|(_, packet)| packet::open(packet));
        opened.filter(|(_, heard)| *heard == payload).map(|(from, _)| from.into()).collect()
    }

    /// Sends a packet and says whether it arrived within two seconds, exactly once and from the right address.
    pub fn reaches(&mut self, from: usize, to: usize) -> bool {
        let payload = format!("{from} to {to} at {:?}", self.now.unix).into_bytes();
        let target = self.address(to);
        self.send_packet(from, target, &payload);
        self.run(Duration::from_secs(2));
        self.heard(to, &payload) == [IpAddr::from(self.address(from))]
    }

    /// Checks that packets pass between all whose devices stand, in both directions.
    pub fn assert_all_reach(&mut self) {
        let up: Vec<usize> =
            (0..self.members.len()).filter(|who| !self.members[*who].devices.is_empty()).collect();
        let mut sent = Vec::new();
        for (from, to) in
            up.iter().flat_map(|from| up.iter().map(move |to| (*from, *to))).filter(|(a, b)| a != b)
        {
            let payload = format!("{from} to {to} at {:?}", self.now.unix).into_bytes();
            let target = self.address(to);
            self.send_packet(from, target, &payload);
            sent.push((from, to, payload));
        }
        self.run(Duration::from_secs(2));
        for (from, to, payload) in sent {
            let heard = self.heard(to, &payload);
            assert_eq!(heard, [IpAddr::from(self.address(from))], "from {from} to {to}");
        }
    }
}

fn is_connected(view: &MemberView) -> bool {
    let shaken = view.path.as_ref().is_some_and(|path| path.handshake_s.is_some());
    shaken && view.address.is_some()
}
