use std::time::Duration;

use super::*;

/// What destinations `(last byte of the address, port)` saw, asked one after the other.
fn seen(list: &[(u8, u16, u16)]) -> Vec<Observation> {
    #[allow(clippy::disallowed_methods, reason = "some instant to count from")]
    let start = Instant::now();
    let at = |i: usize, ms: u64| start + Duration::from_millis(100 * i as u64 + ms);
    let observation = |(i, &(host, port, outside)): (usize, &(u8, u16, u16))| Observation {
        destination: ([11, 0, 1, host], port).into(),
        reflexive: ([11, 0, 0, 1], outside).into(),
        asked: at(i, 0),
        answered: at(i, 40),
    };
    list.iter().enumerate().map(observation).collect()
}

fn samples(list: &[(u8, u16, u16)]) -> Samples {
    Samples { local_port: 5000, complete: true, in_turn: false, observations: seen(list) }
}

#[test]
fn mapping_needs_two_addresses() {
    assert_eq!(mapping(&seen(&[(1, 3478, 9)])), None);
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 9)])), None);
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3478, 9)])), Some(Mapping::EndpointIndependent));
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3478, 10)])), None);
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3479, 9)])), Some(Mapping::EndpointIndependent));
}

#[test]
fn two_ports_at_one_address_tell_the_dependent_policies_apart() {
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (2, 3479, 10)])), None);
    let by_address = [(1, 3478, 9), (1, 3479, 9), (2, 3479, 10)];
    assert_eq!(mapping(&seen(&by_address)), Some(Mapping::AddressDependent));
    let by_port = [(1, 3478, 9), (1, 3479, 10), (2, 3479, 11)];
    assert_eq!(mapping(&seen(&by_port)), Some(Mapping::AddressAndPortDependent));
}

#[test]
fn what_no_policy_explains_is_none() {
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 10), (2, 3478, 9), (2, 3479, 10)])), None);
    assert_eq!(mapping(&seen(&[(1, 3478, 9), (1, 3479, 9), (2, 3478, 10), (2, 3479, 11)])), None);
}

#[test]
fn three_allocations_make_an_order() {
    assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 702)])]), None);
    let counting = samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 704)]);
    assert_eq!(allocation(std::slice::from_ref(&counting)), Some(Allocation::Contiguous { delta: 2 }));
    let down = samples(&[(1, 1, 700), (1, 2, 697), (2, 1, 694)]);
    assert_eq!(allocation(&[down]), Some(Allocation::Contiguous { delta: -3 }));
    assert_eq!(
        allocation(&[samples(&[(1, 1, 700), (1, 2, 60_000), (2, 1, 9000)])]),
        Some(Allocation::Random)
    );
    assert_eq!(
        allocation(&[Samples { complete: false, ..counting }]),
        None,
        "one that was not heard may be missing"
    );
}

#[test]
fn a_busy_counter_is_neither_contiguous_nor_random() {
    assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 708), (2, 2, 709)])]), None);
    assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 900), (2, 1, 1400), (2, 2, 1800)])]), None);
}

#[test]
fn leaps_are_random_even_if_they_all_go_one_way() {
    let leaping = [(1, 1, 2000), (1, 2, 9000), (2, 1, 30_000), (2, 2, 31_000)];
    assert_eq!(allocation(&[samples(&leaping)]), Some(Allocation::Random));
    assert_eq!(allocation(&[samples(&[(1, 1, 700), (1, 2, 5700), (2, 1, 10_700), (2, 2, 15_700)])]), None);
}

#[test]
fn overlapping_questions_have_no_order() {
    let mut counting = samples(&[(1, 1, 700), (1, 2, 702), (2, 1, 704)]);
    counting.observations[0].answered += Duration::from_millis(80);
    assert_eq!(allocation(&[counting]), None);
}

#[test]
fn a_preserved_port_is_one_that_every_socket_keeps() {
    let keeps = samples(&[(1, 1, 5000), (1, 2, 5001), (2, 1, 5002)]);
    assert_eq!(allocation(std::slice::from_ref(&keeps)), Some(Allocation::Preserving));
    assert_eq!(allocation(&[keeps, samples(&[(1, 1, 800)])]), None);
}
