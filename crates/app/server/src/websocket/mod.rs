//! The server side of WebSockets (RFC 6455), made for very many connections that are mostly idle.

mod codec;
mod handshake;
mod session;

pub(crate) use codec::{write_close, write_frame};
pub(crate) use handshake::{accept, is_upgrade};
pub(crate) use session::Session;
