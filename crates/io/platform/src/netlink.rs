//! Questions to rtnetlink(7) that the kernel answers at once.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tracing::trace;

/// The kernel puts as many messages into one datagram as fit the buffer of the last call, up to this size.
const BUFFER_SIZE: usize = 32 << 10;

/// Sends a request for a list, and hands over each of its entries.
pub(crate) fn dump(
    request: RouteNetlinkMessage,
    mut take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    ask(request, NLM_F_DUMP, &mut take)
}

/// Sends a request that has one answer.
pub(crate) fn get(request: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut answer = None;
    ask(request, 0, &mut |message| answer = Some(message))?;
    Ok(answer)
}

fn ask(
    request: RouteNetlinkMessage,
    flags: u16,
    take: &mut dyn FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::with_capacity(BUFFER_SIZE);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        if read(&answer, take)? || flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// Hands over the messages of one datagram; returns true if the answer ends with it.
fn read(mut bytes: &[u8], take: &mut dyn FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
    while !bytes.is_empty() {
        let length = NetlinkBuffer::new_checked(bytes).map_err(io::Error::other)?.length() as usize;
        let (message, rest) = bytes.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::Done(_)) => return Ok(true),
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
            Ok(NetlinkPayload::InnerMessage(message)) => take(message),
            Ok(_) => {}
            // A kernel newer than the parser; the other entries are worth having.
            Err(error) => trace!(%error, "netlink message ignored"),
        }
        bytes = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    Ok(false)
}
