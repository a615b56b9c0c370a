//! The local socket between the service and its clients: framing, versions, access control.
//!
//! The service binds an [`Endpoint`] with a [`Server`], which offers an engine's two channels (calls and snapshots) to
//! every client that [`Access`] admits. A client [connects](connect) and gets the same two channels, so that the engine
//! is used in the same way from both processes. The frames are those of [`partyline_wire::ipc`].
//!
//! No client can block the engine: each has a bounded number of pending requests, is not read while it does not read
//! itself, and gets the newest snapshot rather than every one.

mod access;
mod client;
mod credentials;
mod endpoint;
mod right;
mod server;
mod session;
mod stream;

use partyline_model::{AppError, ClientCommand, Reply};
use tokio::sync::oneshot;

pub use access::Access;
pub use client::{Connection, connect, reconnect};
pub use endpoint::Endpoint;
pub use right::Right;
pub use server::{MAX_CLIENTS, Server};
pub use session::MAX_PENDING_REQUESTS;

/// A command, and the channel for its reply.
pub type Call = (ClientCommand, oneshot::Sender<Result<Reply, AppError>>);

/// The name and version that each side sends in its hello.
const SOFTWARE: &str = concat!("partyline ", env!("CARGO_PKG_VERSION"));
