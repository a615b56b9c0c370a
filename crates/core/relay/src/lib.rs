//! A TURN server (RFC 8656) and STUN responder (RFC 8489, RFC 5780, RFC 3489) without sockets.
//!
//! [`Relay`] is a state machine: the owner of the sockets hands in packets and the time, and is told what to send and which
//! sockets to open. Requests are dispatched in one place, authenticated with long-term credentials, and every refusal is
//! counted and logged with its STUN error code and reason.
//!
//! Relaying one packet costs a few look-ups in hash tables, whatever the number of allocations, and allocates no memory:
//! headers are written in place, into the room that a [`Packet`] keeps around its bytes. Expiry times are kept in order, so
//! that a timeout costs a logarithm.
//!
//! ```
//! use std::time::Instant;
//! use partyline_model::{Now, Timestamp};
//! use partyline_relay::{
//!     Client, ClientTransport, Forward, HEADROOM, Listener, Packet, Relay, RelayAddress, Settings, TAILROOM,
//! };
//!
//! let now = Now { instant: Instant::now(), unix: Timestamp(1_700_000_000_000) };
//! let address = "198.51.100.1:3478".parse().unwrap();
//! let listener = Listener { local: address, public: address };
//! let relayed = RelayAddress { local: address.ip(), public: address.ip() };
//! let mut relay = Relay::new(Settings::default(), vec![listener], &[relayed], [7; 32]);
//!
//! // A Binding request: type, length, magic cookie, transaction id.
//! let mut buffer = vec![0; HEADROOM + 20 + TAILROOM];
//! buffer[HEADROOM..HEADROOM + 8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
//! let mut packet = Packet::new(&mut buffer, HEADROOM..HEADROOM + 20).unwrap();
//! let client =
//!     Client { transport: ClientTransport::Udp(0), address: "192.0.2.1:5000".parse().unwrap() };
//! assert_eq!(relay.handle_client(now, client, &mut packet), Forward::Consumed);
//!
//! let response = relay.poll_transmit().unwrap();
//! assert_eq!(response.destination, client.address);
//! assert_eq!(response.payload[..2], [1, 1]);
//! assert_eq!(relay.counters().bindings, 1);
//! ```

mod allocate;
mod allocation;
mod allocations;
mod binding;
mod channel;
mod classic;
mod client;
mod counters;
mod credentials;
mod event;
mod forward;
mod frame;
mod integrity;
mod listeners;
mod nonce;
mod own_addresses;
mod peer_policy;
mod permission;
mod quota;
mod rejection;
mod relay;
mod relayed_addresses;
mod request;
mod response;
mod saturation;
mod settings;
mod source;

pub use client::{Client, ClientTransport, RelaySocket};
pub use counters::{Counters, DirectionCounters, DropCounters, DropReason, RefusalCounters};
pub use credentials::time_limited_credentials;
pub use event::{Event, Forward, Transmit};
pub use frame::{Frame, HEADROOM, Packet, TAILROOM, next_frame};
pub use peer_policy::PeerPolicy;
pub use relay::Relay;
pub use settings::{Listener, Quotas, RelayAddress, Secret, Settings};
