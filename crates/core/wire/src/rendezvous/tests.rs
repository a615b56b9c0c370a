use partyline_model::{Handle, HandleKey, Timestamp, Topic};
use proptest::{collection::vec, prelude::*};

use super::*;

fn topic() -> impl Strategy<Value = Topic> {
    any::<[u8; 32]>().prop_map(Topic)
}

fn handle() -> impl Strategy<Value = Handle> {
    any::<[u8; 16]>().prop_map(Handle)
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..64), Just(vec![7; MAX_RECORD])]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..64), Just(vec![7; MAX_MESSAGE])]
}

fn proof() -> impl Strategy<Value = EntryProof> {
    (any::<[u8; 32]>(), signature(), signature()).prop_map(|(key, topic_signature, handle_signature)| {
        EntryProof { handle_key: HandleKey(key), topic_signature, handle_signature }
    })
}

fn signature() -> impl Strategy<Value = [u8; 64]> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(front, back)| {
        let mut proof = [0; 64];
        proof[..32].copy_from_slice(&front);
        proof[32..].copy_from_slice(&back);
        proof
    })
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        (topic(), proof(), record())
            .prop_map(|(topic, proof, record)| { ClientFrame::Enter { topic, proof, record } }),
        (topic(), record()).prop_map(|(topic, record)| ClientFrame::Announce { topic, record }),
        (topic(), handle(), any::<u32>(), any::<bool>(), message())
            .prop_map(|(topic, to, id, kept, message)| ClientFrame::Send { topic, to, id, kept, message }),
        topic().prop_map(|topic| ClientFrame::Leave { topic }),
        any::<u64>().prop_map(|echo| ClientFrame::Time { echo }),
        topic().prop_map(|topic| ClientFrame::Relays { topic }),
    ]
}

fn grant() -> impl Strategy<Value = RelayGrant> {
    let server = ("[a-z:]{0,40}", "[a-z]{0,9}").prop_map(|(url, region)| RelayServer { url, region });
    (vec(server, 0..=MAX_RELAYS), "[0-9a-f:]{0,64}", "[!-~]{0,64}", any::<u64>()).prop_map(
        |(servers, username, password, expires)| RelayGrant {
            servers,
            username,
            password,
            realm: "partyline".into(),
            expires: Timestamp(expires),
        },
    )
}

fn code() -> impl Strategy<Value = RefusalCode> {
    prop_oneof![Just(RefusalCode::Malformed), Just(RefusalCode::RateLimited), Just(RefusalCode::NoRelay)]
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let member = (handle(), record()).prop_map(|(handle, record)| TopicMember { handle, record });
    prop_oneof![
        (any::<u16>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(version, challenge, time)| {
            ServerFrame::Welcome { version, challenge, time: Timestamp(time) }
        }),
        (topic(), vec(member, 0..=MAX_ROSTER_CHUNK), any::<bool>())
            .prop_map(|(topic, members, more)| ServerFrame::Roster { topic, members, more }),
        (topic(), handle(), record()).prop_map(|(topic, handle, record)| ServerFrame::Present {
            topic,
            handle,
            record
        }),
        (topic(), handle()).prop_map(|(topic, handle)| ServerFrame::Gone { topic, handle }),
        (topic(), handle(), message()).prop_map(|(topic, from, message)| ServerFrame::Message {
            topic,
            from,
            message
        }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(echo, time)| ServerFrame::TimeReply { echo, time: Timestamp(time) }),
        grant().prop_map(ServerFrame::RelayGrant),
        (proptest::option::of(topic()), proptest::option::of(any::<u32>()), code(), "[ -~]{0,200}")
            .prop_map(|(topic, id, code, detail)| ServerFrame::Refused { topic, id, code, detail }),
    ]
}

proptest! {
    #[test]
    fn client_frames_round_trip_at_their_exact_length(frame in client_frame(), cut in any::<prop::sample::Index>()) {
        let mut bytes = frame.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_FRAME);
        prop_assert_eq!(ClientFrame::decode(&bytes).unwrap(), frame);
        prop_assert!(ClientFrame::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(ClientFrame::decode(&bytes).is_err());
    }

    #[test]
    fn server_frames_round_trip_at_their_exact_length(frame in server_frame(), cut in any::<prop::sample::Index>()) {
        let mut bytes = frame.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_FRAME);
        prop_assert_eq!(ServerFrame::decode(&bytes).unwrap(), frame);
        prop_assert!(ServerFrame::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(ServerFrame::decode(&bytes).is_err());
    }

    #[test]
    fn garbage_never_panics_and_decoded_frames_encode(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(frame) = ClientFrame::decode(&bytes) {
            prop_assert!(frame.encode().is_ok());
        }
        if let Ok(frame) = ServerFrame::decode(&bytes) {
            prop_assert!(frame.encode().is_ok());
        }
    }
}

#[test]
fn fields_beyond_their_limits_are_rejected_both_ways() {
    let frame = ClientFrame::Announce { topic: Topic([1; 32]), record: vec![0; MAX_RECORD + 1] };
    assert_eq!(frame.encode(), Err(FrameError::Limit("record")));
    assert_eq!(
        ClientFrame::decode(&postcard::to_allocvec(&frame).unwrap()),
        Err(FrameError::Limit("record"))
    );

    let member = TopicMember { handle: Handle([1; 16]), record: Vec::new() };
    let members = vec![member; MAX_ROSTER_CHUNK + 1];
    let frame = ServerFrame::Roster { topic: Topic([1; 32]), members, more: false };
    assert_eq!(frame.encode(), Err(FrameError::Limit("roster")));
    assert_eq!(ClientFrame::decode(&vec![0; MAX_FRAME + 1]), Err(FrameError::TooLong));
}

#[test]
fn false_length_allocates_nothing() {
    // An `Announce` whose record claims 2^60 bytes.
    let mut bytes = vec![1];
    bytes.extend([1; 32]);
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert_eq!(ClientFrame::decode(&bytes), Err(FrameError::Malformed));
}

#[test]
fn debug_output_of_a_grant_has_no_password() {
    let grant = RelayGrant {
        servers: Vec::new(),
        username: "1:ab".into(),
        password: "hunter2".into(),
        realm: String::new(),
        expires: Timestamp(0),
    };
    assert!(!format!("{grant:?}").contains("hunter2"));
}
