//! All channels, in the order in which they are asked whom they reach.

use partyline_model::{DeviceId, Topic};
use partyline_party::Outgoing;

use super::{
    beacon::Beacon,
    channel::{Channel, Context, Covered},
    channel_kind::ChannelKind,
    direct::Direct,
    party::LocalParty,
    servers::Servers,
    tunnels::{News, Tunnels},
};

/// All channels.
#[derive(Debug)]
pub(super) struct Channels {
    pub servers: Servers,
    pub tunnels: Tunnels,
    pub beacon: Beacon,
    pub direct: Direct,
}

impl Channels {
    /// Sends a message over every channel, or over all but one.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        party: &LocalParty,
        message: &Outgoing,
        except: Option<ChannelKind>,
    ) {
        self.each(|channel, covered| {
            if Some(channel.kind()) != except {
                channel.send(cx, party, message, covered);
            }
        });
    }

    /// Announces over every channel how this device can be reached.
    pub(super) fn announce(&mut self, cx: &mut Context<'_>, party: &mut LocalParty) {
        self.each(|channel, covered| channel.announce(cx, party, covered));
    }

    /// Announces to the servers alone, where they lack the present announcement.
    pub(super) fn announce_to_servers(&mut self, cx: &mut Context<'_>, party: &mut LocalParty) {
        self.servers.announce(cx, party, &|_, _, _| false);
    }

    /// Passes a member's announcement on through the tunnels to members that no server tells, or seems to tell.
    pub(super) fn gossip(
        &self,
        cx: &mut Context<'_>,
        party: &LocalParty,
        announcement: (&Outgoing, DeviceId, News),
        through: Option<DeviceId>,
    ) {
        self.tunnels.gossip(cx, party, announcement, through, &self.server_covers());
    }

    /// Tells a member whose tunnel came up what no server tells it.
    pub(super) fn introduce(&self, cx: &mut Context<'_>, party: &mut LocalParty, to: DeviceId) {
        self.tunnels.introduce(cx, party, to, &self.server_covers());
    }

    fn server_covers(&self) -> impl Fn(&LocalParty, &Topic, &[DeviceId]) -> bool {
        |party, topic, members| self.servers.reaches(party, topic, members)
    }

    /// Calls `act` for each channel, with the question whether an earlier one reaches some members.
    fn each(&mut self, mut act: impl FnMut(&mut dyn Channel, Covered<'_>)) {
        let Self { servers, tunnels, beacon, direct } = self;
        let mut all: [&mut dyn Channel; 4] = [servers, tunnels, beacon, direct];
        for index in 0..all.len() {
            let (earlier, rest) = all.split_at_mut(index);
            let covered = |party: &LocalParty, topic: &Topic, members: &[DeviceId]| {
                earlier.iter().any(|channel| channel.reaches(party, topic, members))
            };
            if let Some(channel) = rest.first_mut() {
                act(&mut **channel, &covered);
            }
        }
    }
}
