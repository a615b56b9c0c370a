//! TCP to the first of a server's addresses that answers (Happy Eyeballs, RFC 8305).
//!
//! Addresses are tried alternating between IPv6 and IPv4, each a quarter of a second after the one before or as soon
//! as that failed; the first connection wins and the others are dropped. A broken IPv6 costs 250 ms instead of a
//! minute.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use partyline_model::AddressScope;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep_until, timeout},
};

use crate::{ConnectError, nat64};

/// The Connection Attempt Delay (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long all attempts together may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the resolver may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be idle before it is probed (RFC 9293 section 3.8.4).
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);

/// How long after a probe without an answer the next one follows.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Probes without an answer after which the connection is given up.
const KEEPALIVE_RETRIES: u32 = 3;

/// Connects to a host by name or address.
///
/// # Errors
/// The name has no address, or none of its addresses could be connected to in time.
pub async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    connect_within(host, port, AddressScope::Any).await
}

/// Connects to a host at the addresses that the scope allows.
pub(crate) async fn connect_within(
    host: &str,
    port: u16,
    scope: AddressScope,
) -> Result<TcpStream, ConnectError> {
    connect_any(host, port, lookup_within(host, port, scope).await?).await
}

/// Connects to the first of a host's addresses that answers.
pub(crate) async fn connect_any(
    host: &str,
    port: u16,
    addresses: Vec<SocketAddr>,
) -> Result<TcpStream, ConnectError> {
    let attempt = timeout(CONNECT_TIMEOUT, race(addresses));
    let stream = attempt.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|cause| {
        tracing::debug!(host, port, reason = %cause, "no address of the host could be connected to");
        ConnectError::from_io(host, port, cause)
    })?;
    tracing::debug!(host, port, address = ?stream.peer_addr().ok(), "connected");
    stream.set_nodelay(true).map_err(|cause| ConnectError::from_io(host, port, cause))?;
    if let Err(cause) = SockRef::from(&stream).set_tcp_keepalive(&keepalive()) {
        tracing::debug!(host, port, reason = %cause, "a connection is not kept alive");
    }
    Ok(stream)
}

/// A router that has lost its table drops what arrives for a connection until something leaves by it.
const fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES)
}

/// Looks up a host by name or address. IPv4 addresses come with those at which a NAT64 reaches them, where this computer
/// has IPv6 alone.
///
/// # Errors
/// The name has no address, or the resolver does not answer in time.
pub async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    lookup_within(host, port, AddressScope::Any).await
}

/// Looks up a host as [`lookup`] does, and returns the addresses that the scope allows. What a DNS64 made up counts as the
/// IPv4 address that it carries.
pub(crate) async fn lookup_within(
    host: &str,
    port: u16,
    scope: AddressScope,
) -> Result<Vec<SocketAddr>, ConnectError> {
    if scope == AddressScope::Any {
        return lookup_then(host, port, nat64::add_synthesized).await;
    }
    let mut found = lookup_for_datagrams(host, port).await?;
    let first = found.first().copied();
    found.retain(|address| scope.allows(address.ip()));
    match first.filter(|_| found.is_empty()) {
        Some(address) => {
            tracing::debug!(host, port, %address, reason = "private, and named by others", "host not contacted");
            Err(ConnectError::Private { host: host.to_owned(), address: address.ip() })
        }
        None => Ok(nat64::add_synthesized(found).await),
    }
}

/// Looks up a host for datagrams, which a caller sends through the NAT64 by [`Nat64Prefix::outward`]: an address that a
/// DNS64 made up is given as the IPv4 address that it carries.
///
/// # Errors
/// As for [`lookup`].
///
/// [`Nat64Prefix::outward`]: crate::Nat64Prefix::outward
pub async fn lookup_for_datagrams(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    lookup_then(host, port, nat64::without_synthesized).await
}

async fn lookup_then<F: Future<Output = Vec<SocketAddr>>>(
    host: &str,
    port: u16,
    translate: impl FnOnce(Vec<SocketAddr>) -> F,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let error = |cause: String| {
        tracing::debug!(host, reason = cause, "the host could not be looked up");
        ConnectError::Name { host: host.to_owned(), cause }
    };
    let lookup = async {
        let found: Vec<_> = lookup_host((host, port)).await?.collect();
        io::Result::Ok(translate(found).await)
    };
    let found = timeout(LOOKUP_TIMEOUT, lookup).await;
    let found = found.map_err(|_| error("the resolver did not answer".to_owned()))?;
    let addresses = found.map_err(|cause| error(cause.to_string()))?;
    tracing::debug!(host, ?addresses, "looked up the host");
    if addresses.is_empty() { Err(error("none".to_owned())) } else { Ok(interleave(addresses)) }
}

/// Alternates address families, starting with that of the resolver's first address and keeping its order (RFC 6724)
/// within each.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let v6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == v6_first);
    std::iter::from_fn(|| {
        std::mem::swap(&mut first, &mut second);
        second.pop_front().or_else(|| first.pop_front())
    })
    .collect()
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut next_start = Instant::now();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    running.extend(waiting.next().map(TcpStream::connect));
    while !running.is_empty() {
        next_start = next_start.max(Instant::now()) + ATTEMPT_DELAY;
        let more = waiting.len() > 0;
        tokio::select! {
            Some(ended) = running.next() => match ended {
                Ok(stream) => return Ok(stream),
                Err(cause) => {
                    tracing::trace!(reason = %cause, waiting = waiting.len(), "a connection attempt failed");
                    failure = more_specific(failure, cause);
                }
            },
            () = sleep_until(next_start), if more => {
                tracing::trace!(running = running.len(), reason = "no answer yet", "trying the next address as well");
            }
        }
        running.extend(waiting.next().map(TcpStream::connect));
    }
    Err(failure)
}

/// Returns the error that says more about the host: a refusal shows that it is there, while "no route" for one address
/// family says nothing about the other.
fn more_specific(before: io::Error, after: io::Error) -> io::Error {
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => 3,
        io::ErrorKind::TimedOut => 2,
        io::ErrorKind::AddrNotAvailable => 0,
        _ => 1,
    };
    if rank(&before) > rank(&after) { before } else { after }
}

#[cfg(test)]
mod tests;
