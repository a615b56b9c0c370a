//! A TURN server that receives hostile datagrams from a few clients and from peers, in any order.
#![no_main]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use partyline_fuzz::pieces;
use partyline_model::{Now, Timestamp};
use partyline_relay::{
    Client, ClientTransport, Event, Frame, HEADROOM, Listener, Packet, Relay, RelayAddress, Settings,
    TAILROOM, next_frame,
};

fuzz_target!(|bytes: &[u8]| {
    if let Frame::Complete { length, advance } = next_frame(bytes) {
        assert!(length <= advance);
    }
    let mut now = Now { instant: Instant::now(), unix: Timestamp(1_000_000_000_000) };
    let mut relay = relay();
    for (who, message) in pieces(bytes) {
        let transport =
            if who & 1 == 0 { ClientTransport::Udp(0) } else { ClientTransport::Stream(u32::from(who)) };
        let address = SocketAddr::from(([11, 0, 0, who], 1000));
        let mut buffer = vec![0; HEADROOM + message.len() + TAILROOM];
        buffer[HEADROOM..HEADROOM + message.len()].copy_from_slice(message);
        let mut packet = Packet::new(&mut buffer, HEADROOM..HEADROOM + message.len()).expect("there is room");
        relay.handle_client(now, Client { transport, address }, &mut packet);
        drain(&mut relay, now);
        now.instant += Duration::from_secs(1);
        relay.handle_timeout(now);
    }
});

fn relay() -> Relay {
    let public = SocketAddr::from(([11, 255, 0, 1], 3478));
    let listener = Listener { local: public, public };
    let address = RelayAddress { local: public.ip(), public: public.ip() };
    Relay::new(Settings::default(), vec![listener], &[address], [7; 32])
}

/// Carries out the relay's events until there are none.
fn drain(relay: &mut Relay, now: Now) {
    while relay.poll_transmit().is_some() {}
    while let Some(event) = relay.poll_event() {
        if let Event::OpenSocket { socket, .. } = event {
            relay.handle_socket_opened(now, socket, true);
        }
        while relay.poll_transmit().is_some() {}
    }
}
