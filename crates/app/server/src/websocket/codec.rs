//! Decodes the frames of a client (RFC 6455, section 5) into messages, and encodes those of the server.
//!
//! Headers are parsed by tungstenite; buffers are managed here: while no frame is half received, a [`Decoder`] holds no
//! memory at all, and a message that came in one piece is unmasked in place.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Maximum payload of a control frame in bytes (RFC 6455, section 5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// Maximum length of a frame header in bytes.
const MAX_HEADER: usize = 14;

/// A message or control frame from the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A binary message, reassembled from its fragments.
    Message(&'a [u8]),
    /// A ping, whose payload the pong repeats.
    Ping(&'a [u8]),
    /// A close frame, with its code if it has one.
    Close(Option<u16>),
}

/// A violation of the protocol or of a limit: the close code and reason with which the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) CloseCode, pub(crate) &'static str);

const PROTOCOL: fn(&'static str) -> Violation = |reason| Violation(CloseCode::Protocol, reason);

/// Decodes a byte stream as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// The fragments of a message whose last one has not arrived.
    fragments: Option<Vec<u8>>,
}

impl Decoder {
    /// Decodes bytes, unmasking them in place, and passes what is complete to `deliver`. Messages may have `limit` bytes at
    /// most.
    ///
    /// # Errors
    /// The client violated the protocol or the limit; nothing more can be decoded.
    pub(crate) fn feed(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        mut deliver: impl FnMut(Incoming<'_>),
    ) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let used = self.decode_frames(bytes, limit, &mut deliver)?;
            self.partial.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let used = self.decode_frames(&mut partial, limit, &mut deliver)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(())
    }

    /// Decodes complete frames and returns the number of bytes they take.
    fn decode_frames(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<usize, Violation> {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..).filter(|rest| !rest.is_empty()) {
            let mut cursor = Cursor::new(&*rest);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| PROTOCOL("unknown opcode"))?;
            let Some((header, length)) = parsed else { break };
            let start = usize::try_from(cursor.position()).unwrap_or(MAX_HEADER);
            let mask = self.check_header(&header, length, limit)?;
            // Within the limit, so it fits.
            let end = start + usize::try_from(length).unwrap_or(usize::MAX - MAX_HEADER);
            let Some(payload) = rest.get_mut(start..end) else { break };
            unmask(payload, mask);
            self.handle_frame(&header, payload, deliver)?;
            used += end;
        }
        Ok(used)
    }

    /// Checks a frame by its header, before any of its payload is kept, and returns its mask.
    fn check_header(&self, header: &FrameHeader, length: u64, limit: usize) -> Result<[u8; 4], Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(PROTOCOL("an extension was used that was not negotiated"));
        }
        let started = self.fragments.as_ref().map(Vec::len);
        match (header.opcode, started) {
            (OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)), _) => {
                return Err(PROTOCOL("unknown opcode"));
            }
            (OpCode::Control(_), _) if !header.is_final || length > MAX_CONTROL_PAYLOAD as u64 => {
                return Err(PROTOCOL("control frame too long or fragmented"));
            }
            (OpCode::Data(Data::Text), _) => {
                return Err(Violation(CloseCode::Unsupported, "only binary messages are accepted"));
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

    fn handle_frame(
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

/// Appends a frame as servers send it: unfragmented and unmasked (RFC 6455, section 5.1).
pub(crate) fn write_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Appends a close frame; the reason is cut to what a control frame can hold.
pub(crate) fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = reason.get(..MAX_CONTROL_PAYLOAD - 2).unwrap_or(reason);
    let payload = [code.to_be_bytes().as_slice(), reason.as_bytes()].concat();
    write_frame(out, OpCode::Control(Control::Close), &payload);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LIMIT: usize = 1000;

    /// A frame as clients send it.
    fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            opcode: opcode.into(),
            is_final,
            mask: Some([1, 2, 3, 4]),
            ..FrameHeader::default()
        };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Decodes bytes that arrive in pieces of a size.
    fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Option<Violation>) {
        let mut decoder = Decoder::default();
        let mut decoded = Vec::new();
        for piece in bytes.chunks(piece) {
            let fed =
                decoder.feed(&mut piece.to_vec(), LIMIT, |incoming| decoded.push(format!("{incoming:?}")));
            if let Err(violation) = fed {
                return (decoded, Some(violation));
            }
        }
        assert!(decoder.partial.is_empty() && decoder.partial.capacity() == 0, "idle decoders hold nothing");
        (decoded, None)
    }

    fn violation(bytes: &[u8]) -> Option<CloseCode> {
        decode(bytes, bytes.len()).1.map(|violation| violation.0)
    }

    #[test]
    fn frames_are_decoded_in_order_however_the_bytes_are_split() {
        let mut bytes = frame(2, true, b"one");
        bytes.extend(frame(9, true, b"p"));
        bytes.extend(frame(10, true, b"unasked"));
        bytes.extend(frame(2, true, b""));
        bytes.extend(frame(8, true, &[3, 232, b'x']));
        let expected = [
            Incoming::Message(b"one"),
            Incoming::Ping(b"p"),
            Incoming::Message(b""),
            Incoming::Close(Some(1000)),
        ];
        let expected: Vec<_> = expected.iter().map(|incoming| format!("{incoming:?}")).collect();
        for piece in 1..=bytes.len() {
            assert_eq!(decode(&bytes, piece), (expected.clone(), None));
        }
    }

    #[test]
    fn fragments_are_reassembled_around_control_frames() {
        let mut bytes = frame(2, false, b"a");
        bytes.extend(frame(9, true, b""));
        bytes.extend(frame(0, false, b"b"));
        bytes.extend(frame(0, true, b"c"));
        let (decoded, violation) = decode(&bytes, 3);
        assert_eq!(
            decoded,
            [format!("{:?}", Incoming::Ping(b"")), format!("{:?}", Incoming::Message(b"abc"))]
        );
        assert_eq!(violation, None);
    }

    #[test]
    fn each_violation_has_its_close_code() {
        assert_eq!(violation(&frame(1, true, b"text")), Some(CloseCode::Unsupported));
        assert_eq!(violation(&frame(0, true, b"no start")), Some(CloseCode::Protocol));
        assert_eq!(violation(&frame(3, true, b"reserved")), Some(CloseCode::Protocol));
        assert_eq!(violation(&frame(9, false, b"")), Some(CloseCode::Protocol));
        assert_eq!(violation(&frame(9, true, &[0; 126])), Some(CloseCode::Protocol));
        assert_eq!(violation(&frame(8, true, &[3])), Some(CloseCode::Protocol));
        assert_eq!(violation(&frame(8, true, &[3, 237])), Some(CloseCode::Protocol));
        assert_eq!(violation(&[0x82, 0x00]), Some(CloseCode::Protocol), "not masked");
        assert_eq!(violation(&[0xc2, 0x80, 0, 0, 0, 0]), Some(CloseCode::Protocol), "reserved bit");
        let twice = [frame(2, false, b"a"), frame(2, true, b"b")].concat();
        assert_eq!(violation(&twice), Some(CloseCode::Protocol));
    }

    #[test]
    fn message_limit_covers_all_fragments_and_applies_to_the_header() {
        assert_eq!(violation(&frame(2, true, &[0; LIMIT])), None);
        assert_eq!(violation(&frame(2, true, &[0; LIMIT + 1])), Some(CloseCode::Size));
        let header_only = &frame(2, true, &[0; 60_000])[..8];
        assert_eq!(violation(header_only), Some(CloseCode::Size));
        let parts = [frame(2, false, &[0; 600]), frame(0, true, &[0; 600])].concat();
        assert_eq!(violation(&parts), Some(CloseCode::Size));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_nor_exceed_the_limit(
            pieces in vec(vec(any::<u8>(), 1..200), 1..40),
        ) {
            let mut decoder = Decoder::default();
            for mut piece in pieces {
                if decoder.feed(&mut piece, LIMIT, |_| {}).is_err() {
                    break;
                }
                prop_assert!(decoder.partial.len() <= LIMIT + MAX_HEADER);
                prop_assert!(decoder.fragments.as_ref().map_or(0, Vec::len) <= LIMIT);
            }
        }
    }
}
