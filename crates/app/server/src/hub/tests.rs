use std::net::IpAddr;

use super::*;
use crate::gate::Gate;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn seat(hub: &Arc<Hub>) -> Seat {
    hub.connect(Gate::new(9, 9).enter(LOOPBACK).unwrap()).unwrap()
}

/// What is queued for a member, without its welcome.
fn collect(seat: &Seat) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let closing = seat.collect(&mut out, usize::MAX);
    (out, closing)
}

#[test]
fn each_member_is_pinged_once_in_sixty_sweeps() {
    let hub = Hub::new(Limits::default(), None);
    let (first, second) = (seat(&hub), seat(&hub));
    for seat in [&first, &second] {
        collect(seat);
    }
    (0..60).for_each(|turn| hub.sweep_once(turn, 0));
    assert_eq!(collect(&first), (vec![0x89, 0], false));
    assert_eq!(collect(&second), (vec![0x89, 0], false));
}

#[test]
fn a_member_who_is_silent_for_too_long_is_forgotten_at_once_and_told() {
    let hub = Hub::new(Limits::default(), None);
    let seat = seat(&hub);
    collect(&seat);
    (0..60).for_each(|turn| hub.sweep_once(turn, SILENCE + 1));
    assert_eq!(hub.stats().0.connections, 0);
    let (out, closing) = collect(&seat);
    assert!(closing);
    assert_eq!(out[2..4], close::SILENT.to_be_bytes());
}

#[test]
fn a_stopping_hub_says_goodbye_and_takes_nobody() {
    let hub = Hub::new(Limits::default(), None);
    let seat = seat(&hub);
    hub.stop();
    let (out, closing) = collect(&seat);
    assert!(closing && out.windows(2).any(|code| code == close::GOING_AWAY.to_be_bytes()));
    assert_eq!(hub.connect(Gate::new(9, 9).enter(LOOPBACK).unwrap()).unwrap_err(), AdmissionError::ServerFull);
}

#[test]
fn a_seat_given_up_leaves_nothing_behind() {
    let hub = Hub::new(Limits::default(), None);
    drop(seat(&hub));
    let (stats, queued) = hub.stats();
    assert_eq!((stats.connections, queued), (0, 0));
    assert!(hub.lock().seats.iter().all(HashMap::is_empty));
}
