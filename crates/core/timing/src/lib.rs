//! Rate limits, retries, round-trip estimates and timers without a clock.
//!
//! | type | answers |
//! |---|---|
//! | [`TokenBucket`] | May this packet, request or byte pass now, and if not, when? |
//! | [`Pacer`] | When is the next free slot that nobody else was given? |
//! | [`Backoff`] | How long to wait before the next attempt? |
//! | [`RttEstimator`] | How long does an answer take, and when is it overdue (RFC 6298)? |
//! | [`Deadlines`] | Which of many keyed timers fires next? |
//!
//! Time is passed in as [`std::time::Instant`] and randomness as [`rand_core::RngCore`], so that a simulation drives
//! these types with a hand-moved clock and a fixed seed. A moment that lies before an earlier one is harmless: no
//! type panics, and none lets more pass because of it.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use partyline_timing::{Backoff, Deadlines, Jitter, Rate, TokenBucket};
//!
//! let start = Instant::now();
//! let mut bucket = TokenBucket::new(Rate::per_second(100, 2));
//! assert!(bucket.take(start, 2));
//! assert_eq!(bucket.take_or_wait(start, 1), Err(start + Duration::from_millis(10)));
//!
//! let mut retry = Backoff::new(Duration::from_secs(1), Duration::from_secs(60)).with_jitter(Jitter::HALF);
//! assert_eq!(retry.next_delay_at(1.0), Duration::from_secs(1));
//! assert_eq!(retry.next_delay_at(1.0), Duration::from_secs(2));
//!
//! let mut timers = Deadlines::new();
//! timers.set("handshake", Some(start + Duration::from_secs(5)));
//! timers.bring_forward("handshake", start + Duration::from_secs(1));
//! assert_eq!(timers.pop_due(start + Duration::from_secs(2)), Some("handshake"));
//! ```

mod backoff;
mod bucket;
mod deadlines;
mod pacer;
mod rtt;

pub use backoff::{Backoff, Jitter};
pub use bucket::{Level, Rate, TokenBucket};
pub use deadlines::Deadlines;
pub use pacer::Pacer;
pub use rtt::{RtoBounds, RttEstimator};
