use super::*;

fn message(bytes: usize) -> Item {
    Item::Message(vec![7; bytes].into())
}

fn collect(outbox: &Outbox, all: &AtomicUsize) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let closing = outbox.collect(all, &mut out, usize::MAX);
    (out, closing)
}

#[test]
fn items_leave_as_frames_in_order_and_are_counted_meanwhile() {
    let (outbox, all) = (Outbox::new(0), AtomicUsize::new(0));
    assert!(outbox.push(&all, message(3)) && outbox.push(&all, Item::Ping));
    assert_eq!(all.load(Ordering::Relaxed), 3 + 2 * OVERHEAD);
    assert_eq!(collect(&outbox, &all), (vec![0x82, 3, 7, 7, 7, 0x89, 0], false));
    assert_eq!((outbox.backlog(), all.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn nothing_follows_a_goodbye() {
    let (outbox, all) = (Outbox::new(0), AtomicUsize::new(0));
    outbox.close(&all, 4000, "bye");
    outbox.close(&all, 4001, "again");
    assert!(!outbox.push(&all, message(1)));
    assert_eq!(collect(&outbox, &all), (vec![0x88, 5, 0x0f, 0xa0, b'b', b'y', b'e'], true));
    assert!(outbox.is_closing());
}

#[test]
fn a_backlog_that_is_too_long_gives_way_to_a_goodbye() {
    let (outbox, all) = (Outbox::new(0), AtomicUsize::new(0));
    while outbox.push(&all, message(60_000)) {}
    let (out, closing) = collect(&outbox, &all);
    assert!(closing);
    assert_eq!(out[2..4], close::SLOW.to_be_bytes());
    assert_eq!(all.load(Ordering::Relaxed), 0);
}

#[test]
fn when_all_together_wait_for_too_much_those_with_a_backlog_go_first() {
    let (slow, quick) = (Outbox::new(0), Outbox::new(0));
    let all = AtomicUsize::new(0);
    assert!(slow.push(&all, message(SHORT)));
    all.fetch_add(QUEUED, Ordering::Relaxed);
    assert!(quick.push(&all, message(1000)));
    assert!(!slow.push(&all, message(1000)));
}

#[test]
fn silence_is_counted_from_what_was_heard_last() {
    let outbox = Outbox::new(10);
    assert_eq!(outbox.silent_for(25), 15);
    outbox.heard(20);
    assert_eq!(outbox.silent_for(25), 5);
}

#[test]
fn an_emptied_outbox_holds_no_memory() {
    let (outbox, all) = (Outbox::new(0), AtomicUsize::new(0));
    (0..100).for_each(|_| assert!(outbox.push(&all, message(10))));
    collect(&outbox, &all);
    assert_eq!(outbox.lock().items.capacity(), 0);
}
