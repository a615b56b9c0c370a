//! Cards that a computer has beside its real one: bridges of containers, and other VPNs.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::IpNet;
use partyline_model::{CardKind, RouteTarget};
use partyline_node::HostAddress;
use partyline_tests_netsim::{Card, Dice, Line, Overlay};
use serde::{Deserialize, Serialize};

/// The networks that container engines and virtual machines take first, the same on every computer.
const BRIDGES: [([u8; 4], u8); 3] = [([172, 17, 0, 1], 16), ([192, 168, 122, 1], 24), ([172, 18, 0, 1], 16)];

/// Another VPN that some members share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherVpn {
    /// False if it leads nowhere.
    pub up: bool,
    /// True if it carries multicast, so that its members take each other for neighbors.
    pub multicast: bool,
    /// The one-way delay between two members in milliseconds.
    pub latency_ms: u16,
    /// The longest additional delay in milliseconds.
    pub jitter_ms: u16,
    /// Lost packets per thousand.
    pub loss: u16,
}

/// A virtual card of a member's computer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtualCard {
    /// A bridge, by number: nothing outside the computer is behind it.
    Bridge(usize),
    /// The card of another VPN, by number.
    Vpn(usize),
}

impl OtherVpn {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        Self {
            up: dice.below(100) < 65,
            multicast: dice.below(100) < 40,
            // Some are quicker than the way between the homes, as far as anybody can measure.
            latency_ms: 1 + dice.below(60) as u16,
            jitter_ms: dice.below(10) as u16,
            loss: if dice.below(100) < 30 { dice.below(60) as u16 } else { 0 },
        }
    }

    /// Returns it as the simulated network has it.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        let line = Line {
            latency: Duration::from_millis(self.latency_ms.into()),
            jitter: Duration::from_millis(self.jitter_ms.into()),
            loss: f64::from(self.loss) / 1000.0,
            ..Line::IDEAL
        };
        Overlay { line, up: self.up, multicast: self.multicast }
    }
}

impl VirtualCard {
    /// Returns the cards of a computer, where so many other VPNs are in use.
    pub(crate) fn random(dice: &mut Dice, vpns: usize) -> Vec<Self> {
        let mut cards = Vec::new();
        for bridge in 0..BRIDGES.len() {
            cards.extend((dice.below(100) < 20).then_some(Self::Bridge(bridge)));
        }
        for vpn in 0..vpns {
            cards.extend((dice.below(100) < 60).then_some(Self::Vpn(vpn)));
        }
        cards
    }

    /// Returns it as the simulated network has it, on the computer with this number.
    #[must_use]
    pub fn card(self, computer: usize) -> Card {
        let (address, prefix, overlay) = match self {
            Self::Bridge(number) => {
                let (address, prefix) = BRIDGES[number % BRIDGES.len()];
                (address, prefix, None)
            }
            Self::Vpn(number) => ([10, 147, number as u8, 1 + computer as u8], 24, Some(number)),
        };
        let network = IpNet::new(Ipv4Addr::from(address).into(), prefix).expect("a prefix");
        Card { network, overlay }
    }
}

/// Returns what stands behind a card.
pub(crate) const fn kind(card: &Card) -> CardKind {
    if card.overlay.is_some() { CardKind::Overlay } else { CardKind::Internal }
}

/// Returns a card's address as a system lists it.
pub(crate) fn listed(card: &Card) -> HostAddress {
    HostAddress { card: kind(card), ..card.network.addr().into() }
}

/// Returns what a computer's networks are reached by: nothing where there are only ordinary cards, as on a real system.
pub(crate) fn routes(cards: &[Card], home: Option<IpNet>) -> Vec<(IpNet, RouteTarget)> {
    if cards.iter().all(|card| card.overlay.is_none()) {
        return Vec::new();
    }
    let virtual_ones = cards.iter().map(|card| (card.network.trunc(), RouteTarget::Card(kind(card))));
    let home = home.map(|network| (network, RouteTarget::Card(CardKind::Physical)));
    virtual_ones.chain(home).collect()
}
