//! What a game sends: small numbered datagrams at a steady pace, each of which is looked for at the other end.

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

/// Bytes of a datagram.
const SIZE: usize = 120;

/// Datagrams on their way from one computer to another, until dropped or stopped.
#[derive(Debug)]
pub struct Stream {
    book: Arc<Mutex<Book>>,
    worker: Worker,
}

/// What was sent and what arrived, in order.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// When each was sent; its number is its place.
    pub sent: Vec<Instant>,
    /// Numbers that arrived, and when.
    pub received: Vec<(u32, Instant)>,
}

impl Stream {
    /// Begins to send, one datagram every `pace`. A destination that is not there yet costs those sent too early.
    ///
    /// # Errors
    /// The port is taken at the other end.
    pub fn start(from: &Host, to: &Host, destination: SocketAddr, pace: Duration) -> Result<Self> {
        let sender = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let receiver = to.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, destination.port())))??;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let book = Arc::new(Mutex::new(Book::default()));
        let line = Line { sender, receiver, destination, pace, book: Arc::clone(&book) };
        Ok(Self { book, worker: Worker::start(move |stop| line.send_until(stop)) })
    }

    /// Everything up to now.
    #[must_use]
    pub fn book(&self) -> Book {
        lock(&self.book).clone()
    }

    /// When the first datagram arrived.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        lock(&self.book).received.first().map(|(_, at)| *at)
    }

    /// How many have arrived, repetitions included.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.book).received.len()
    }

    /// Stops it and returns its record.
    ///
    /// # Errors
    /// Waiting for datagrams failed.
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
        // Where there is no way yet, it is lost like any other.
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
    /// When the first of those arrived that were sent at `moment` or later; `None` if none has.
    #[must_use]
    pub fn first_sent_after(&self, moment: Instant) -> Option<Instant> {
        let number = u32::try_from(self.sent.partition_point(|at| *at < moment)).unwrap_or(u32::MAX);
        self.received.iter().find(|(received, _)| *received >= number).map(|(_, at)| *at)
    }

    /// The longest time from `moment` on in which nothing arrived, up to the last arrival.
    #[must_use]
    pub fn longest_silence(&self, moment: Instant) -> Duration {
        let mut before = moment;
        let later = self.received.iter().map(|(_, at)| *at).filter(|at| *at > moment);
        let silences = later.map(|at| at.duration_since(std::mem::replace(&mut before, at)));
        silences.max().unwrap_or_default()
    }

    /// Of those sent after the first and before the last that arrived: how many did not, and how many came again.
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
