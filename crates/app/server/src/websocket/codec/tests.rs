use proptest::{collection::vec, prelude::*};

use super::*;

const LIMIT: usize = 1000;

/// A frame as clients send them.
fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header =
        FrameHeader { opcode: opcode.into(), is_final, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Everything said in these bytes when they come in pieces of a size.
fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    for piece in bytes.chunks(piece) {
        let fed = decoder.feed(&mut piece.to_vec(), LIMIT, |incoming| said.push(format!("{incoming:?}")));
        if let Err(violation) = fed {
            return (said, Some(violation));
        }
    }
    assert!(decoder.partial.is_empty() && decoder.partial.capacity() == 0, "idle decoders hold nothing");
    (said, None)
}

fn violation(bytes: &[u8]) -> Option<CloseCode> {
    decode(bytes, bytes.len()).1.map(|violation| violation.0)
}

#[test]
fn messages_pings_and_goodbyes_arrive_in_order_however_the_bytes_are_cut() {
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
fn fragments_make_one_message_with_pings_between() {
    let mut bytes = frame(2, false, b"a");
    bytes.extend(frame(9, true, b""));
    bytes.extend(frame(0, false, b"b"));
    bytes.extend(frame(0, true, b"c"));
    let (said, violation) = decode(&bytes, 3);
    assert_eq!(said, [format!("{:?}", Incoming::Ping(b"")), format!("{:?}", Incoming::Message(b"abc"))]);
    assert_eq!(violation, None);
}

#[test]
fn each_breach_of_the_protocol_ends_the_connection_with_its_code() {
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
fn the_limit_counts_all_fragments_and_is_known_from_the_header() {
    assert_eq!(violation(&frame(2, true, &[0; LIMIT])), None);
    assert_eq!(violation(&frame(2, true, &[0; LIMIT + 1])), Some(CloseCode::Size));
    let header_only = &frame(2, true, &[0; 60_000])[..8];
    assert_eq!(violation(header_only), Some(CloseCode::Size));
    let parts = [frame(2, false, &[0; 600]), frame(0, true, &[0; 600])].concat();
    assert_eq!(violation(&parts), Some(CloseCode::Size));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_holds_more_than_the_limit(
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
