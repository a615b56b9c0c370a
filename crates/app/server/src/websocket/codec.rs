//! Frames to messages. Headers are tungstenite's business; buffers are ours: while nothing is half received, a
//! [`Decoder`] holds no memory at all, and a message that came whole is unmasked where it lies.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Longest control frame (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

/// Longest header.
const MAX_HEADER: usize = 14;

/// What a client did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// It sent a binary message.
    Message(&'a [u8]),
    /// It wants to hear this again.
    Ping(&'a [u8]),
    /// It said goodbye, with a code if it gave one.
    Close(Option<u16>),
}

/// Why a connection must end, as a close code and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) CloseCode, pub(crate) &'static str);

const PROTOCOL: fn(&'static str) -> Violation = |reason| Violation(CloseCode::Protocol, reason);

/// Takes bytes as they come and gives what they mean.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The start of a frame whose end has not come.
    partial: Vec<u8>,
    /// The fragments of a message whose last has not come.
    fragments: Option<Vec<u8>>,
}

impl Decoder {
    /// Decodes bytes, which are unmasked in place. Messages are at most `limit` bytes.
    ///
    /// # Errors
    /// The client broke the protocol or the limit; nothing more can be decoded.
    pub(crate) fn feed(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        mut deliver: impl FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, limit, &mut deliver)?;
            self.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let used = self.frames(&mut partial, limit, &mut deliver)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(())
    }

    /// Decodes whole frames and says how many bytes they were.
    fn frames(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<usize, Violation> {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..).filter(|rest| !rest.is_empty()) {
            let mut cursor = Cursor::new(&*rest);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| PROTOCOL("unknown kind of frame"))?;
            let Some((header, length)) = parsed else { break };
            let start = usize::try_from(cursor.position()).unwrap_or(MAX_HEADER);
            let mask = self.check(&header, length, limit)?;
            // Within the limit, so it fits.
            let end = start + usize::try_from(length).unwrap_or(usize::MAX - MAX_HEADER);
            let Some(payload) = rest.get_mut(start..end) else { break };
            unmask(payload, mask);
            self.frame(&header, payload, deliver)?;
            used += end;
        }
        Ok(used)
    }

    /// Refuses a frame by its header, before any of its payload is kept.
    fn check(&self, header: &FrameHeader, length: u64, limit: usize) -> Result<[u8; 4], Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(PROTOCOL("an extension was used that was not agreed on"));
        }
        let started = self.fragments.as_ref().map(Vec::len);
        match (header.opcode, started) {
            (OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)), _) => {
                return Err(PROTOCOL("unknown kind of frame"));
            }
            (OpCode::Control(_), _) if !header.is_final || length > MAX_CONTROL as u64 => {
                return Err(PROTOCOL("control frame too long or in fragments"));
            }
            (OpCode::Data(Data::Text), _) => {
                return Err(Violation(CloseCode::Unsupported, "only binary messages are understood"));
            }
            (OpCode::Data(Data::Continue), None) | (OpCode::Data(Data::Binary), Some(_)) => {
                return Err(PROTOCOL("fragments out of order"));
            }
            _ => {}
        }
        if length > (limit - started.unwrap_or(0).min(limit)) as u64 {
            return Err(Violation(CloseCode::Size, "the message is too long"));
        }
        header.mask.ok_or(PROTOCOL("frames from clients must be masked"))
    }

    fn frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        match header.opcode {
            OpCode::Control(Control::Ping) => deliver(Incoming::Ping(payload)),
            OpCode::Control(Control::Close) => deliver(Incoming::Close(close_code(payload)?)),
            OpCode::Control(_) => {}
            OpCode::Data(_) if header.is_final => match self.fragments.take() {
                None => deliver(Incoming::Message(payload)),
                Some(mut message) => {
                    message.extend_from_slice(payload);
                    deliver(Incoming::Message(&message));
                }
            },
            OpCode::Data(_) => self.fragments.get_or_insert_default().extend_from_slice(payload),
        }
        Ok(())
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
            let code = u16::from_be_bytes([*high, *low]);
            let allowed = CloseCode::from(code).is_allowed();
            if allowed { Ok(Some(code)) } else { Err(PROTOCOL("unknown close code")) }
        }
        _ => Err(PROTOCOL("malformed close frame")),
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a frame as servers send them: whole and not masked.
pub(crate) fn write_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Appends a close frame; the reason is cut to what a control frame holds.
pub(crate) fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = reason.get(..MAX_CONTROL - 2).unwrap_or(reason);
    let payload = [code.to_be_bytes().as_slice(), reason.as_bytes()].concat();
    write_frame(out, OpCode::Control(Control::Close), &payload);
}

#[cfg(test)]
mod tests;
