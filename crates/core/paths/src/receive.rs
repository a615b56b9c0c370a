//! What comes in: told apart, taken out of what a relay wrapped around it, and handed to whom it concerns.

use std::{net::SocketAddr, ops::Range, time::Instant};

use partyline_wire::{
    datagram::{self, Kind},
    probe::{self, Claim},
};

use crate::{
    Paths,
    address::canonical,
    api::{Handled, Local, Path, Via},
    machine::Shared,
    peer::Refusal,
    turn::Input,
};

impl Paths {
    /// Takes a datagram from a socket, or one message from a stream.
    pub fn handle_datagram(&mut self, now: Instant, local: Local, src: SocketAddr, bytes: &[u8]) -> Handled {
        let src = canonical(src);
        match (datagram::classify(bytes), local) {
            (Kind::ChannelData, _) => self.channel_data(now, local, src, bytes),
            (Kind::Stun, _) => self.stun(now, local, src, bytes),
            (Kind::WireGuard, Local::Socket(socket)) => {
                let path = self.stands_for(Path { via: Via::Socket(socket), remote: src });
                Handled::Tunnel { payload: 0..bytes.len(), path }
            }
            (Kind::WireGuard, Local::Member(passage)) => {
                Handled::Tunnel { payload: 0..bytes.len(), path: passage.path() }
            }
            _ => {
                self.counters.unknown += 1;
                Handled::Consumed
            }
        }
    }

    /// The path that packets from here belong to, where the peer's NAT shows another port than we send to.
    fn stands_for(&self, path: Path) -> Path {
        self.shared.aliases.get(&path).copied().unwrap_or(path)
    }

    fn channel_data(&mut self, now: Instant, local: Local, src: SocketAddr, bytes: &[u8]) -> Handled {
        let found =
            self.shared.relays.by_source(local, src).find_map(|a| Some((a.id, a.channel_data(bytes)?)));
        match found {
            Some((id, (remote, payload))) => {
                self.relayed(now, Path { via: Via::Relay(id), remote }, payload, bytes)
            }
            None => {
                self.counters.unrelayed += 1;
                Handled::Consumed
            }
        }
    }

    /// What a relay delivered: a probe or a tunnel message.
    fn relayed(&mut self, now: Instant, path: Path, payload: Range<usize>, bytes: &[u8]) -> Handled {
        let data = bytes.get(payload.clone()).unwrap_or_default();
        match datagram::classify(data) {
            Kind::WireGuard => return Handled::Tunnel { payload, path },
            Kind::Stun => {
                if self.probe(now, path, data) == Handled::Foreign {
                    self.counters.stray += 1;
                }
            }
            _ => self.counters.unknown += 1,
        }
        Handled::Consumed
    }

    fn stun(&mut self, now: Instant, local: Local, src: SocketAddr, bytes: &[u8]) -> Handled {
        let Shared { relays, out, .. } = &mut self.shared;
        let mut inputs = relays.by_source(local, src).map(|a| (a.id, a.handle_message(now, bytes, out)));
        let taken = inputs.find(|(_, input)| *input != Input::Foreign);
        drop(inputs);
        match taken {
            Some((id, Input::Data { peer, payload })) => {
                self.relayed(now, Path { via: Via::Relay(id), remote: canonical(peer) }, payload, bytes)
            }
            Some((id, Input::Answer(change))) => {
                if let Some(change) = change {
                    let Shared { relays, events, .. } = &mut self.shared;
                    relays.changed(now, id, change, Some(events));
                }
                self.settle(now);
                Handled::Consumed
            }
            Some((_, Input::Foreign)) | None => match local {
                Local::Socket(socket) => self.probe(now, Path { via: Via::Socket(socket), remote: src }, bytes),
                Local::Member(passage) => self.probe(now, passage.path(), bytes),
                Local::Stream(_) => {
                    self.counters.stray += 1;
                    Handled::Consumed
                }
            },
        }
    }

    fn probe(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Handled {
        let taken = match probe::peek(bytes) {
            Some(Claim::Request { recipient, sender }) => {
                let Some(id) = self.by_tags.get(&(recipient, sender)).copied() else {
                    return Handled::Foreign;
                };
                if !path.leads_to(id) {
                    self.counters.stray += 1;
                    return Handled::Consumed;
                }
                let path = self.stands_for(path);
                self.with_peer(now, id, |peer, env| peer.handle_request(env, path, bytes))
            }
            Some(Claim::Response(transaction)) => {
                let Some(id) = self.shared.open_checks.get(&transaction).copied() else {
                    return Handled::Foreign;
                };
                let taken =
                    self.with_peer(now, id, |peer, env| peer.handle_response(env, path, transaction, bytes));
                if taken == Some(Ok(())) {
                    self.shared.open_checks.remove(&transaction);
                }
                taken
            }
            None => return Handled::Foreign,
        };
        match taken {
            Some(Err(Refusal::Forged)) => self.counters.forged += 1,
            Some(Err(Refusal::Replayed)) => self.counters.replayed += 1,
            Some(Err(Refusal::Stray)) => self.counters.stray += 1,
            Some(Ok(())) | None => {}
        }
        Handled::Consumed
    }
}
