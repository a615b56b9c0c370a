//! The local socket between the service and its clients: framing, versions, who may connect.
//!
//! The service binds an [`Endpoint`] with a [`Server`], which offers an engine's two ends (calls and snapshots) to
//! every client that [`Access`] lets in. A client [connects](connect) and gets the same two ends back, so that the
//! engine behind them looks alike in both processes. The frames are those of [`partyline_wire::ipc`].
//!
//! Nothing a client does can hold up the engine: a client has a bounded number of unanswered requests, is not read
//! while it does not read, and gets the newest snapshot rather than every one.

mod access;
mod client;
mod endpoint;
mod server;
mod session;
mod stream;

use partyline_model::{AppError, ClientCommand, Reply};
use tokio::sync::oneshot;

pub use access::Access;
pub use client::{Connection, connect, reconnect};
pub use endpoint::Endpoint;
pub use server::{MAX_CLIENTS, Server};
pub use session::MAX_PENDING_REQUESTS;

/// A command, and where its answer goes.
pub type Call = (ClientCommand, oneshot::Sender<Result<Reply, AppError>>);

/// What a side calls itself in its hello.
const SOFTWARE: &str = concat!("partyline ", env!("CARGO_PKG_VERSION"));
