use std::net::SocketAddr;

use proptest::prelude::*;

use super::{bencode::Reader, *};

const ID: NodeId = NodeId(*b"abcdefghij0123456789");
const TARGET: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

fn query(method: Method<'_>) -> Message<'_> {
    Message { transaction: b"aa", ip: None, body: Body::Query(Query { id: ID, read_only: false, method }) }
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::decode(bytes).unwrap().body {
        Body::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_of_bep_5_are_written_and_read() {
    let vectors: [(&[u8], Message<'_>); 4] = [
        (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Method::Ping)),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
            query(Method::FindNode { target: TARGET, want: Want::default() }),
        ),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
            Message { transaction: b"aa", ip: None, body: Body::Response(Response::new(TARGET)) },
        ),
        (
            b"d1:eli201e0:e1:t2:aa1:y1:ee",
            Message { transaction: b"aa", ip: None, body: Body::Error { code: error_code::GENERIC } },
        ),
    ];
    for (bytes, message) in vectors {
        assert_eq!(Message::decode(bytes), Ok(message));
        assert_eq!(message.encode(), bytes, "{}", bytes.escape_ascii());
    }
    let error = b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee";
    assert_eq!(Message::decode(error).unwrap().body, Body::Error { code: 201 });
}

#[test]
fn query_of_bep_5_with_an_unknown_method_is_read_as_such() {
    let bytes =
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe";
    assert_eq!(Message::decode(bytes), Ok(query(Method::Other)));
}

#[test]
fn signed_bytes_are_those_of_bep_44() {
    assert_eq!(signed_bytes(b"", 1, b"Hello World!"), b"3:seqi1e1:v12:Hello World!");
    assert_eq!(signed_bytes(b"foobar", 4, b"Hello world!"), b"4:salt6:foobar3:seqi4e1:v12:Hello world!");
}

#[test]
fn read_only_flag_and_wanted_families_round_trip() {
    let want = Want { n4: true, n6: true };
    let method = Method::Get { target: TARGET, seq: Some(7), want };
    let message = Message {
        transaction: b"1234",
        ip: None,
        body: Body::Query(Query { id: ID, read_only: true, method }),
    };
    let bytes = message.encode();
    let expected: &[u8] =
        b"d1:ad2:id20:abcdefghij01234567893:seqi7e6:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee\
        1:q3:get2:roi1e1:t4:12341:y1:qe";
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(Message::decode(&bytes), Ok(message));
}

#[test]
fn item_to_store_round_trips() {
    let put = Put {
        target: Some(TARGET),
        token: b"token",
        key: &[1; 32],
        salt: b"salt",
        seq: -4,
        cas: Some(i64::MIN),
        signature: &[2; 64],
        value: &[b'e'; MAX_VALUE],
    };
    let message = query(Method::Put(put));
    assert_eq!(Message::decode(&message.encode()), Ok(message));
}

#[test]
fn nodes_of_both_families_round_trip() {
    let contacts: Vec<Contact> = ["192.0.2.1:6881", "[2001:db8::1]:6882", "192.0.2.2:1"]
        .iter()
        .map(|address| Contact { id: TARGET, address: address.parse().unwrap() })
        .collect();
    let (nodes, nodes6) = (compact_contacts(&contacts, false), compact_contacts(&contacts, true));
    assert_eq!((nodes.len(), nodes6.len()), (52, 38));
    let cut = &nodes[..40];
    let read: Vec<_> = Contacts { nodes: Some(&nodes), nodes6: Some(&nodes6) }.iter().collect();
    assert_eq!(read, [contacts[0], contacts[2], contacts[1]]);
    assert_eq!(Contacts { nodes: Some(cut), nodes6: None }.iter().collect::<Vec<_>>(), [contacts[0]]);
}

#[test]
fn address_that_a_node_sees_is_read_in_both_families() {
    for address in ["203.0.113.7:51413", "[2001:db8::7]:51413"] {
        let ip: SocketAddr = address.parse().unwrap();
        let message = Message { transaction: b"t", ip: Some(ip), body: Body::Response(Response::new(ID)) };
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    let odd = b"d2:ip3:abc1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re";
    assert_eq!(Message::decode(odd).unwrap().ip, None);
}

#[test]
fn order_of_keys_does_not_matter_and_unknown_ones_are_skipped() {
    let bytes = b"d1:y1:r1:v4:LT\x02\x001:t2:aa1:rd5:tokeni3e1:pi6881e2:id20:abcdefghij01234567891:xld1:aleeee4:junkdee";
    assert_eq!(response(bytes), Response::new(ID));
}

#[test]
fn value_of_another_type_is_read_as_absent() {
    let bytes = b"d1:rd2:id20:abcdefghij01234567893:seqi5e1:vd1:ai1eee1:t2:aa1:y1:re";
    assert_eq!((response(bytes).value, response(bytes).seq), (None, Some(5)));
}

#[test]
fn error_without_a_code_is_read_as_zero() {
    for bytes in [&b"d1:ele1:t2:aa1:y1:ee"[..], b"d1:e4:oops1:t2:aa1:y1:ee", b"d1:el4:oopse1:t2:aa1:y1:ee"] {
        assert_eq!(Message::decode(bytes).unwrap().body, Body::Error { code: 0 }, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_not_a_message_is_refused() {
    let malformed: [&[u8]; 14] = [
        b"le",
        b"i1e",
        b"de",
        b"d1:t2:aae",
        b"d1:t2:aa1:y1:re",
        b"d1:t2:aa1:y1:qe",
        b"d1:t2:aa1:y1:ee",
        b"d1:t2:aa1:y1:xe",
        b"d1:rd2:id19:abcdefghij012345678e1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij01234567891:k2:xye1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:t2:aa1:y1:re",
        b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re ",
        b"d1:rd2:id20:abcdefghij0123456789e1:ti2e1:y1:re",
        b"d1:rd2:id20:abcdefghij0123456789e1:y1:re",
    ];
    for bytes in malformed {
        assert_eq!(Message::decode(bytes), Err(KrpcError::Malformed), "{}", bytes.escape_ascii());
    }
    assert_eq!(Message::decode(&[b'd'; MAX_LEN + 1]), Err(KrpcError::TooLong));
}

#[test]
fn every_cut_message_is_truncated() {
    let bytes = b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re";
    for len in 0..bytes.len() {
        assert_eq!(Message::decode(&bytes[..len]), Err(KrpcError::Truncated), "{len}");
    }
}

#[test]
fn numbers_have_one_form() {
    let integer = |bytes: &[u8]| Reader::new(bytes).integer().ok();
    assert_eq!(integer(b"i-9223372036854775808e"), Some(i64::MIN));
    assert_eq!(integer(b"i9223372036854775807e"), Some(i64::MAX));
    assert_eq!(integer(b"i0e"), Some(0));
    let odd: [&[u8]; 8] = [
        b"ie",
        b"i-e",
        b"i-0e",
        b"i01e",
        b"i+1e",
        b"i 1e",
        b"i9223372036854775808e",
        b"i999999999999999999999e",
    ];
    for bytes in odd {
        assert_eq!(integer(bytes), None, "{}", bytes.escape_ascii());
    }
    let string = |bytes: &'static [u8]| Reader::new(bytes).string();
    assert_eq!(string(b"18446744073709551615:a"), Err(KrpcError::Truncated));
    assert_eq!(string(b"01:a"), Err(KrpcError::Malformed));
    assert_eq!(string(b"-1:a"), Err(KrpcError::Malformed));
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| {
        let key = [b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:x".to_vec(), vec![b'l'; depth]].concat();
        [key, vec![b'e'; depth], b"1:y1:re".to_vec()].concat()
    };
    assert!(Message::decode(&nested(8)).is_ok());
    assert_eq!(Message::decode(&nested(9)), Err(KrpcError::Malformed));
    assert_eq!(Message::decode(&nested(900)), Err(KrpcError::Malformed));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
        let _ = Message::decode(&[b"d1:rd", &bytes[..]].concat());
    }

    #[test]
    fn response_round_trips(
        id: [u8; 20],
        token in prop::option::of(prop::collection::vec(any::<u8>(), 0..=MAX_TOKEN)),
        nodes in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        seq: Option<i64>,
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..=MAX_VALUE)),
        transaction in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        let message = Message {
            transaction: &transaction,
            ip: None,
            body: Body::Response(Response {
                contacts: Contacts { nodes: nodes.as_deref(), nodes6: None },
                token: token.as_deref(),
                key: Some(&[7; 32]),
                seq,
                signature: Some(&[9; 64]),
                value: value.as_deref(),
                ..Response::new(NodeId(id))
            }),
        };
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }
}
