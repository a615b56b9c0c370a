//! What a test does to datagrams on their way.

use std::time::Duration;

use partyline_tests_netsim::Datagram;

/// Losses and delays chosen by a test, and a record of all datagrams.
pub struct Interference {
    /// Selects the datagrams that are lost.
    pub lost: Box<dyn FnMut(&Datagram) -> bool>,
    /// Returns the additional delay of a datagram.
    pub delay: Box<dyn FnMut(&Datagram) -> Duration>,
    /// The datagrams so far, if they are recorded.
    pub record: Option<Vec<Datagram>>,
}

impl Default for Interference {
    fn default() -> Self {
        Self { lost: Box::new(|_| false), delay: Box::new(|_| Duration::ZERO), record: None }
    }
}

impl Interference {
    /// Returns the additional delay of a datagram, or `None` if it is lost.
    pub fn judge(&mut self, datagram: &Datagram) -> Option<Duration> {
        if let Some(record) = &mut self.record {
            record.push(datagram.clone());
        }
        (!(self.lost)(datagram)).then(|| (self.delay)(datagram))
    }
}
