//! Tests of the lab's DHT by nodes that are not ours.

#![allow(clippy::unwrap_used)]

use natlab::{
    Lab,
    dht::{Dht, Makeup},
};

/// The key of the test vectors of BEP 44.
const PRIVATE: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                       b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";

/// Number of nodes that libtorrent stores an item at.
const COPIES: usize = 8;

#[test]
fn item_is_stored_by_one_node_and_fetched_by_others_while_half_are_dead() {
    let lab = Lab::new().unwrap();
    let dht = Dht::start(&lab, Makeup::USUAL).unwrap();
    let (one, other) = (lab.server("one").unwrap(), lab.server("other").unwrap());

    assert_eq!(dht.put(&one, PRIVATE, PUBLIC, "hello").unwrap(), COPIES);
    assert_eq!(dht.get(&other, PUBLIC).unwrap(), "1 b'hello'\n");

    let dead: Vec<_> = dht.nodes().skip(2).step_by(2).collect();
    dht.silence(&dead).unwrap();
    let third = lab.server("third").unwrap();
    assert_eq!(dht.get(&third, PUBLIC).unwrap(), "1 b'hello'\n");
    let answers = |node: &str| third.run("ping", &["-n", "-c", "1", "-W", "1", node]).is_ok();
    assert!(answers(&dht.nodes().next().unwrap().to_string()));
    assert!(!answers(&dead[0].to_string()));
}
