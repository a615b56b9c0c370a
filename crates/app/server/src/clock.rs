//! The only place of the server that reads the clocks for its state machines.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use partyline_model::{Now, Timestamp};

/// Returns the monotonic and the wall clock's time.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix: Timestamp(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
}
