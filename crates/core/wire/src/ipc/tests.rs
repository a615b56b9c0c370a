use partyline_model::{
    Command, DeviceId, DeviceView, DoctorFinding, EngineCommand, ErrorCode, InviteTerms, NetworkView,
    PartyId, Phase, PingSample, Role, TestTarget, Verdict,
};
use proptest::prelude::*;

use super::*;

fn decode<F: Frame>(bytes: &[u8]) -> Result<Option<F>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(bytes);
    decoder.next_frame()
}

fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes(), json.as_bytes()].concat()
}

fn commands() -> impl Strategy<Value = ClientCommand> {
    prop_oneof![
        Just(EngineCommand::Metrics.into()),
        "wss://[a-z.]{1,20}"
            .prop_map(|url| EngineCommand::TestServer { target: TestTarget::Server { url } }.into()),
        node_commands().prop_map(ClientCommand::from),
    ]
}

fn node_commands() -> impl Strategy<Value = Command> {
    let party = any::<[u8; 32]>().prop_map(PartyId);
    let member = any::<[u8; 32]>().prop_map(DeviceId);
    prop_oneof![
        Just(Command::Snapshot),
        Just(Command::Doctor),
        Just(Command::Stop),
        (".{0,40}", ".{0,32}", prop::collection::vec("wss://[a-z.]{1,20}", 0..3)).prop_map(
            |(name, display_name, servers)| Command::Create {
                name,
                display_name,
                servers,
                range: Some("10.80.7.0/24".parse().unwrap()),
            }
        ),
        (".{0,300}", ".{0,32}").prop_map(|(link, display_name)| Command::Join { link, display_name }),
        party.clone().prop_map(|party| Command::Up { party }),
        party.clone().prop_map(|party| Command::Invite {
            party,
            terms: InviteTerms { role: Role::CoOwner, ..InviteTerms::FRIENDS }
        }),
        (party, member).prop_map(|(party, member)| Command::Ping { party, member }),
    ]
}

fn client_frames() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        (any::<u16>(), "[ -~]{0,100}")
            .prop_map(|(version, software)| ClientFrame::Hello(Hello { version, software })),
        (any::<u32>(), commands()).prop_map(|(id, command)| ClientFrame::Request { id, command }),
        Just(ClientFrame::Subscribe),
    ]
}

fn snapshot(revision: u32) -> Snapshot {
    Snapshot {
        revision,
        phase: Phase::Ready,
        device: DeviceView { id: DeviceId([3; 32]), version: "0.1.0".into() },
        parties: Vec::new(),
        former_parties: Vec::new(),
        network: NetworkView::default(),
        settings: partyline_model::Settings::default(),
    }
}

fn errors() -> impl Strategy<Value = AppError> {
    (".{0,60}", ".{0,60}").prop_map(|(message, hint)| AppError::new(ErrorCode::Timeout, message, hint))
}

fn server_frames() -> impl Strategy<Value = ServerFrame> {
    let findings = ".{0,40}".prop_map(|note| {
        Reply::Doctor(vec![DoctorFinding { what: "network".into(), verdict: Verdict::Fair, note }])
    });
    let replies = prop_oneof![
        Just(Reply::Done),
        any::<u32>().prop_map(|revision| Reply::Snapshot(Box::new(snapshot(revision)))),
        (0.0_f32..1e6).prop_map(|rtt_ms| Reply::Pong(PingSample { rtt_ms })),
        findings,
    ];
    prop_oneof![
        "[ -~]{0,100}".prop_map(|software| ServerFrame::Hello(Hello::from_software(software))),
        (any::<u32>(), replies).prop_map(|(id, reply)| ServerFrame::Response { id, result: Ok(reply) }),
        (any::<u32>(), errors()).prop_map(|(id, error)| ServerFrame::Response { id, result: Err(error) }),
        any::<u32>().prop_map(|revision| ServerFrame::Snapshot(Arc::new(snapshot(revision)))),
        errors().prop_map(ServerFrame::Refused),
    ]
}

proptest! {
    #[test]
    fn client_frames_round_trip(frame in client_frames()) {
        prop_assert_eq!(decode(&encode(&frame).unwrap()), Ok(Some(frame)));
    }

    #[test]
    fn server_frames_round_trip(frame in server_frames()) {
        prop_assert_eq!(decode(&encode(&frame).unwrap()), Ok(Some(frame)));
    }

    #[test]
    fn frames_are_decoded_however_the_stream_is_chunked(
        frames in prop::collection::vec(client_frames(), 1..6),
        piece in 1_usize..200,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
        let mut decoder = Decoder::<ClientFrame>::default();
        let mut decoded = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert_eq!(decoded, frames);
        prop_assert!(decoder.buffer().is_empty());
    }

    #[test]
    fn garbage_is_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<ClientFrame>(&bytes);
        let _ = decode::<ServerFrame>(&bytes);
        let json = [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes.as_slice()].concat();
        prop_assert!(!matches!(decode::<ClientFrame>(&json), Ok(Some(_))));
        prop_assert!(!matches!(decode::<ServerFrame>(&json), Ok(Some(_))));
    }

    #[test]
    fn one_changed_byte_never_panics(frame in server_frames(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&frame).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode::<ServerFrame>(&bytes);
    }
}

#[test]
fn frames_have_their_documented_form() {
    let hello = encode(&ClientFrame::Hello(Hello::from_software("partyline 0.1.0"))).unwrap();
    assert_eq!(hello, framed(r#"{"hello":{"version":2,"software":"partyline 0.1.0"}}"#));
    let stop = encode(&ClientFrame::Request { id: 7, command: Command::Stop.into() }).unwrap();
    assert_eq!(stop, framed(r#"{"id":7,"command":{"command":"stop"}}"#));
    assert_eq!(encode(&ClientFrame::Subscribe).unwrap(), framed(r#"{"subscribe":true}"#));
    let done = encode(&ServerFrame::Response { id: 7, result: Ok(Reply::Done) }).unwrap();
    assert_eq!(done, framed(r#"{"id":7,"ok":{"reply":"done"}}"#));
}

#[test]
fn length_is_checked_before_the_bytes_arrive() {
    let announced = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    assert_eq!(decode::<ClientFrame>(&announced(0)), Err(FrameError::Empty));
    assert_eq!(decode::<ClientFrame>(&announced(MAX_REQUEST)), Ok(None));
    let length = MAX_REQUEST + 1;
    assert_eq!(
        decode::<ClientFrame>(&announced(length)),
        Err(FrameError::TooLong { length, limit: MAX_REQUEST })
    );
    assert_eq!(decode::<ServerFrame>(&announced(MAX_RESPONSE)), Ok(None));
    assert!(decode::<ServerFrame>(&[0xff; 4]).is_err());
}

#[test]
fn too_long_frame_is_not_encoded() {
    let link = "x".repeat(MAX_REQUEST);
    let frame = ClientFrame::Request { id: 1, command: Command::Preview { link }.into() };
    assert!(matches!(encode(&frame), Err(FrameError::TooLong { limit: MAX_REQUEST, .. })));
}

#[test]
fn frames_with_mixed_or_missing_keys_are_rejected() {
    for json in [
        "{}",
        "[]",
        "null",
        r#"{"id":1}"#,
        r#"{"id":-1,"command":{"command":"stop"}}"#,
        r#"{"id":4294967296,"command":{"command":"stop"}}"#,
        r#"{"id":1,"command":{"command":"format_disk"}}"#,
        r#"{"id":1,"command":{"command":"stop"},"subscribe":true}"#,
        r#"{"id":1,"id":2,"command":{"command":"stop"}}"#,
        r#"{"subscribe":false}"#,
        r#"{"subscribe":true,"path":"/etc/passwd"}"#,
        r#"{"subscribe":true} {}"#,
    ] {
        assert!(matches!(decode::<ClientFrame>(&framed(json)), Err(FrameError::Malformed(_))), "{json}");
    }
    for json in [r#"{"id":1}"#, r#"{"ok":{"reply":"done"}}"#, r#"{"snapshot":{}}"#] {
        assert!(matches!(decode::<ServerFrame>(&framed(json)), Err(FrameError::Malformed(_))), "{json}");
    }
}

#[test]
fn nesting_and_program_names_are_limited() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(decode::<ClientFrame>(&framed(&format!(r#"{{"hello":{deep}}}"#))).is_err());
    let long = Hello::from_software("n".repeat(MAX_SOFTWARE + 1));
    assert!(decode::<ClientFrame>(&encode(&ClientFrame::Hello(long)).unwrap()).is_err());
}
