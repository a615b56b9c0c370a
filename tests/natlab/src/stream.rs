//! Traffic as a game sends it: small numbered datagrams at a steady pace, whose arrival is recorded.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::{Host, worker::Worker};

/// Length of a datagram in bytes.
const SIZE: usize = 120;

/// A stream of datagrams from one host to another. It runs until stopped or dropped.
#[derive(Debug)]
pub struct Stream {
    book: Arc<Mutex<Book>>,
    worker: Worker,
}

/// Record of the datagrams sent and received, in order.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// Send times, indexed by sequence number.
    pub sent: Vec<Instant>,
    /// Sequence numbers and times of arrival.
    pub received: Vec<(u32, Instant)>,
}

impl Stream {
    /// Starts to send one datagram every `pace`. Datagrams sent before the destination is reachable are lost.
    ///
    /// # Errors
    /// Returns an error if the port is taken at the receiver.
    pub fn start(from: &Host, to: &Host, destination: SocketAddr, pace: Duration) -> Result<Self> {
        let sender = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let receiver = to.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, destination.port())))??;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let book = Arc::new(Mutex::new(Book::default()));
        let line = Line { sender, receiver, destination, pace, book: Arc::clone(&book) };
        Ok(Self { book, worker: Worker::start(move |stop| line.send_until(stop)) })
    }

    /// Returns the record up to now.
    #[must_use]
    pub fn book(&self) -> Book {
        lock(&self.book).clone()
    }

    /// Returns the time of the first arrival.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        lock(&self.book).received.first().map(|(_, at)| *at)
    }

    /// Returns the number of datagrams received, including duplicates.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.book).received.len()
    }

    /// Stops the stream and returns its record.
    ///
    /// # Errors
    /// Returns an error if polling the socket failed.
    pub fn stop(self) -> Result<Book> {
        self.worker.stop()?;
        Ok(lock(&self.book).clone())
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Line {
    sender: UdpSocket,
    receiver: UdpSocket,
    destination: SocketAddr,
    pace: Duration,
    book: Arc<Mutex<Book>>,
}

impl Line {
    fn send_until(self, stop: &AtomicBool) -> Result<()> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let left = next.saturating_duration_since(Instant::now());
            let mut polled = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
            ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None)?;
            self.hear();
            if Instant::now() >= next {
                self.send();
                next += self.pace;
            }
        }
        self.hear();
        Ok(())
    }

    fn send(&self) {
        let mut book = lock(&self.book);
        let number = u32::try_from(book.sent.len()).unwrap_or(u32::MAX);
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        book.sent.push(Instant::now());
        // As long as there is no route, the datagram is lost like any other.
        let _ = self.sender.send_to(&bytes, self.destination);
    }

    fn hear(&self) {
        let mut bytes = [0; SIZE];
        while let Ok(SIZE) = self.receiver.recv(&mut bytes) {
            let number = bytes.first_chunk().map_or(u32::MAX, |first| u32::from_be_bytes(*first));
            lock(&self.book).received.push((number, Instant::now()));
        }
    }
}

impl Book {
    /// Returns the time of arrival of the first datagram sent at `moment` or later, if any.
    #[must_use]
    pub fn first_sent_after(&self, moment: Instant) -> Option<Instant> {
        let number = u32::try_from(self.sent.partition_point(|at| *at < moment)).unwrap_or(u32::MAX);
        self.received.iter().find(|(received, _)| *received >= number).map(|(_, at)| *at)
    }

    /// Returns the longest time without an arrival, from `moment` to the last arrival.
    #[must_use]
    pub fn longest_silence(&self, moment: Instant) -> Duration {
        let mut before = moment;
        let later = self.received.iter().map(|(_, at)| *at).filter(|at| *at > moment);
        let silences = later.map(|at| at.duration_since(std::mem::replace(&mut before, at)));
        silences.max().unwrap_or_default()
    }

    /// Returns the number of datagrams lost between the first and the last one that arrived, and the number of
    /// duplicates.
    #[must_use]
    pub fn lost_and_twice(&self) -> (u32, u32) {
        let mut times = vec![0_u32; self.sent.len()];
        for (number, _) in &self.received {
            if let Some(count) = usize::try_from(*number).ok().and_then(|number| times.get_mut(number)) {
                *count += 1;
            }
        }
        let first = times.iter().position(|count| *count > 0).unwrap_or(times.len());
        let end = times.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        let lost = times[first..end].iter().filter(|count| **count == 0).count();
        let twice = times.iter().map(|count| count.saturating_sub(1)).sum();
        (u32::try_from(lost).unwrap_or(u32::MAX), twice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(sent: usize, received: &[u32]) -> Book {
        let now = Instant::now();
        Book { sent: vec![now; sent], received: received.iter().map(|number| (*number, now)).collect() }
    }

    #[test]
    fn early_and_in_flight_datagrams_do_not_count_as_lost() {
        assert_eq!(book(9, &[2, 3, 4, 5]).lost_and_twice(), (0, 0));
        assert_eq!(book(9, &[]).lost_and_twice(), (0, 0));
    }

    #[test]
    fn silence_before_the_fault_does_not_count() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let book =
            Book { sent: vec![at(0), at(500)], received: vec![(0, at(10)), (1, at(600)), (2, at(700))] };
        assert_eq!(book.longest_silence(begun), Duration::from_millis(590));
        assert_eq!(book.longest_silence(at(550)), Duration::from_millis(100));
        assert_eq!(book.longest_silence(at(800)), Duration::ZERO);
        assert_eq!(book.first_sent_after(at(1)), Some(at(600)));
        assert_eq!(book.first_sent_after(at(501)), Some(at(700)));
    }

    #[test]
    fn losses_and_duplicates_are_counted_in_any_order() {
        assert_eq!(book(9, &[1, 4, 2, 4, 6]).lost_and_twice(), (2, 1));
    }
}
